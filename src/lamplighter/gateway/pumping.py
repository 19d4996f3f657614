"""Bytes both ways between two streams, one of which does not end at the relay's sockets: TLS that ends here."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from lamplighter.gateway.streams import LARGE, Stream

#: Seconds for a client to close, after its server has.
_CLOSE_SECONDS = 10.0


class Pump:
    """`in_` and `out` are bytes from and to the client so far. Each way holds one piece at a time."""

    def __init__(self, client: Stream, server: Stream) -> None:
        self.in_ = 0
        self.out = 0
        self._client = client
        self._server = server
        self._task: asyncio.Task[object] | None = None
        #: Sees what the server says, until it is done with that.
        self.listen: Callable[[bytes], None] | None = None

    def cut(self) -> None:
        """End it from outside; `run` raises CancelledError."""
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Until both sides have ended, or the server has and the client does not follow. Closes both."""
        self._task = asyncio.current_task()
        inward = asyncio.create_task(self._inward())
        try:
            await self._outward()
            await asyncio.wait({inward}, timeout=_CLOSE_SECONDS)
        finally:
            inward.cancel()
            await asyncio.gather(inward, return_exceptions=True)
            self._server.close()
            self._client.close()

    async def _inward(self) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            data = self._client.take()
            while True:
                if data:
                    await self._server.send(data)
                    self.in_ += len(data)
                data = await self._client.receive(LARGE)
                if not data:
                    break
        # Also after a reset: the server is to stop what it does for nobody.
        await self._server.end()

    async def _outward(self) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            data = self._server.take()
            while True:
                if data:
                    if self.listen is not None:
                        self.listen(data)
                    await self._client.send(data)
                    self.out += len(data)
                data = await self._server.receive(LARGE)
                if not data:
                    break
        await self._client.end()
