"""From a place to a connected socket: decide, wake, connect, and again if the route has changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from lamplighter.gateway import refusals
from lamplighter.gateway.admission import Go, decide
from lamplighter.gateway.certificates import Certificates
from lamplighter.gateway.errors import BackendFailed, HandshakeFailed, Refused
from lamplighter.gateway.ports import Backend, Route
from lamplighter.gateway.refusals import Refusal
from lamplighter.gateway.routes import Place, RouteTable
from lamplighter.gateway.streams import Stream, TlsStream, connect
from lamplighter.gateway.traffic import Ledger
from lamplighter.gateway.waking import Waker
from lamplighter.gateway.wire.startup import SSL_REQUEST

#: Between two attempts at what ought to listen and does not.
_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_ANSWER_SECONDS = 5.0


@dataclass(slots=True)
class Reached:
    """A compute or pooler that answers, connected."""

    stream: Stream
    backend: Backend
    place: Place
    version: int
    #: The client's first words have been passed on already.
    said: bool = False

    async def answers(self, first: bytes) -> bool:
        """Say the client's first words, and wait for the answer, which stays in the buffer.

        False when there is none to come: a postmaster that is killed takes with it whom it has not yet looked at, and
        nothing that the client said has been acted on. One that takes too long is alive.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self.stream.send(first)
                await self.stream.fill()
        except TimeoutError:
            return True
        except (HandshakeFailed, OSError):
            return False
        return True

    def close(self) -> None:
        self.stream.close()


#: What a client said first, for a given backend.
FirstWords = Callable[[Backend], bytes]


def no_first_words(_backend: Backend) -> bytes:
    """Of a client that has not spoken to a backend yet."""
    return b""


class Reach:
    """Leads to computes and poolers."""

    def __init__(self, table: RouteTable, waker: Waker, ledger: Ledger) -> None:
        self._table = table
        self._waker = waker
        self._ledger = ledger

    def look(self, place: Place, address: str | None) -> Route:
        """The route of somebody who may come in, or wait. Raises Refused."""
        route = self._table.get(place.endpoint_id)
        decision = decide(route, pooled=place.pooled, address=address, connections=self._ledger.open(place.endpoint_id))
        if isinstance(decision, Refusal):
            raise Refused(decision)
        assert route is not None
        return route

    async def to(
        self, place: Place, address: str | None, first: FirstWords = no_first_words, *, payer: str | None = None
    ) -> Reached:
        """Connect, after a wake if it takes one. Raises Refused, which says why not.

        `first` gives what is said to a backend at once: then it has been said, and the answer is in the buffer.
        `payer`: see `Waker.admit`.
        """
        until = self._waker.deadline()
        pause = _PAUSE
        while True:
            route = self.look(place, address)
            version = self._table.version(place.endpoint_id)
            backend = self._awake(route, place)
            if backend is None:
                await self._waker.changed(route, until=until, payer=payer)
                continue
            reached = await self._connect(backend, place, version, first(backend))
            if reached is None:
                # The postmaster has just been killed, or stopped: the platform may not know that yet.
                if self._table.version(place.endpoint_id) == version:
                    await self._waker.changed(route, until=until, payer=payer)
                await self._pause(pause, until)
                pause = min(2 * pause, _LONGEST_PAUSE)
            elif self.holds(reached):
                return reached
            else:
                reached.close()

    async def _connect(self, backend: Backend, place: Place, version: int, words: bytes) -> Reached | None:
        """None when nobody listens there, or leaves without an answer. Raises Refused."""
        try:
            reached = Reached(Stream(await connect(backend)), backend, place, version, said=bool(words))
        except ConnectionError:
            return None
        except OSError as error:
            raise Refused(refusals.backend_silent()) from error
        try:
            alive = not words or await reached.answers(words)
        except BaseException:
            reached.close()
            raise
        if not alive:
            reached.close()
        return reached if alive else None

    def holds(self, reached: Reached) -> bool:
        """Whether what was reached is still what the route says: it may be held since, to be stopped."""
        if self._table.version(reached.place.endpoint_id) == reached.version:
            return True
        route = self._table.get(reached.place.endpoint_id)
        return route is not None and route.state == "awake" and self._awake(route, reached.place) == reached.backend

    def _awake(self, route: Route, place: Place) -> Backend | None:
        decision = decide(route, pooled=place.pooled, address=None, connections=0)
        return decision.backend if isinstance(decision, Go) else None

    async def _pause(self, seconds: float, until: float) -> None:
        if asyncio.get_running_loop().time() + seconds > until:
            raise Refused(refusals.backend_silent())
        await asyncio.sleep(seconds)


async def ask_tls(stream: Stream) -> None:
    """Send an SSLRequest to a backend that has TLS. Raises BackendFailed unless it agrees."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await stream.send(SSL_REQUEST)
            answer = await stream.exactly(1)
    except (HandshakeFailed, OSError) as error:
        raise BackendFailed(f"the compute gave no answer to a request for TLS: {error!r}") from error
    if answer != b"S" or stream.buffer:
        raise BackendFailed("the compute has no TLS, though its route says so")


class _ToCompute(TlsStream):
    @property
    def certificate(self) -> bytes | None:
        """The compute's own, in DER."""
        return self._tls.getpeercert(binary_form=True)


async def with_tls(reached: Reached, certificates: Certificates) -> TlsStream:
    """The stream of a backend, within TLS. Raises BackendFailed, also for a certificate not ours."""
    await ask_tls(reached.stream)
    stream = _ToCompute(reached.stream, certificates.towards_computes, server_side=False)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await stream.handshake()
    except (HandshakeFailed, OSError) as error:
        raise BackendFailed(f"the compute did not shake hands: {error!r}") from error
    if not certificates.is_ours(stream.certificate):
        raise BackendFailed("what listens on the compute's port has another certificate than the compute")
    return stream
