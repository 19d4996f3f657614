"""The relay that connections are handed to, and another one when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import structlog

from lamplighter.gateway import refusals
from lamplighter.gateway.errors import HandshakeFailed, Refused, RelayError
from lamplighter.gateway.relaying import Ended, Relay

log = structlog.get_logger("lamplighter.gateway")

_RETRY = 0.5
#: How long a connection waits for a new relay.
_PATIENCE = 10.0


class Relays:
    """One relay at a time. `closed` hears of each connection's end, also of those that a relay took with it."""

    def __init__(self, closed: Callable[[Ended], object]) -> None:
        self._closed = closed
        self._relay: Relay | None = None
        self._there = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._ended = False

    async def start(self) -> None:
        """Raises RelayFailed."""
        relay = await Relay.start()
        relay.on_closed(self._closed)
        relay.on_death(self._on_death)
        self._relay = relay
        self._there.set()
        log.info("gateway.relay_started", pid=relay.pid, relay=relay.kind)

    def look(self) -> None:
        """Raises Refused when the relay has no files for one more: it would only reset the client."""
        if self._relay is not None and self._relay.open >= self._relay.capacity:
            raise Refused(refusals.relay_full(self._relay.capacity))

    async def hand_over(
        self, number: int, client: socket.socket, backend: socket.socket, *, to_backend: bytes, to_client: bytes
    ) -> None:
        """Both sockets go away, the bytes ahead of them. Raises HandshakeFailed: then they are still ours.

        Returns without a pause while a relay is there: between the last look at the route and this, nothing happens.
        """
        if self._relay is None or not self._relay.alive:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._there.wait()
            except TimeoutError:
                raise HandshakeFailed("no relay could be started") from None
        assert self._relay is not None
        try:
            self._relay.hand_over(number, client, backend, to_backend=to_backend, to_client=to_client)
        except (RelayError, ValueError) as error:
            raise HandshakeFailed(str(error)) from error

    def cut(self, number: int) -> None:
        if self._relay is not None:
            self._relay.cut(number)

    async def counters(self) -> dict[int, tuple[int, int]]:
        """Bytes in and out of each connection; none while there is no relay."""
        if self._relay is None or not self._relay.open:
            return {}
        with contextlib.suppress(RelayError):
            return await self._relay.counters()
        return {}

    async def close(self, *, cut: bool) -> None:
        self._ended = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._relay is not None:
            await self._relay.close(cut=cut)

    def _on_death(self) -> None:
        log.error("gateway.relay_died", pid=self._relay.pid if self._relay else None)
        self._relay = None
        self._there.clear()
        if not self._ended:
            self._starting = asyncio.create_task(self._insist(), name="relay")

    async def _insist(self) -> None:
        while True:
            try:
                await self.start()
            except RelayError as error:
                log.error("gateway.relay_failed", error=str(error))  # noqa: TRY400 - no traceback is needed
                await asyncio.sleep(_RETRY)
            else:
                return
