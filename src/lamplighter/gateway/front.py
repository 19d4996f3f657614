"""From a client's first byte to the moment its connection is passed on, or it is told why not.

On an endpoint's own port nothing is answered here: what the client said first goes ahead to Postgres, with which it
then speaks TLS end to end. Each step has a deadline, and there is a bound on how many clients may be on their way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import structlog

from lamplighter.gateway import refusals
from lamplighter.gateway.admission import (
    HANDSHAKES,
    HANDSHAKES_OF_DOMAIN,
    HANDSHAKES_OF_PORT,
    allowed,
    is_loopback,
    may_wait,
)
from lamplighter.gateway.cancels import Awake, Cancels, forward
from lamplighter.gateway.certificates import POSTGRES, Certificates
from lamplighter.gateway.ended_tls import EndedTls, Session, stripped
from lamplighter.gateway.errors import BackendFailed, HandshakeFailed, Refused
from lamplighter.gateway.ports import Backend, Route
from lamplighter.gateway.reaching import FirstWords, Reach, Reached, ask_tls, no_first_words
from lamplighter.gateway.refusals import Refusal
from lamplighter.gateway.relays import Relays
from lamplighter.gateway.routes import Place, RouteTable
from lamplighter.gateway.traffic import Ledger
from lamplighter.gateway.verifiers import Verifiers
from lamplighter.gateway.visitors import Places, Visitor
from lamplighter.gateway.waking import Waker
from lamplighter.gateway.wire.errors import PasswordFailed, WireError
from lamplighter.gateway.wire.hello import Hello, read_hello
from lamplighter.gateway.wire.hosts import label_of, split_pooler
from lamplighter.gateway.wire.startup import Kind, endpoint_of_options, parse_cancel, render_startup

log = structlog.get_logger("lamplighter.gateway")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for the first bytes and for each step of a handshake, and until an endpoint is awake."""

    step: float = 10.0
    wake: float = 60.0


#: A request carries a password.
HTTPS_ONLY = (
    b"HTTP/1.1 403 Forbidden\r\naccess-control-allow-origin: *\r\ncontent-type: application/json\r\n"
    b"connection: close\r\n\r\n"
    b'{"message": "connection is insecure (use https)"}\n'
)


class Web(Protocol):
    """Serves HTTP on a connection whose first bytes were read. The visitor's socket is its own from then on."""

    async def __call__(self, visitor: Visitor) -> None: ...

    async def close(self) -> None: ...


class Front:
    """`ended(number, in_, out)` is called for connections that were passed on here and not by the relay."""

    def __init__(
        self,
        *,
        table: RouteTable,
        waker: Waker,
        ledger: Ledger,
        relays: Relays,
        certificates: Certificates,
        verifiers: Verifiers,
        patience: Patience,
        ended: Callable[[int, int, int], None],
        web: Web | None = None,
    ) -> None:
        self.domain: str | None = None
        self.domain_port: int | None = None
        self.web = web
        self._table = table
        self._ledger = ledger
        self._relays = relays
        self._certificates = certificates
        self._patience = patience
        self._ended = ended
        self._reach = Reach(table, waker, ledger)
        self._cancels = Cancels()
        self._ended_tls = EndedTls(self._reach, certificates, verifiers, self._waiting)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        #: All that are on their way, be it with a place or without.
        self._visitors: dict[Visitor, asyncio.Task[None]] = {}
        self._places = Places()
        self._draining = False
        #: What is passed on here, by number.
        self.sessions: dict[int, Session] = {}

    @property
    def on_their_way(self) -> int:
        """How many shake hands, or wait for an endpoint."""
        return len(self._visitors)

    def accept(self, sock: socket.socket, address: str | None, port: int) -> None:
        """A client has come. Never blocks, never raises."""
        share = HANDSHAKES_OF_DOMAIN if port == self.domain_port else HANDSHAKES_OF_PORT
        if self._places.of_port(port) >= share and not self._make_room(port):
            self._turn_away(sock, refusals.too_many_waiting())
            return
        if len(self._places) >= HANDSHAKES and not self._make_room():
            self._turn_away(sock, refusals.busy())
            return
        visitor = Visitor(sock, address, port, self._patience.step)
        self._places.add(visitor)
        task = asyncio.get_running_loop().create_task(self._serve(visitor))
        self._visitors[visitor] = task
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            # A task that is cancelled before it has begun never comes to its end.
            self._gone(visitor)
            visitor.stream.close()

        task.add_done_callback(ended)

    def cut(self, endpoint_id: str) -> None:
        """End all connections of an endpoint that is gone."""
        for number in self._ledger.numbers(endpoint_id):
            session = self.sessions.get(number)
            if session is not None:
                session.cut()
            else:
                self._relays.cut(number)

    def drain(self) -> None:
        """Who has not said a word may go; who waits is served."""
        self._draining = True
        for visitor, task in list(self._visitors.items()):
            if visitor.opening is None:
                task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _make_room(self, port: int | None = None) -> bool:
        """Whoever lets us wait longest gives way: honest clients go on at once."""
        oldest = self._places.oldest(port)
        if oldest is None:
            return False
        self._ledger.refused("silent")
        task = self._visitors[oldest]
        # At once: the next one that comes is not to find it again.
        self._gone(oldest)
        task.cancel()
        return True

    def _turn_away(self, sock: socket.socket, refusal: Refusal) -> None:
        """Without a handshake, which is what there is too much of. A client that wants TLS will not understand."""
        self._ledger.refused(refusal.reason)
        with contextlib.suppress(OSError):
            sock.send(refusal.render())
        sock.close()

    def _gone(self, visitor: Visitor) -> None:
        """It is on its way no more."""
        self._visitors.pop(visitor, None)
        self._places.remove(visitor)

    @contextlib.contextmanager
    def _waiting(self, visitor: Visitor, place: Place) -> Iterator[None]:
        """While it waits for an endpoint it has no place among those who shake hands. Raises Refused."""
        if not may_wait(of_endpoint=self._places.waiting_for(place.endpoint_id), in_all=self._places.waiting):
            raise Refused(refusals.too_many_waiting())
        with self._places.waiting_at(visitor, place.endpoint_id):
            yield

    async def _reach_for(self, visitor: Visitor, place: Place, first: FirstWords = no_first_words) -> Reached:
        with self._waiting(visitor, place):
            return await self._reach.to(place, visitor.address, first, payer=visitor.payer)

    async def _serve(self, visitor: Visitor) -> None:
        visitor.gives_way = False
        try:
            await self._greet(visitor)
        except Refused as refused:
            self._ledger.refused(refused.refusal.reason)
            await self._tell(visitor, refused.refusal.told(here=visitor.here))
        except BackendFailed as error:
            log.warning("gateway.backend_failed", error=str(error), port=visitor.port)
            await self._tell(visitor, refusals.backend_silent())
        except WireError as error:
            reason = "wrong_password" if isinstance(error, PasswordFailed) else "garbage"
            self._ledger.refused(reason)
            await self._tell(visitor, Refusal(reason, error.code, error.message, error.detail or ""))
        except (HandshakeFailed, OSError) as error:
            self._ledger.refused("handshake_failed")
            log.debug("gateway.handshake_failed", error=str(error), port=visitor.port)
        except Exception:
            refusal = refusals.not_passed_on()
            self._ledger.refused(refusal.reason)
            log.exception("gateway.front_failed", port=visitor.port)
            await self._tell(visitor, refusal)
        finally:
            self._gone(visitor)
            visitor.stream.close()

    async def _greet(self, visitor: Visitor) -> None:
        opening = await visitor.next_opening()
        if opening.kind is Kind.HTTP:
            await self._serve_web(visitor)
        elif opening.kind is Kind.UNKNOWN:
            raise HandshakeFailed("the client speaks no protocol of ours")
        elif visitor.port == self.domain_port:
            await self._at_domain(visitor)
        else:
            await self._at_own_port(visitor)

    # A port of an endpoint's own

    async def _at_own_port(self, visitor: Visitor) -> None:
        place = self._table.at(visitor.port)
        if place is None:
            raise Refused(refusals.unknown_endpoint())
        assert visitor.opening is not None
        if visitor.opening.kind is Kind.GSSENC_REQUEST and (place.pooled or self._must_encrypt(visitor)):
            # Passed on, it would hide what comes after it.
            await visitor.refuse_gss()
        match visitor.opening.kind:
            case Kind.CANCEL_REQUEST:
                await self._cancel(place, visitor, await visitor.packet())
            case Kind.TLS_HELLO:
                hello = await self._hello(visitor)
                if POSTGRES in hello.alpn:
                    await self._pass_tls(visitor, place)
                else:
                    await self._serve_web_by_tls(visitor)
            case Kind.GSSENC_REQUEST if visitor.asked_gss:
                raise HandshakeFailed("the client asks for GSSAPI again")
            case Kind.SSL_REQUEST if place.pooled:
                await self._end_tls(visitor, place)
            case Kind.SSL_REQUEST | Kind.GSSENC_REQUEST as kind:
                await self._pass_request(visitor, place, kind)
            case Kind.STARTUP:
                self._demand_tls(visitor)
                # Whole, for only that is answered.
                await visitor.read_startup()
                assert visitor.startup is not None
                visitor.stream.buffer[:0] = render_startup(stripped(visitor.startup, place))
                await self._pass_on(visitor, await self._reach_for(visitor, place, _first(visitor)))
            case _:
                raise HandshakeFailed("the client speaks no protocol of Postgres")

    def _must_encrypt(self, visitor: Visitor) -> bool:
        """From another host nobody comes in the open, where there is a certificate."""
        local = visitor.address is None or is_loopback(visitor.address)
        return not local and self._certificates.current() is not None

    def _demand_tls(self, visitor: Visitor) -> None:
        """Of a client that is about to log in. Raises Refused."""
        if visitor.tls is None and self._must_encrypt(visitor):
            visitor.hears = True
            raise Refused(refusals.insecure())

    async def _pass_request(self, visitor: Visitor, place: Place, kind: Kind) -> None:
        """The compute answers a request for encryption itself, unless it has none and we can."""
        if kind is Kind.SSL_REQUEST and self._must_end_tls(visitor, place):
            await self._end_tls(visitor, place)
            return

        def ours(backend: Backend) -> bool:
            return kind is Kind.SSL_REQUEST and not backend.tls and self._certificates.current() is not None

        said = bytes(visitor.stream.buffer)
        reached = await self._reach_for(visitor, place, lambda backend: b"" if ours(backend) else said)
        if ours(reached.backend):
            reached.close()
            await self._end_tls(visitor, place)
        else:
            await self._pass_on(visitor, reached)

    def _must_end_tls(self, visitor: Visitor, place: Place) -> bool:
        """Whether that is known before anything is connected to. Raises Refused."""
        route = self._reach.look(place, visitor.address)
        without = route.compute is not None and not route.compute.tls
        return place.pooled or (without and self._certificates.current() is not None)

    async def _pass_on(self, visitor: Visitor, reached: Reached) -> None:
        """Give both sockets away. What is in the buffers goes ahead."""
        number = next(self._numbers)
        try:
            # Others of a herd may have been faster: limits are looked at where they are counted.
            self._reach.look(reached.place, visitor.address)
            self._relays.look()
        except Refused:
            reached.close()
            raise
        self._ledger.opened(number, reached.place.endpoint_id, address=visitor.address)
        first = visitor.stream.take()
        try:
            await self._relays.hand_over(
                number,
                visitor.sock,
                reached.stream.sock,
                to_backend=b"" if reached.said else first,
                to_client=reached.stream.take(),
            )
        except BaseException as error:
            self._ledger.closed(number)
            reached.close()
            # What it says has to be read again before it can be told why not.
            visitor.stream.buffer[:0] = first
            if isinstance(error, HandshakeFailed):
                raise Refused(refusals.not_passed_on()) from error
            raise

    async def _hello(self, visitor: Visitor) -> Hello:
        """Read the client's TLS hello, which stays in the buffer."""
        async with visitor.in_time():
            while (hello := read_hello(bytes(visitor.stream.buffer))) is None:
                await visitor.stream.fill()
        return hello

    async def _pass_tls(self, visitor: Visitor, place: Place) -> None:
        """Pass TLS on as it is, behind a request of our own: a hello alone is understood by Postgres 17 and later."""
        if self._must_end_tls(visitor, place):
            await self._end_tls(visitor, place)
            return
        reached = await self._reach_for(visitor, place)
        try:
            if not reached.backend.tls:
                reached.close()
                await self._end_tls(visitor, place)
                return
            with self._waiting(visitor, place):
                await ask_tls(reached.stream)
        except BaseException:
            reached.close()
            raise
        await self._pass_on(visitor, reached)

    async def _cancel(self, place: Place, visitor: Visitor, packet: bytes) -> None:
        """To whoever runs: nobody is woken for it, and no answer is due."""
        parse_cancel(packet)
        route = self._table.get(place.endpoint_id)
        if route is None or not _may_cancel(visitor, route):
            return
        backend = route.pooler if place.pooled else route.compute
        if backend is not None:
            with visitor.giving_way():
                await forward(backend, packet)

    # The domain's port

    async def _at_domain(self, visitor: Visitor) -> None:
        assert visitor.opening is not None
        direct = visitor.opening.kind is Kind.TLS_HELLO
        if visitor.opening.kind is Kind.GSSENC_REQUEST:
            await visitor.refuse_gss()
        if visitor.opening.kind is Kind.SSL_REQUEST:
            await visitor.answer_ssl_request(self._certificates)
        match visitor.opening.kind:
            case Kind.TLS_HELLO:
                hello = await self._hello(visitor)
                if direct and POSTGRES not in hello.alpn:
                    await self._serve_web_by_tls(visitor)
                elif (found := label_of(hello.sni, self.domain)) is not None:
                    await self._pass_tls(visitor, Place(*found))
                else:
                    await self._end_tls(visitor, None)
            case Kind.CANCEL_REQUEST:
                await self._cancel_anywhere(visitor, await visitor.packet())
            case Kind.STARTUP:
                await self._named_in_plain(visitor)
            case _:
                raise HandshakeFailed("the client speaks no protocol of Postgres")

    async def _cancel_anywhere(self, visitor: Visitor, packet: bytes) -> None:
        with visitor.giving_way():
            await self._cancels.anywhere(parse_cancel(packet), lambda: self._awake(visitor))

    def _awake(self, visitor: Visitor) -> Awake:
        used = frozenset(self._ledger.used_from(visitor.address))
        near: list[Backend] = []
        others: list[Backend] = []
        for route in self._table.all():
            if _may_cancel(visitor, route):
                backends = (backend for backend in (route.compute, route.pooler) if backend is not None)
                (near if route.endpoint_id in used else others).extend(backends)
        return near, others

    async def _named_in_plain(self, visitor: Visitor) -> None:
        """Without TLS the endpoint can be named by `options` alone: a password is not asked for in the open."""
        self._demand_tls(visitor)
        await visitor.read_startup()
        startup = visitor.startup
        assert startup is not None
        endpoint_id, _ = endpoint_of_options(startup.options)
        if endpoint_id is None:
            raise Refused(refusals.no_endpoint_named())
        place = Place(*split_pooler(endpoint_id))
        visitor.stream.buffer[:0] = render_startup(stripped(startup, place))
        await self._pass_on(visitor, await self._reach_for(visitor, place, _first(visitor)))

    # TLS that ends here

    async def _end_tls(self, visitor: Visitor, place: Place | None) -> None:
        """Log the client in, then pass on what it says, to the end of the session."""
        if place is not None:
            self._reach.look(place, visitor.address)
        packet = await visitor.lead_to_startup(self._certificates)
        if visitor.startup is None:
            await self._cancel_within_tls(visitor, place, packet)
            return
        self._demand_tls(visitor)
        login = await self._ended_tls.log_in(visitor, place)
        # From here on it is a connection and no handshake.
        self._gone(visitor)
        number = next(self._numbers)
        session = self.sessions[number] = Session(login, self._cancels)
        self._ledger.opened(number, login.place.endpoint_id, address=visitor.address)
        try:
            await session.run()
        finally:
            del self.sessions[number]
            self._ended(number, session.in_, session.out)

    async def _cancel_within_tls(self, visitor: Visitor, place: Place | None, packet: bytes) -> None:
        if place is None:
            await self._cancel_anywhere(visitor, packet)
        else:
            await self._cancel(place, visitor, packet)
        # libpq reads to the end of the session, and takes one that is cut off for a failure.
        await visitor.linger()

    # Answers

    async def _tell(self, visitor: Visitor, refusal: Refusal) -> None:
        """An error that the client shows: within TLS if it wants that, and once it has said who it is."""
        with contextlib.suppress(HandshakeFailed, WireError, OSError):
            if not visitor.hears:
                await visitor.lead_to_startup(self._certificates)
            if visitor.hears:
                async with visitor.in_time():
                    await visitor.stream.send(refusal.render())
                await visitor.linger()

    async def _serve_web(self, visitor: Visitor) -> None:
        if self.web is None:
            raise HandshakeFailed("HTTP is not served here")
        if visitor.tls is None and self._must_encrypt(visitor):
            self._ledger.refused("insecure")
            async with visitor.in_time():
                await visitor.stream.send(HTTPS_ONLY)
            await visitor.linger()
            return
        # From here on it is no handshake: there are other limits.
        self._gone(visitor)
        await self.web(visitor)

    async def _serve_web_by_tls(self, visitor: Visitor) -> None:
        await visitor.end_tls(self._certificates)
        if (await visitor.next_opening()).kind is not Kind.HTTP:
            raise HandshakeFailed("the client speaks no protocol of ours")
        await self._serve_web(visitor)


def _may_cancel(visitor: Visitor, route: Route) -> bool:
    """Whether its endpoint runs, and lets this client in."""
    return route.state == "awake" and (visitor.address is None or allowed(visitor.address, route.allowed))


def _first(visitor: Visitor) -> FirstWords:
    """What it has said so far, for whichever backend."""
    said = bytes(visitor.stream.buffer)
    return lambda _backend: said
