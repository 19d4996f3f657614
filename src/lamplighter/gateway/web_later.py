"""What a gateway loads once there is time: HTTP and WebSocket, half of what it would take to start.

Beside it the channel binding of certificates, which the first client with TLS may else have to wait for.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable

import structlog

from lamplighter.gateway.front import Web
from lamplighter.gateway.visitors import Visitor

log = structlog.get_logger("lamplighter.gateway")

_WEB = "lamplighter.gateway.web"
_BINDING = "lamplighter.gateway.binding"


class WebLater:
    """Serves visitors as `web.Web` does; the first ones wait until that is there. `make` may import `web`.

    What could not be loaded is logged, told to whoever waits for it, and tried again for the next one.
    """

    def __init__(self, make: Callable[[], Web]) -> None:
        self._make = make
        self._loading: asyncio.Task[Web] | None = None

    def load(self) -> asyncio.Task[Web]:
        """Begin, if nobody has."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="web")
            # It may be that nobody waits for it.
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._loading

    async def _load(self) -> Web:
        try:
            # In the loop it would hold up all others for tenths of a second.
            await asyncio.to_thread(_import)
            return self._make()
        except Exception as error:
            self._loading = None
            log.error("gateway.web_not_loaded", error=repr(error))  # noqa: TRY400 - who waits for it logs the traceback
            raise

    async def __call__(self, visitor: Visitor) -> None:
        web = await asyncio.shield(self.load())
        await web(visitor)

    async def close(self) -> None:
        """Never raises: a gateway has more to end than this."""
        if self._loading is None:
            return
        try:
            await (await self._loading).close()
        except Exception as error:  # noqa: BLE001 - whatever it is
            log.warning("gateway.web_not_closed", error=repr(error))


def _import() -> None:
    try:
        importlib.import_module(_BINDING)
    except ImportError as error:
        # Told again by who needs it.
        log.warning("gateway.binding_not_loaded", error=repr(error))
    importlib.import_module(_WEB)
