"""Where the minter key comes from: a keychain, a vault, a file descriptor, a file of our own, a context of the SDK.

Never argv, and never the environment: other programs of the same user can read both.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from lamplighter.api.secret import Secret
from lamplighter.client.config import NEON_CLOUD, Server, normalise
from lamplighter.client.errors import ConfigurationError
from lamplighter.keys.errors import MinterUnfit, PolicyError, SinkError
from lamplighter.keys.neon import TIMEOUT, NeonKeys
from lamplighter.keys.sinks.registry import parse_sink

Source = Literal["keyring", "vault", "fd", "file", "context"]

_FORMS: Final = "keyring:SERVICE/NAME, vault:MOUNT/PATH#FIELD, fd:NUMBER, file:PATH, context:NAME"
_PLACES: Final[Mapping[str, re.Pattern[str]]] = {
    "keyring": re.compile(r"[^/]+/.+"),
    "vault": re.compile(r"[^/#]+/[^#]+#[^#]+"),
    "fd": re.compile(r"[0-9]{1,6}"),
    "file": re.compile(r".+"),
    "context": re.compile(r".+"),
}
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Minter:
    """A place that holds a minter key. `str()` is how it was written, and no secret."""

    source: Source
    place: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises PolicyError."""
        source, _, place = text.partition(":")
        form = _PLACES.get(source)
        if form is None or not form.fullmatch(place):
            # It may be a key, put where its place was meant: it must not be shown.
            raise PolicyError("that does not say where the minter key is", hint=f"write one of {_FORMS}")
        return cls(source, place)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.source}:{self.place}"

    @property
    def sink_address(self) -> str | None:
        """The address of the sink that is the same place, where there is one."""
        kind = {"keyring": "keychain", "vault": "vault"}.get(self.source)
        return f"{kind}:{self.place}" if kind else None

    def read(self) -> Secret:
        """The key. Raises MinterUnfit, which says what to do."""
        read = {
            "keyring": _from_keychain,
            "vault": _from_vault,
            "fd": _from_descriptor,
            "file": _from_file,
            "context": _from_context,
        }[self.source]
        key = Secret(read(self.place).reveal().strip())
        if not key or not re.fullmatch(r"[\x21-\x7e]+", key.reveal()):
            raise MinterUnfit(f"what {self} holds is no API key", hint="store the key alone, in one line")
        return key

    def connect(self, base_url: str | None = None, *, timeout: float = TIMEOUT) -> NeonKeys:
        """The server at `base_url` (Neon's cloud, or the context's own), asked with this key.

        A context's key only ever goes to the context's server. Raises MinterUnfit, PolicyError.
        """
        if self.source == "context":
            own = _of_context(self.place).base_url
            if base_url is not None and _normal(base_url) != own:
                raise PolicyError(f"the key of {self} belongs to {own}, and goes nowhere else")
            base_url = own
        return NeonKeys(base_url=_normal(base_url or NEON_CLOUD), api_key=self.read(), timeout=timeout)


def _from_keychain(place: str) -> Secret:
    return _from_sink(f"keychain:{place}", "store it with `lamp keys init`")


def _from_vault(place: str) -> Secret:
    return _from_sink(f"vault:{place}", "is the path right, and the field?")


def _from_sink(address: str, hint: str) -> Secret:
    """A store that a key can be put into is one that it can be read from, by the same rules."""
    try:
        found = parse_sink(address).read_back()
    except SinkError as error:
        why, hint = f"the minter key cannot be read: {error}", error.hint or hint
    else:
        if found is not None:
            with found, found.reveal() as view:
                return _text(bytes(view), address)
        why = f"{address} holds no minter key"
    raise MinterUnfit(why, hint=hint)


def _from_descriptor(place: str) -> Secret:
    content = b""
    try:
        with os.fdopen(int(place), "rb", closefd=False) as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise MinterUnfit(f"cannot read file descriptor {place}: {error.strerror}") from None
    return _text(content, f"file descriptor {place}")


def _from_file(place: str) -> Secret:
    path = Path(place).expanduser()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (os.geteuid(), 0):
                raise MinterUnfit(f"{path} is no file of yours")
            if stat.S_IMODE(facts.st_mode) & 0o077:
                raise MinterUnfit(f"others may read {path}", hint=f"chmod 600 {path}")
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise MinterUnfit(f"cannot read {path}: {error.strerror}") from None
    return _text(content, str(path))


def _text(content: bytes, where: str) -> Secret:
    if len(content) <= _LONGEST:
        try:
            return Secret(content.decode("ascii"))
        except UnicodeDecodeError:
            # Raised below: this error would carry the bytes along.
            pass
    raise MinterUnfit(f"what {where} holds is no API key")


def _from_context(name: str) -> Secret:
    return _of_context(name).api_key


def _of_context(name: str) -> Server:
    from lamplighter.client.contexts import find_server  # noqa: PLC0415 - only for this source

    try:
        return find_server(context=name)
    except ConfigurationError as error:
        why, hint = error.message, error.hint
    raise MinterUnfit(why, hint=hint)


def _normal(base_url: str) -> str:
    try:
        return normalise(base_url)
    except ConfigurationError as error:
        why = error.message
    raise PolicyError(why)
