"""HTTP and WebSocket on the same ports: a connection that begins so is given to uvicorn and the app of `serverless`.

The app reaches endpoints by doors that are Unix sockets, which only our own user can open: there neither TLS nor an
address is asked for, and the caller's address is looked at before.
"""

from __future__ import annotations

import asyncio
import copy
import ipaddress
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from lamplighter.address_ranges import of_this_host
from lamplighter.gateway import serverless
from lamplighter.gateway.admission import allowed
from lamplighter.gateway.errors import HandshakeFailed, Refused
from lamplighter.gateway.ports import Route
from lamplighter.gateway.pumping import Pump
from lamplighter.gateway.routes import RouteTable
from lamplighter.gateway.streams import Stream
from lamplighter.gateway.visitors import Visitor
from lamplighter.gateway.wire.hosts import split_pooler

log = structlog.get_logger("lamplighter.gateway")

#: Connections of HTTP at one time, and seconds for the first request on one: uvicorn itself bounds neither.
MOST = 2000
_FIRST_REQUEST_SECONDS = 20.0

#: See `Waker.admit`.
Admit = Callable[[Route, str | None], None]


class Doors:
    """From a host and port that a caller names to an endpoint's door; never to anything else."""

    def __init__(self, table: RouteTable, *, address: str, unix: Path, admit: Admit | None = None) -> None:
        self.address = address
        self._table = table
        self._admit = admit
        self._unix = unix

    async def resolve(self, host: str, port: int | None) -> serverless.Target:
        """By the first label, which may be an endpoint's id; else by the port on one of this host's addresses.

        A pooled host leads to the endpoint itself: SQL over HTTP keeps connections of its own. Raises UnknownHost.
        """
        endpoint_id, _ = split_pooler(host.lower().partition(".")[0])
        route = self._table.get(endpoint_id)
        if route is None and port is not None and self._is_here(host):
            place = self._table.at(port)
            route = self._table.get(place.endpoint_id) if place is not None else None
        if route is None:
            raise serverless.UnknownHost(host)
        rules = route.allowed
        admits = None if rules is None else partial(_admits, rules)
        return serverless.Target(str(self._unix), route.port, admits, partial(self._wakes, route))

    def _wakes(self, route: Route, client: str | None, server: str | None) -> None:
        """Here and not at the door, which does not see who asks. Raises SqlFailed."""
        if self._admit is None or of_this_host(client, server):
            return
        try:
            self._admit(route, client)
        except Refused as refused:
            raise serverless.SqlFailed.of(refused.refusal) from refused

    def _is_here(self, host: str) -> bool:
        """With an address for all networks nobody can tell how this host is called: then the port decides."""
        if host.lower() in ("localhost", self.address) or _is_any(self.address):
            return True
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False


def _is_any(address: str) -> bool:
    return ipaddress.ip_address(address).is_unspecified


def _admits(rules: tuple[str, ...], address: str) -> bool:
    return allowed(address, rules)


class Web:
    """Serves visitors that speak HTTP."""

    def __init__(self, doors: Doors, *, limits: serverless.Limits | None = None) -> None:
        limits = limits or serverless.Limits()
        self._app = serverless.app(doors.resolve, limits=limits)
        self._request_seconds = limits.request_seconds
        self._config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=MOST,
            # The class and not its name, by which uvicorn would import it here: this module is loaded in a thread,
            # and what it makes is made in the loop.
            **(serverless.UVICORN | {"ws": WebSocketsSansIOProtocol}),
        )
        self._config.load()
        self._state = ServerState()

    async def __call__(self, visitor: Visitor) -> None:
        """Take a connection over. Returns at once without TLS; with TLS, which ends here, when it is over."""
        if len(self._state.connections) >= MOST:
            raise HandshakeFailed("too many connections of HTTP")
        ends = (visitor.address or "", visitor.local or "")
        first = visitor.stream.take()
        if visitor.tls is None:
            await self._attach(socket.socket(fileno=visitor.sock.detach()), ends, "http", first)
            return
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        inner = Stream(ours)
        visitor.stream.buffer += first
        await self._attach(theirs, ends, "https", b"")
        await Pump(visitor.stream, inner).run()

    async def close(self) -> None:
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._app.close()

    async def _attach(self, sock: socket.socket, ends: tuple[str, str], scheme: str, first: bytes) -> None:
        loop = asyncio.get_running_loop()
        app = _Connection(self._config.loaded_app, ends, scheme, request_seconds=self._request_seconds)
        config = copy.copy(self._config)
        config.loaded_app = app
        protocol = H11Protocol(config=config, server_state=self._state, app_state={})
        made, received = protocol.connection_made, protocol.data_received

        def connection_made(transport: asyncio.Transport) -> None:
            made(transport)
            app.transport = transport
            if first:
                # What the gateway has read; before anything that comes after it. Nothing would mean the end.
                protocol.data_received(first)
            loop.call_later(_FIRST_REQUEST_SECONDS, app.end_unless_used, transport)

        def data_received(data: bytes) -> None:
            app.hears()
            received(data)

        protocol.connection_made = connection_made  # type: ignore[method-assign]
        protocol.data_received = data_received  # type: ignore[method-assign]
        try:
            await loop.connect_accepted_socket(lambda: protocol, sock)
        except BaseException:
            sock.close()
            raise


class _Connection:
    """The app as one connection has it: with the addresses of its two `ends`, which a socket pair does not tell.

    It also ends the connection when a request's head does not come to its end, for which uvicorn has no deadline.
    """

    def __init__(
        self, app: Callable[..., object], ends: tuple[str, str], scheme: str, *, request_seconds: float
    ) -> None:
        self._app: ASGIApp = app  # type: ignore[assignment] # uvicorn's own types of the same interface
        self._ends = {"client": (ends[0], 0), "server": (ends[1], 0)}
        self._scheme = scheme
        self._request_seconds = request_seconds
        self._used = False
        self._serving = False
        self._began = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._used = self._serving = True
        began = self._began
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        else:
            # It was there whole before the answer to the request before it.
            began = asyncio.get_running_loop().time()
        scheme = self._scheme.replace("http", "ws") if scope["type"] == "websocket" else self._scheme
        try:
            await self._app({**scope, **self._ends, "scheme": scheme, serverless.BEGAN: began}, receive, send)
        finally:
            self._serving = False

    def hears(self) -> None:
        """Bytes have come: if no request is being served, they are another one's, or what is left of the last."""
        if self._serving or self._deadline is not None or self.transport is None:
            return
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._deadline = loop.call_later(self._request_seconds, self.transport.abort)

    def end_unless_used(self, transport: asyncio.Transport) -> None:
        if not self._used:
            transport.abort()
