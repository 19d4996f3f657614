"""The first message of TLS, read for two things: the server's name that the client wants, and its protocols (ALPN).

The message stays as it is, to be passed on; nothing is decrypted. Bounded to `LONGEST` bytes and
`MOST_RECORDS` records; RFC 8446, 6066, 7301.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamplighter.gateway.wire.errors import Malformed

#: With keys for hybrid key exchange a hello has 1.5 to 2 KiB; what is beyond this is no client's.
LONGEST = 32 * 1024

#: Each costs a step whenever more bytes come. Who hides from censors splits a hello in a handful.
MOST_RECORDS = 64

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_LONGEST_RECORD = 1 << 14
_SERVER_NAME = 0
_ALPN = 16
_HOST_NAME = 0
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,252})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hello:
    """`sni` is in lower case."""

    sni: str | None
    alpn: tuple[str, ...]


def read_hello(data: bytes) -> Hello | None:
    """Read a ClientHello from the first bytes of a connection. None: more bytes are needed.

    Raises Malformed for what is none, and for what is not complete within `LONGEST` bytes.
    """
    message = _gather(memoryview(data[:LONGEST]))
    if message is None:
        if len(data) >= LONGEST:
            raise Malformed("TLS hello is too long")
        return None
    sni, alpn = _read_message(_Reader(message))
    return Hello(sni, alpn)


def _gather(data: memoryview) -> bytes | None:
    """The handshake message, put together from its records; None as long as it is not whole."""
    message = bytearray()
    at = 0
    for _ in range(MOST_RECORDS):
        header = data[at : at + 5]
        # Judge what is there already: garbage is refused by its first byte.
        if (header and header[0] != _HANDSHAKE) or (len(header) > 1 and header[1] != 3):
            raise Malformed("not a TLS handshake")
        if len(header) < 5:
            return None
        size = int.from_bytes(header[3:5], "big")
        if not 0 < size <= _LONGEST_RECORD:
            raise Malformed("TLS record of a wrong length")
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message and message[0] != _CLIENT_HELLO:
            raise Malformed("TLS handshake does not begin with a hello")
        if len(message) >= 4:
            wanted = 4 + int.from_bytes(message[1:4], "big")
            if wanted > LONGEST:
                raise Malformed("TLS hello is too long")
            if len(message) > wanted:
                # Nothing can follow: the client has to wait for our keys.
                raise Malformed("TLS hello is followed by more than its length says")
            if len(message) == wanted:
                return bytes(message)
        if at > len(data):
            return None
    raise Malformed("TLS hello is in too many pieces")


class _Reader:
    """Cuts vectors off a message; each is told by the size of its length."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise Malformed("TLS hello is cut short")
        self._at += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """What is led by its length, a number of `size` bytes."""
        return self.take(self.number(size))


def _read_message(message: _Reader) -> tuple[str | None, tuple[str, ...]]:
    message.take(4 + 2 + 32)  # kind and length, legacy version, random
    message.vector(1)  # session id
    message.vector(2)  # cipher suites
    message.vector(1)  # compression methods
    extensions = _extensions(_Reader(message.vector(2))) if message else {}
    if message:
        raise Malformed("TLS hello has bytes behind its extensions")
    return _sni(extensions.get(_SERVER_NAME)), _alpn(extensions.get(_ALPN))


def _extensions(reader: _Reader) -> dict[int, bytes]:
    extensions: dict[int, bytes] = {}
    while reader:
        kind, body = reader.number(2), reader.vector(2)
        if kind in extensions:
            raise Malformed("TLS hello has an extension twice")
        extensions[kind] = body
    return extensions


def _sni(extension: bytes | None) -> str | None:
    if extension is None:
        return None
    names = _Reader(_whole(extension))
    found: str | None = None
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind != _HOST_NAME:
            continue
        if found is not None:
            raise Malformed("TLS hello names two servers")
        found = _host(name)
    return found


def _host(name: bytes) -> str:
    host = name.decode("ascii", "replace").lower().removesuffix(".")
    if not _HOST.fullmatch(host) or ".." in host:
        raise Malformed("TLS hello names a server by what is no host name")
    return host


def _alpn(extension: bytes | None) -> tuple[str, ...]:
    if extension is None:
        return ()
    protocols = _Reader(_whole(extension))
    found: list[str] = []
    while protocols:
        found.append(protocols.vector(1).decode("latin-1"))
    return tuple(found)


def _whole(extension: bytes) -> bytes:
    """The one vector that an extension consists of."""
    reader = _Reader(extension)
    body = reader.vector(2)
    if reader:
        raise Malformed("TLS extension has bytes behind its list")
    return body
