"""Messages of protocol 3 after the startup packet: those that a proxy says or has to understand, and no others.

A message is a byte for its kind, four for its length (which count themselves), and a body.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from lamplighter.gateway.wire.errors import Malformed, TooLarge

#: Enough for what a login needs. Postgres takes passwords and SASL messages of up to 65,535 bytes; nobody sends them.
LOGIN_LIMIT = 16 * 1024

# Codes of an authentication request ("R").
AUTH_OK = 0
AUTH_CLEARTEXT = 3
AUTH_SASL = 10
AUTH_SASL_CONTINUE = 11
AUTH_SASL_FINAL = 12

#: Letters of the fields of an error or notice, and the names that they have here.
FIELDS = {
    "S": "severity",
    "V": "severity_nonlocalized",
    "C": "code",
    "M": "message",
    "D": "detail",
    "H": "hint",
    "P": "position",
    "p": "internal_position",
    "q": "internal_query",
    "W": "where",
    "s": "schema",
    "t": "table",
    "c": "column",
    "d": "data_type",
    "n": "constraint",
    "F": "file",
    "L": "line",
    "R": "routine",
}
_LETTERS = {name: letter for letter, name in FIELDS.items()}


@dataclass(frozen=True, slots=True)
class Message:
    """`kind` is one byte: b"R", b"E", b"p"."""

    kind: bytes
    body: bytes

    def render(self) -> bytes:
        return message(self.kind, self.body)


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", 4 + len(body)) + body


def error_response(severity: str, code: str, text: str, **fields: str | None) -> bytes:
    """An ErrorResponse. `severity` is FATAL where the connection ends, `code` a SQLSTATE.

    `fields` are named as in `FIELDS`, such as `detail` and `hint`; None leaves one out.
    """
    told = {"severity": severity, "severity_nonlocalized": severity, "code": code, "message": text, **fields}
    parts = [_LETTERS[name].encode() + _cstring(value) for name, value in told.items() if value is not None]
    return message(b"E", b"".join(parts) + b"\0")


def _cstring(text: str) -> bytes:
    # A NUL would end the field: what is behind it would be read as other fields.
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogateescape") + b"\0"


def parse_error(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by the names of `FIELDS`; an unknown one by its letter.

    Raises Malformed.
    """
    fields: dict[str, str] = {}
    at = 0
    while at < len(body) and body[at]:
        end = body.find(b"\0", at)
        if end < 0:
            break
        letter = chr(body[at])
        fields[FIELDS.get(letter, letter)] = body[at + 1 : end].decode("utf-8", "replace")
        at = end + 1
    if at != len(body) - 1 or body[at]:
        raise Malformed("invalid error message from the server")
    return fields


# What a server asks for.


def authentication(code: int, data: bytes = b"") -> bytes:
    return message(b"R", struct.pack("!I", code) + data)


def authentication_ok() -> bytes:
    return authentication(AUTH_OK)


def authentication_cleartext() -> bytes:
    return authentication(AUTH_CLEARTEXT)


def authentication_sasl(mechanisms: Iterable[str]) -> bytes:
    return authentication(AUTH_SASL, b"".join(name.encode() + b"\0" for name in mechanisms) + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    return authentication(AUTH_SASL_CONTINUE, data)


def authentication_sasl_final(data: bytes) -> bytes:
    return authentication(AUTH_SASL_FINAL, data)


@dataclass(frozen=True, slots=True)
class Authentication:
    """`code` is one of `AUTH_...`, or one that is not known here. `data` is what follows it."""

    code: int
    data: bytes

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Of `AUTH_SASL`, in the server's order of preference."""
        return tuple(name.decode("latin-1") for name in self.data.split(b"\0") if name)


def parse_authentication(body: bytes) -> Authentication:
    """Of an "R". Raises Malformed."""
    if len(body) < 4:
        raise Malformed("invalid authentication request")
    return Authentication(struct.unpack_from("!I", body)[0], body[4:])


# What a client answers: all are "p", and only the question tells which it is.


def sasl_initial(mechanism: str, data: bytes) -> bytes:
    return message(b"p", mechanism.encode() + b"\0" + struct.pack("!i", len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    return message(b"p", data)


def parse_password(body: bytes) -> bytes:
    """The password as the client sent it, without its NUL. Raises Malformed."""
    if not body or body.find(b"\0") != len(body) - 1:
        raise Malformed("invalid password packet size")
    return body[:-1]


def parse_sasl_initial(body: bytes) -> tuple[str, bytes | None]:
    """Mechanism and first message; None where the client sent none. Raises Malformed."""
    name, nul, rest = body.partition(b"\0")
    if not nul or len(rest) < 4:
        raise Malformed("malformed SASL message")
    (length,) = struct.unpack_from("!i", rest)
    data = rest[4:]
    if length == -1 and not data:
        return name.decode("latin-1"), None
    if length != len(data):
        raise Malformed("malformed SASL message")
    return name.decode("latin-1"), data


def parse_sasl_response(body: bytes) -> bytes:
    """All of it. Raises Malformed for one with a NUL, which no SASL message of ours has."""
    if b"\0" in body:
        raise Malformed("malformed SASL message")
    return body


def parse_backend_key(body: bytes) -> tuple[int, bytes]:
    """Process id and secret of a "K": what a cancel request of this session has to say. Raises Malformed."""
    if not 8 <= len(body) <= 4 + 256:
        raise Malformed("invalid key of a session from the server")
    return struct.unpack_from("!I", body)[0], body[4:]


class Frames:
    """Cuts a stream into messages; `limit` is the longest that is taken, in bytes, its kind and length included.

    What does not fit raises TooLarge as soon as its length is known, not when it is there. No more is kept than `limit`
    and the last piece. Whoever passes bytes on from some message on takes them by `rest`.
    """

    def __init__(self, limit: int = LOGIN_LIMIT) -> None:
        self._limit = limit
        self._kept = bytearray()

    def push(self, piece: bytes) -> None:
        """Take bytes. Raises TooLarge if nobody has popped what was here."""
        if len(self._kept) > self._limit:
            raise TooLarge(self._limit)
        self._kept += piece

    def pop(self) -> Message | None:
        """The next message; None until it is whole. Raises Malformed, TooLarge."""
        kept = self._kept
        if len(kept) < 5:
            return None
        length = 1 + int.from_bytes(kept[1:5], "big")
        if length < 5:
            raise Malformed("invalid message length")
        if length > self._limit:
            raise TooLarge(self._limit)
        if len(kept) < length:
            return None
        whole = Message(bytes(kept[:1]), bytes(kept[5:length]))
        del kept[:length]
        return whole

    def feed(self, piece: bytes) -> list[Message]:
        """All messages that are whole with this piece."""
        self.push(piece)
        found = []
        while (whole := self.pop()) is not None:
            found.append(whole)
        return found

    def rest(self) -> bytes:
        """Hand over what is not popped, and forget it."""
        rest = bytes(self._kept)
        self._kept.clear()
        return rest

    def __len__(self) -> int:
        """Bytes that are kept."""
        return len(self._kept)
