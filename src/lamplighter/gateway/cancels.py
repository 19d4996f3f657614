"""Cancel requests: brought to the compute or pooler whose session they name, as far as that can be known.

On an endpoint's own port that is its compute, or its pooler. On the domain's port a request comes without TLS from
psql and most drivers (libpq has another way since 17, which they do not use), so that nothing names the endpoint.
Sessions whose TLS ended here are remembered by pid and secret. For others, whose bytes the gateway cannot read, the
request is brought to the computes and poolers of all endpoints that have a connection from its address, and to others
up to `MOST`: only the one that gave out the secret acts on it (32 bits at least), and the rest drop it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

from lamplighter.gateway.ports import Backend
from lamplighter.gateway.streams import Stream, connect
from lamplighter.gateway.wire.startup import CancelRequest, render_cancel

#: Computes and poolers that one request is brought to at a time, and in all but for those that its sender has
#: connections to: what it costs a compute is a fork, as that connection did.
MOST = 64
_SECONDS = 5.0
#: Requests that are brought to many computes, at one time: guessing secrets by this way is slow.
_AT_ONCE = 2
#: Requests that wait for that, and for how many seconds: what comes beyond is dropped, as Postgres promises nothing.
_QUEUE = 32
_TURN_SECONDS = 5.0

#: Computes and poolers that run: those with a connection from the sender's address, and others.
Awake = tuple[Sequence[Backend], Sequence[Backend]]


class Cancels:
    """Sessions whose key is known. The number of sessions is bounded by who lets them in."""

    def __init__(self) -> None:
        self._backends: OrderedDict[tuple[int, bytes], Backend] = OrderedDict()
        self._wide = asyncio.Semaphore(_AT_ONCE)
        self._queued = 0

    def remember(self, request: CancelRequest, backend: Backend) -> None:
        self._backends[request.pid, request.secret] = backend

    def forget(self, request: CancelRequest) -> None:
        self._backends.pop((request.pid, request.secret), None)

    async def anywhere(self, request: CancelRequest, awake: Callable[[], Awake]) -> None:
        """Bring it to the session's backend, or to `awake` ones if the session is not known."""
        known = self._backends.get((request.pid, request.secret))
        if known is not None:
            await forward(known, render_cancel(request))
            return
        if self._queued >= _QUEUE or not await self._turn():
            return
        try:
            near, others = awake()
            asked = [*near, *others[: max(0, MOST - len(near))]]
            for at in range(0, len(asked), MOST):
                await asyncio.gather(*(forward(backend, render_cancel(request)) for backend in asked[at : at + MOST]))
        finally:
            self._wide.release()

    async def _turn(self) -> bool:
        self._queued += 1
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                return await self._wide.acquire()
        except TimeoutError:
            return False
        finally:
            self._queued -= 1


async def forward(backend: Backend, packet: bytes) -> None:
    """Bring a request, and wait until it has been dealt with: the client's next statement must not be hit."""
    with contextlib.suppress(OSError):
        stream = Stream(await connect(backend))
        try:
            async with asyncio.timeout(_SECONDS):
                await stream.send(packet)
                while await stream.receive():
                    pass
        finally:
            stream.close()
