"""A client whose connection has not been passed on yet: what it has said, and on which stream it hears an answer.

All such have a place each, of which there are so many; `Places` tells who gives way when they are taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from lamplighter.address_ranges import of_this_host
from lamplighter.gateway.certificates import Certificates
from lamplighter.gateway.errors import HandshakeFailed
from lamplighter.gateway.streams import Stream, TlsStream
from lamplighter.gateway.wire.startup import Kind, Opening, Startup, classify, parse_startup

#: SSLRequest, GSSENCRequest, TLS and the startup packet: nobody needs more.
_ROUNDS = 5
#: Seconds that a client may let us wait for it, in all steps together.
ALL_STEPS = 30.0
_TLS_REFUSED = b"N"
_TLS_ACCEPTED = b"S"


@dataclass(eq=False, slots=True)
class Visitor:
    """`address` is None for connections of the gateway's own programs, whose clients were looked at before.

    `step` bounds each step of the handshake, in seconds, and `left` all that are to come. `hears`: it has sent its
    startup packet, and from then on understands errors. `gives_way`: nothing would be lost with it but a client's
    delay, so that it may be cancelled for another one.
    """

    sock: socket.socket
    address: str | None
    port: int
    step: float
    stream: Stream = field(init=False)
    startup: Startup | None = None
    opening: Opening | None = None
    asked_gss: bool = False
    asked_tls: bool = False
    hears: bool = False
    gives_way: bool = True
    left: float = ALL_STEPS

    def __post_init__(self) -> None:
        self.stream = Stream(self.sock)

    @property
    def tls(self) -> TlsStream | None:
        """The session that ends here, if it does."""
        return self.stream if isinstance(self.stream, TlsStream) else None

    @property
    def local(self) -> str | None:
        """The address that it connected to; None by a Unix socket, and when the connection is over."""
        try:
            name = self.sock.getsockname()
        except OSError:
            return None
        return str(name[0]) if isinstance(name, tuple) else None

    @property
    def here(self) -> bool:
        """Whether it is on this host. Of a program that speaks for others that is not known."""
        return of_this_host(self.address, self.local)

    @property
    def payer(self) -> str | None:
        """Whose account a wake goes to: nobody's on this host."""
        return None if self.here else self.address

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        before, self.gives_way = self.gives_way, True
        try:
            yield
        finally:
            self.gives_way = before

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """One step of the client's. Raises HandshakeFailed when it takes too long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            with self.giving_way():
                async with asyncio.timeout(min(self.step, self.left)):
                    yield
        except TimeoutError:
            raise HandshakeFailed("the client was too slow") from None
        finally:
            self.left -= loop.time() - began

    async def linger(self) -> None:
        """Let the client take what it was told last, and close."""
        with self.giving_way():
            await self.stream.linger()

    async def next_opening(self) -> Opening:
        """What the client begins with, or goes on with after a request for encryption."""
        async with self.in_time():
            while (opening := classify(bytes(self.stream.buffer[:16]))) is None:
                await self.stream.fill()
        self.opening = opening
        return opening

    async def packet(self) -> bytes:
        """Consume the whole packet of the opening, whose length has been checked."""
        assert self.opening is not None
        async with self.in_time():
            return await self.stream.exactly(self.opening.length)

    async def answer_ssl_request(self, certificates: Certificates) -> None:
        """The client sends its hello next, or its startup in plain text where there is no certificate."""
        await self.packet()
        self.asked_tls = True
        async with self.in_time():
            await self.stream.send(_TLS_ACCEPTED if certificates.current() else _TLS_REFUSED)
        await self.next_opening()

    async def refuse_gss(self) -> None:
        """Answer a GSSENCRequest: libpq goes on with TLS, or without. Raises HandshakeFailed for a second one."""
        if self.asked_gss:
            raise HandshakeFailed("the client asks for GSSAPI again and again")
        self.asked_gss = True
        await self.packet()
        async with self.in_time():
            await self.stream.send(_TLS_REFUSED)
        await self.next_opening()

    async def end_tls(self, certificates: Certificates) -> None:
        """Shake hands as the server, the client's hello being next. Raises HandshakeFailed, ssl.SSLError."""
        served = certificates.current()
        if served is None:
            raise HandshakeFailed("a client wants TLS, and there is no certificate")
        stream = TlsStream(self.stream, served.context, server_side=True)
        self.stream = stream
        async with self.in_time():
            await stream.handshake()

    async def read_startup(self) -> bytes:
        """Consume the startup packet. Raises Malformed, HandshakeFailed."""
        packet = await self.packet()
        self.hears = True
        self.startup = parse_startup(packet)
        return packet

    async def lead_to_startup(self, certificates: Certificates) -> bytes:
        """Go on, ending TLS here if the client wants it, until it says who it is or whom to cancel.

        Returns the packet, consumed; `opening` tells which. Raises HandshakeFailed, Malformed, ssl.SSLError.
        """
        for _ in range(_ROUNDS):
            opening = self.opening or await self.next_opening()
            match opening.kind:
                case Kind.SSL_REQUEST if not self.asked_tls and self.tls is None:
                    await self.answer_ssl_request(certificates)
                case Kind.GSSENC_REQUEST if self.tls is None:
                    await self.refuse_gss()
                case Kind.TLS_HELLO if self.tls is None:
                    await self.end_tls(certificates)
                    await self.next_opening()
                case Kind.STARTUP:
                    return await self.read_startup()
                case Kind.CANCEL_REQUEST:
                    return await self.packet()
                case _:
                    break
        raise HandshakeFailed("the client speaks no protocol of Postgres")


class Places:
    """Who is on the way in, at which port, the oldest first; and how many wait for an endpoint, who have no place."""

    def __init__(self) -> None:
        self._of_port: dict[int, dict[Visitor, None]] = {}
        self._all: dict[Visitor, None] = {}
        self._waiting: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def waiting(self) -> int:
        """For endpoints, in all."""
        return self._waiting.total()

    def of_port(self, port: int) -> int:
        return len(self._of_port.get(port, ()))

    def waiting_for(self, endpoint_id: str) -> int:
        return self._waiting[endpoint_id]

    def add(self, visitor: Visitor) -> None:
        self._all[visitor] = None
        self._of_port.setdefault(visitor.port, {})[visitor] = None

    def remove(self, visitor: Visitor) -> None:
        """Also of one that has no place."""
        if visitor not in self._all:
            return
        del self._all[visitor]
        of_port = self._of_port[visitor.port]
        del of_port[visitor]
        if not of_port:
            del self._of_port[visitor.port]

    def oldest(self, port: int | None = None) -> Visitor | None:
        """That gives way: at this port, or at any."""
        those = self._all if port is None else self._of_port.get(port, {})
        return next((visitor for visitor in those if visitor.gives_way), None)

    @contextmanager
    def waiting_at(self, visitor: Visitor, endpoint_id: str) -> Iterator[None]:
        """Without a place meanwhile. Who comes back has one, whether there is room or not."""
        self.remove(visitor)
        self._waiting[endpoint_id] += 1
        try:
            yield
        finally:
            self._waiting[endpoint_id] -= 1
            if not self._waiting[endpoint_id]:
                del self._waiting[endpoint_id]
            self.add(visitor)
