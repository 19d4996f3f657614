"""Byte streams over raw non-blocking sockets, plain or with TLS that ends here.

`ssl.SSLObject` over memory buffers and not `loop.start_tls`, whose transport may get data before it is handed out. No
stream reads ahead of who asks, so that what is buffered is bounded by one read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from lamplighter.gateway.errors import HandshakeFailed
from lamplighter.gateway.ports import Backend

#: One read while hands are shaken, and when bytes are passed on.
SMALL = 16 * 1024
LARGE = 64 * 1024
CONNECT_SECONDS = 5.0
#: Seconds for a peer that is told an error to take it and close.
LINGER_SECONDS = 2.0


class Stream:
    """A plain one. `buffer` holds what was read and not yet consumed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self._loop = asyncio.get_running_loop()

    async def receive(self) -> bytes:
        """What comes next from the peer, the buffer not counted; b"" at its end."""
        return await self._loop.sock_recv(self.sock, SMALL)

    async def fill(self) -> None:
        """Get more into the buffer. Raises HandshakeFailed at the peer's end."""
        data = await self.receive()
        if not data:
            raise HandshakeFailed("the peer left")
        self.buffer += data

    async def exactly(self, size: int) -> bytes:
        """Consume so many bytes. The caller bounds them. Raises HandshakeFailed."""
        while len(self.buffer) < size:
            await self.fill()
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def take(self) -> bytes:
        """Consume what is in the buffer."""
        taken = bytes(self.buffer)
        self.buffer.clear()
        return taken

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def end(self) -> None:
        """Say that nothing more comes from us."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    async def linger(self) -> None:
        """Wait for the peer to close: unread bytes would turn our close into a reset, which eats what we said last."""
        await self.end()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(LINGER_SECONDS):
                for _ in range(64):
                    if not await self._loop.sock_recv(self.sock, SMALL):
                        return

    def open(self, raw: bytes) -> tuple[bytes, bool]:
        """What the peer means by these bytes, and whether it says nothing more."""
        return raw, False

    def seal(self, data: bytes) -> bytes:
        """What to send, for the peer to read these."""
        return data

    def farewell(self) -> bytes:
        """What to send before our side of the connection is closed."""
        return b""

    def close(self) -> None:
        self.sock.close()


class TlsStream(Stream):
    """TLS over a plain stream, whose buffer is taken over as its first bytes."""

    def __init__(self, under: Stream, context: ssl.SSLContext, *, server_side: bool) -> None:
        super().__init__(under.sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._incoming.write(under.take())

    @property
    def alpn(self) -> str | None:
        """The protocol that was agreed on."""
        return self._tls.selected_alpn_protocol()

    async def handshake(self) -> None:
        """Raises ssl.SSLError, HandshakeFailed, OSError. The caller sets the deadline."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take_in()
            except ssl.SSLError:
                # The alert that tells the peer why.
                await self._flush()
                raise
            else:
                await self._flush()
                return

    async def receive(self) -> bytes:
        while True:
            try:
                data = self._tls.read(SMALL)
            except ssl.SSLWantReadError:
                await self._flush()
                try:
                    await self._take_in()
                except HandshakeFailed:
                    return b""
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            else:
                return data

    async def send(self, data: bytes) -> None:
        await super().send(self.seal(data))

    async def end(self) -> None:
        with contextlib.suppress(OSError):
            await super().send(self.farewell())
        await super().end()

    def open(self, raw: bytes) -> tuple[bytes, bool]:
        self._incoming.write(raw)
        pieces = []
        try:
            while piece := self._tls.read(LARGE):
                pieces.append(piece)
                if not (self._incoming.pending or self._tls.pending()):
                    return b"".join(pieces), False
        except ssl.SSLWantReadError:
            # What TLS itself answers, such as another key, leaves with the next `seal`: so it is bounded here.
            return b"".join(pieces), self._outgoing.pending > LARGE
        except ssl.SSLError:
            pass
        return b"".join(pieces), True

    def seal(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        # close_notify is put out before it waits for the peer's.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()

    async def _take_in(self) -> None:
        data = await super().receive()
        if not data:
            raise HandshakeFailed("the peer left")
        self._incoming.write(data)

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await super().send(self._outgoing.read())


async def connect(backend: Backend) -> socket.socket:
    """A connection to a compute or pooler. Raises OSError, TimeoutError after five seconds."""
    sock = socket.socket(socket.AF_INET6 if ":" in backend.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, (backend.host, backend.port))
    except BaseException:
        sock.close()
        raise
    return sock
