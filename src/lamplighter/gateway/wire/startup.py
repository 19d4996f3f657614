"""How a connection begins: what its first bytes are, and the startup packet.

Assumes nothing of them. Eight bytes are enough to tell what comes; a startup packet has at most 10,004.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from lamplighter.gateway.wire.errors import Malformed

#: Postgres's MAX_STARTUP_PACKET_LENGTH does not count the four bytes of the length.
LONGEST = 10_004

_CANCEL_CODE = 80877102
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
GSSENC_REQUEST = struct.pack("!ii", 8, 80877104)

#: Of a cancel request: four bytes up to protocol 3.1, up to 256 from 3.2 (Postgres 18) on.
SHORTEST_SECRET = 4
LONGEST_SECRET = 256

_METHODS = (b"GET ", b"POST ", b"OPTIONS ", b"HEAD ", b"PUT ", b"DELETE ", b"PATCH ")
_NEEDED = 8


class Kind(Enum):
    """What a client begins with."""

    SSL_REQUEST = "ssl request"
    GSSENC_REQUEST = "gssenc request"
    CANCEL_REQUEST = "cancel request"
    STARTUP = "startup"
    TLS_HELLO = "tls hello"
    HTTP = "http"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Opening:
    """`length` is that of the whole packet, for the four of Postgres; 0 for the others.

    A startup of any 3.x is a `STARTUP`; one of protocol 2 is `UNKNOWN`, as is a length that Postgres would not take.
    """

    kind: Kind
    length: int = 0


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """`secret` is opaque, 4 to 256 bytes."""

    pid: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Startup:
    """`version` is major << 16 | minor. `parameters` are in the client's order, duplicates and all.

    Bytes that are no UTF-8 are kept as surrogates, so that what is rendered is what was read.
    """

    version: int
    parameters: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The value that holds: of duplicates Postgres takes the last."""
        return next((value for key, value in reversed(self.parameters) if key == name), None)

    @property
    def user(self) -> str:
        return self.get("user") or ""

    @property
    def options(self) -> str | None:
        return self.get("options")

    def with_parameter(self, name: str, value: str | None) -> Startup:
        """The same with one value for `name`, at its first place or else at the end; None takes it out."""
        others: list[tuple[str, str]] = []
        for key, old in self.parameters:
            if key != name:
                others.append((key, old))
            elif value is not None and all(seen != name for seen, _ in others):
                others.append((name, value))
        if value is not None and all(key != name for key, _ in others):
            others.append((name, value))
        return replace(self, parameters=tuple(others))


def classify(first: bytes) -> Opening | None:
    """What a connection begins with, from its first bytes. None: more are needed, which is so below eight only."""
    if not first:
        return None
    if first[0] == 0x16:
        return _tls(first)
    if first[0] == 0:
        return _packet(first) if len(first) >= _NEEDED else None
    if first.startswith(_METHODS):
        return Opening(Kind.HTTP)
    if any(method.startswith(first) for method in _METHODS):
        return None
    return Opening(Kind.UNKNOWN)


def _tls(first: bytes) -> Opening | None:
    if len(first) < 2:
        return None
    return Opening(Kind.TLS_HELLO if first[1] == 3 else Kind.UNKNOWN)


def _packet(first: bytes) -> Opening:
    if first[:8] == SSL_REQUEST:
        return Opening(Kind.SSL_REQUEST, 8)
    if first[:8] == GSSENC_REQUEST:
        return Opening(Kind.GSSENC_REQUEST, 8)
    length, code = struct.unpack_from("!II", first)
    if code == _CANCEL_CODE and 12 + SHORTEST_SECRET <= length <= 12 + LONGEST_SECRET:
        return Opening(Kind.CANCEL_REQUEST, length)
    if code >> 16 == 3 and 8 <= length <= LONGEST:
        return Opening(Kind.STARTUP, length)
    return Opening(Kind.UNKNOWN)


def parse_cancel(packet: bytes) -> CancelRequest:
    """Of the whole packet, length included. Raises Malformed."""
    opening = classify(packet)
    if opening is None or opening.kind is not Kind.CANCEL_REQUEST or opening.length != len(packet):
        raise Malformed("invalid cancel request")
    (pid,) = struct.unpack_from("!I", packet, 8)
    return CancelRequest(pid, packet[12:])


def render_cancel(request: CancelRequest) -> bytes:
    return struct.pack("!III", 12 + len(request.secret), _CANCEL_CODE, request.pid) + request.secret


def parse_startup(packet: bytes) -> Startup:
    """Of the whole packet, length included, as Postgres reads it. Raises Malformed."""
    if not 8 <= len(packet) <= LONGEST or struct.unpack_from("!I", packet)[0] != len(packet):
        raise Malformed("invalid length of startup packet")
    (version,) = struct.unpack_from("!I", packet, 4)
    if version >> 16 != 3:
        raise Malformed(
            f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}: server supports 3.0 and later 3.x",
            code="0A000",
        )
    startup = Startup(version, tuple(_pairs(packet)))
    if not startup.user:
        raise Malformed("no PostgreSQL user name specified in startup packet", code="28000")
    return startup


def _pairs(packet: bytes) -> Iterator[tuple[str, str]]:
    """Names and values end in a NUL each; a NUL in place of a name ends the packet, and must be its last byte."""
    bad = Malformed("invalid startup packet layout: expected terminator as last byte")
    if packet[-1] != 0 or len(packet) == 8:
        raise bad
    fields = packet[8:-1].split(b"\0")
    # The last one is what stands between the last value's NUL and the terminator: nothing.
    if fields.pop() or len(fields) % 2:
        raise bad
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if not name:
            raise bad
        yield name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")


def render_startup(startup: Startup) -> bytes:
    """The packet. Raises Malformed where Postgres would: a NUL inside, an empty name, too long."""
    body = bytearray(struct.pack("!I", startup.version))
    for name, value in startup.parameters:
        if not name or "\0" in name + value:
            raise Malformed("invalid startup packet layout: a name or value cannot be sent")
        body += name.encode("utf-8", "surrogateescape") + b"\0" + value.encode("utf-8", "surrogateescape") + b"\0"
    body += b"\0"
    if len(body) + 4 > LONGEST:
        raise Malformed("invalid length of startup packet")
    return struct.pack("!I", len(body) + 4) + bytes(body)


def endpoint_of_options(options: str | None) -> tuple[str | None, str | None]:
    """Split `options` into the endpoint that it names and what is left for Postgres (None: nothing).

    The word is `endpoint=ep-...`, or `project=ep-...` of old. A word behind `-c` is a setting, thus Postgres's. The
    rest keeps its escapes. Raises Malformed for two different endpoints.
    """
    if options is None:
        return None, None
    found: set[str] = set()
    kept: list[str] = []
    for raw in _words(options):
        named = None if kept and kept[-1] == "-c" else endpoint_of_word(_unescape(raw))
        if named is None:
            kept.append(raw)
        else:
            found.add(named)
    if len(found) > 1:
        raise Malformed("the options name more than one endpoint")
    if not found:
        return None, options
    return found.pop(), " ".join(kept) or None


def endpoint_of_word(word: str) -> str | None:
    """`ep-x` of `endpoint=ep-x` or `project=ep-x`; None for any other word."""
    for prefix in ("endpoint=", "project="):
        if word.startswith(prefix):
            return word[len(prefix) :]
    return None


#: C's isspace() in the C locale, by which Postgres splits.
_BLANKS = " \t\n\v\f\r"


def _words(options: str) -> Iterator[str]:
    """Split as Postgres's pg_split_opts: at blanks that no backslash escapes. Escapes stay in."""
    word: list[str] = []
    escaped = False
    for char in options:
        if char in _BLANKS and not escaped:
            if word:
                yield "".join(word)
                word = []
            continue
        word.append(char)
        escaped = char == "\\" and not escaped
    if word:
        yield "".join(word)


def _unescape(raw: str) -> str:
    plain: list[str] = []
    escaped = False
    for char in raw:
        if char == "\\" and not escaped:
            escaped = True
            continue
        plain.append(char)
        escaped = False
    return "".join(plain)
