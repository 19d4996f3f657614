"""The keychain of the operating system: `keychain:SERVICE/NAME`, over `keyring`. An extra, `keychain`.

What counts as a keychain is judged in `client.keychain`. No error of `keyring` gets out of here: its frames hold what
was to be kept. A value has to be a `str` on its way, which cannot be wiped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

from lamplighter.client.errors import ConfigurationError
from lamplighter.client.keychain import open_keychain
from lamplighter.keys.errors import PolicyError, SinkError, SinkRefused, SinkUnreachable, SinkUnsafe
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.registry import no_options
from lamplighter.keys.value import KeyBuffer

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")

_PLACE: Final = re.compile(r"([^/#\x00-\x1f]{1,200})/([^\x00-\x1f]{1,200})")
#: Errors of keychains, by their names: they are of many packages, few of which are installed.
_UNREACHABLE: Final = frozenset({"InitError", "SecretServiceNotAvailableException", "ConnectionRefusedError"})
_REFUSED: Final[Mapping[str, str]] = {
    "KeyringLocked": "it is locked",
    "LockedException": "it is locked",
    "PromptDismissedException": "it was not unlocked",
    "KeyringAccessDenied": "it does not let this program in",
    "SecAuthFailure": "it does not let this program in",
}


class KeychainSink(Sink):
    kind: ClassVar[str] = "keychain"

    def __init__(self, service: str, name: str) -> None:
        self.service = service
        self.name = name

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        found = _PLACE.fullmatch(address.removeprefix("keychain:"))
        if not found:
            raise PolicyError(
                f"{address!r} is no keychain address: write keychain:SERVICE/NAME, as keychain:neon/NEON_API_KEY"
            )
        no_options(address, options)
        return cls(found[1], found[2])

    def describe(self) -> str:
        return f"keychain:{self.service}/{self.name}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=True, effect="next read", soak=SOAK["next read"])

    def check(self) -> str:
        backend = self._backend()
        # A locked keychain shows only when it is asked.
        self._ask(lambda: backend.get_password(self.service, self.name) is not None)
        return f"the keychain ({_called(backend)}) is open"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:  # noqa: ARG002 - keyring keeps no comments
        backend = self._backend()
        with value.reveal() as view:
            if not _is_text(view):
                raise SinkError("a keychain holds text, and this value is none", address=self.describe())

            def put() -> bool:
                backend.set_password(self.service, self.name, str(view, "utf-8"))
                # Some take a value and keep none.
                return backend.get_password(self.service, self.name) == str(view, "utf-8")

            kept = self._ask(put)
        if not kept:
            raise SinkError("does not give back what it was given", address=self.describe())
        return self._receipt(backend)

    def read_back(self) -> KeyBuffer | None:
        backend = self._backend()

        def get() -> KeyBuffer | None:
            found = backend.get_password(self.service, self.name)
            return KeyBuffer(bytearray(found.encode())) if found else None

        return self._ask(get)

    def metadata(self) -> Receipt | None:
        backend = self._backend()
        there = self._ask(lambda: bool(backend.get_password(self.service, self.name)))
        return self._receipt(backend) if there else None

    def delete(self) -> None:
        backend = self._backend()

        def remove() -> None:
            if backend.get_password(self.service, self.name) is not None:
                backend.delete_password(self.service, self.name)

        self._ask(remove)

    def _backend(self) -> KeyringBackend:
        try:
            return open_keychain().backend
        except ConfigurationError as error:
            why = error.message
        raise SinkUnsafe(why, address=self.describe())

    def _ask(self, call: Callable[[], T]) -> T:
        """What `call` gives. Raises SinkError, from a frame that holds nothing of the value."""
        failed = ""
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - backends raise what their systems raise
            failed = type(error).__name__
        if failed in _REFUSED:
            raise SinkRefused(
                f"the keychain does not open: {_REFUSED[failed]} ({failed})",
                address=self.describe(),
                hint="unlock it, then run it again",
            )
        kind = SinkUnreachable if failed in _UNREACHABLE else SinkError
        raise kind(f"the keychain failed: {failed}", address=self.describe())

    def _receipt(self, backend: KeyringBackend) -> Receipt:
        """Of the Secret Service, when the item was changed; the others do not say that."""
        at = None
        with suppress(Exception):
            at = _changed_at(backend, self.service, self.name)
        return Receipt(updated_at=at)


def _changed_at(backend: Any, service: str, name: str) -> datetime | None:
    """Raises whatever it likes where the backend is no Secret Service."""
    collection = backend.get_preferred_collection()
    try:
        for item in collection.search_items({"username": name, "service": service}):
            return datetime.fromtimestamp(item.get_modified(), UTC)
    finally:
        collection.connection.close()
    return None


def _is_text(view: memoryview) -> bool:
    try:
        return "\0" not in str(view, "utf-8")
    except UnicodeDecodeError:
        return False


def _called(backend: KeyringBackend) -> str:
    return str(getattr(backend, "name", type(backend).__module__))
