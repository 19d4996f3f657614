"""HTTP and WebSocket, loaded once there is time: half of what a gateway takes to start, which no other client needs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable
from types import ModuleType

from lamplighter.gateway.front import Web
from lamplighter.gateway.visitors import Visitor


class WebLater:
    """Serves visitors as `web.Web` does; the first ones wait until that is there. `make` gets the module `web`."""

    def __init__(self, make: Callable[[ModuleType], Web]) -> None:
        self._make = make
        self._loading: asyncio.Task[Web] | None = None

    def load(self) -> asyncio.Task[Web]:
        """Begin, if nobody has."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="web")
        return self._loading

    async def _load(self) -> Web:
        # In the loop it would hold up all others for tenths of a second.
        return self._make(await asyncio.to_thread(importlib.import_module, "lamplighter.gateway.web"))

    async def __call__(self, visitor: Visitor) -> None:
        web = await asyncio.shield(self.load())
        await web(visitor)

    async def close(self) -> None:
        if self._loading is not None:
            # What cannot be loaded was told to who wanted it.
            with contextlib.suppress(ImportError):
                await (await self._loading).close()
