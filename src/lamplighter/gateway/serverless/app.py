"""The ASGI app: HTTP requests and WebSockets to their handlers."""

from __future__ import annotations

from typing import Any, Final

from starlette.types import Receive, Scope, Send

from lamplighter.gateway.serverless import http, websocket
from lamplighter.gateway.serverless.bounded_websocket import BoundedWebSocket
from lamplighter.gateway.serverless.limits import MEBIBYTE, Budget, Limits
from lamplighter.gateway.serverless.targets import Resolve
from lamplighter.gateway.serverless.warm import Warm, Warmth

#: What uvicorn must be told for it, as keyword arguments of its Config. h11 bounds a request's head, not so httptools.
#: A message of a WebSocket is whole before it is passed on, also of a client that is not logged in. What Postgres says
#: is seldom worth compressing. Headers that a proxy would set are nobody's word: `allowed_ips` go by the address.
UVICORN: Final[dict[str, Any]] = {
    "http": "h11",
    "server_header": False,
    "ws": BoundedWebSocket,
    "proxy_headers": False,
    "ws_max_size": 16 * MEBIBYTE,
    "ws_per_message_deflate": False,
    "ws_ping_interval": 30.0,
    "ws_ping_timeout": 60.0,
}


class Serverless:
    """SQL over HTTP and WebSocket. Close it at the end: it keeps connections."""

    def __init__(self, resolve: Resolve, limits: Limits, warmth: Warmth) -> None:
        self.warm = Warm(warmth)
        self._budget = Budget(limits.together, of_caller=limits.caller)
        self._strangers = Budget(limits.strangers, of_caller=limits.stranger)
        self._http = http.SqlOverHttp(resolve, self.warm, limits, self._budget)
        self._websocket = websocket.PostgresOverWebSocket(
            resolve,
            limits,
            budget=self._budget,
            strangers=self._strangers,
            connect_seconds=warmth.connect_seconds,
        )

    @property
    def held(self) -> int:
        """Bytes of bodies, rows and messages that requests and WebSockets hold at this moment."""
        return self._budget.held + self._strangers.held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def close(self) -> None:
        """Close the connections that are kept. Requests that still run close theirs when they end."""
        await self.warm.close()


def app(resolve: Resolve, *, limits: Limits | None = None, warmth: Warmth | None = None) -> Serverless:
    """Make the app. It answers any path; whoever has other paths, too, sends it `/sql`, `/v2` and WebSockets alone."""
    return Serverless(resolve, limits or Limits(), warmth or Warmth())
