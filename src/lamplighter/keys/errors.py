"""What can go wrong in the life of a key.

    KeysError
    ├── PolicyError          a policy, a name or an address that cannot be meant
    ├── JournalError         the record of what was done cannot be kept or read
    │   ├── JournalFull      no room: found out before anything was done
    │   └── JournalBroken    a line in its middle makes no sense
    ├── Busy                 another rotation is at work, here or on another machine
    ├── MinterUnfit          the minter key cannot be read, or may not mint
    ├── MintError            Neon made no key
    │   ├── MintUnknown      the request left, and no answer came: there may be a key
    │   └── WrongScope       the key reaches more, or less, than was asked; it was withdrawn
    ├── NeonFailed           listing, revoking or asking failed
    ├── SinkError            a store
    │   ├── SinkUnreachable  does not answer, or not sensibly
    │   ├── SinkRefused      does not let us
    │   ├── SinkNotFound     has no such place
    │   └── SinkUnsafe       would put the value where others can see it
    ├── NotProven            what was stored could not be proven; the old key stays
    └── Held                 the old key is still in use; it stays

No error holds a value, nor the body of an answer. The first line of a class's docstring is its message where none is
given; facts are attributes.
"""

from __future__ import annotations

from collections.abc import Sequence


class KeysError(Exception):
    """The key manager could not do this."""

    hint: str | None = None

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or type(self).__name__).splitlines()[0].rstrip(".")
        if hint is not None:
            self.hint = hint
        super().__init__(self.message)


class PolicyError(KeysError):
    """The policy, a name or an address cannot be meant."""


class JournalError(KeysError):
    """The journal of rotations cannot be kept."""


class JournalFull(JournalError):
    """There is no room to write down what is about to be done, so it was not done."""

    hint = "make room in the state directory's file system, then run it again"


class JournalBroken(JournalError):
    """The journal has a line in its middle that makes no sense. `line` is its number, from 1."""

    hint = "the journal is only ever appended to: restore the file from a backup, or move it away and adopt the keys"

    def __init__(self, message: str | None = None, *, line: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.line = line


class Busy(KeysError):
    """Another rotation is at work. `key_id` is its key, where Neon's list showed it."""

    hint = "let the other one finish, then run it again"

    def __init__(self, message: str | None = None, *, key_id: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key_id = key_id


class MinterUnfit(KeysError):
    """The minter key cannot be read, or may not mint what is asked."""


class MintError(KeysError):
    """Neon made no key. `status` is that of HTTP, 0 where there was no answer."""

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int = 0,
        code: str = "",
        request_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.request_id = request_id


class MintUnknown(MintError):
    """The request to mint left, and no usable answer came: there may be a key of that name."""

    hint = "run `lamp keys recover`: it finds the key by its name and revokes it"


class WrongScope(MintError):
    """The minted key does not reach what was asked for; it was revoked. `key_id` is its id."""

    def __init__(self, message: str | None = None, *, key_id: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key_id = key_id


class NeonFailed(KeysError):
    """Neon could not be asked. `status` is that of HTTP, 0 where there was no answer."""

    def __init__(self, message: str | None = None, *, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class SinkError(KeysError):
    """The store failed. `address` is the sink's, `status` that of HTTP where the store speaks it."""

    def __init__(
        self, message: str | None = None, *, address: str = "", status: int = 0, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.address = address
        self.status = status

    def __str__(self) -> str:
        return f"{self.address}: {self.message}" if self.address else self.message


class SinkUnreachable(SinkError):
    """The store does not answer, or not in a way that makes sense. It may have taken the value."""


class SinkRefused(SinkError):
    """The store does not accept our credentials, or does not let them do this."""


class SinkNotFound(SinkError):
    """The store has no such place: the account, project or file of the address does not exist."""


class SinkUnsafe(SinkError):
    """The value would be where others can see it, so it was not written."""


class NotProven(KeysError):
    """It could not be proven that the new key is where it belongs and works, so the old one stays.

    `address` is the sink that is in doubt, empty when it is the key itself.
    """

    hint = "put it right, then run `lamp keys recover`"

    def __init__(self, message: str | None = None, *, address: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.address = address


class Held(KeysError):
    """The old key is still in use, so it was not revoked. `addresses` are where it was used from."""

    hint = "find what still uses the old key there; the rotation goes on with `lamp keys recover`"

    def __init__(
        self,
        message: str | None = None,
        *,
        key_id: int = 0,
        addresses: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.key_id = key_id
        self.addresses = tuple(addresses)
