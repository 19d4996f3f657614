"""HTTP and WebSocket on the same ports: a connection that begins so is given to uvicorn and the app of `serverless`.

The app reaches endpoints by doors that are Unix sockets, which only our own user can open: there neither TLS nor an
address is asked for, and the caller's address is looked at before.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path

import uvicorn
from starlette.types import Scope
from uvicorn.server import ServerState

from lamplighter.address_ranges import of_this_host, read_address
from lamplighter.gateway import refusals, serverless
from lamplighter.gateway.admission import allowed, is_loopback
from lamplighter.gateway.errors import HandshakeFailed, Refused
from lamplighter.gateway.ports import Route
from lamplighter.gateway.pumping import Pump
from lamplighter.gateway.routes import RouteTable
from lamplighter.gateway.streams import Stream
from lamplighter.gateway.visitors import Visitor
from lamplighter.gateway.web_connections import Connection, HttpProtocol, Slots, WebSocketProtocol, answer
from lamplighter.gateway.wire.hosts import split_pooler

#: Seconds for one to take its answer that has no slot.
_LAST_WORDS_SECONDS = 1.0

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
        route = self._named(host)
        if route is None and port is not None and self._is_here(host):
            place = self._table.at(port)
            route = self._table.get(place.endpoint_id) if place is not None else None
        if route is None:
            raise serverless.UnknownHost(host)
        admits = None if route.allowed is None else partial(allowed, rules=route.allowed)
        return serverless.Target(
            str(self._unix), route.port, admits, partial(self._wakes, route), partial(self._leads_to, route)
        )

    def _named(self, host: str) -> Route | None:
        endpoint_id, _ = split_pooler(host.lower().partition(".")[0])
        return self._table.get(endpoint_id)

    def _leads_to(self, route: Route, scope: Scope) -> None:
        """Whether that is what the caller's address leads to: its port if that is an endpoint's own, else its name.

        A name that is no endpoint's, such as `api.` before a domain, leads to all. Raises SqlFailed.
        """
        place = self._table.at(scope["server"][1]) if scope.get("server") else None
        if place is not None:
            here: str | None = place.endpoint_id
        else:
            hosts = (value.decode("latin-1") for name, value in scope.get("headers", ()) if name.lower() == b"host")
            named = self._named(next(hosts, "").partition(":")[0])
            here = None if named is None else named.endpoint_id
        if here not in (None, route.endpoint_id):
            refusal = replace(
                refusals.other_endpoint(route.endpoint_id),
                message=f"the connection string names the endpoint '{route.endpoint_id}', "
                "and this is the address of another one",
                hint="Send it to its own address, or to that of the API.",
            )
            raise serverless.SqlFailed.of(refusal)

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
        plain = host.lower().strip("[]")
        return plain in ("localhost", self.address) or _is_any(self.address) or is_loopback(plain)


def _is_any(address: str) -> bool:
    found = read_address(address)
    return found is not None and found.is_unspecified


class Web:
    """Serves visitors that speak HTTP."""

    def __init__(self, doors: Doors, *, limits: serverless.Limits | None = None, slots: Slots | None = None) -> None:
        self._limits = limits or serverless.Limits()
        self._slots = Slots() if slots is None else slots
        self._app = serverless.app(doors.resolve, limits=self._limits)
        self._config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            **(serverless.UVICORN | {"ws": WebSocketProtocol}),
        )
        self._config.load()
        self._state = ServerState()

    async def __call__(self, visitor: Visitor) -> None:
        """Take a connection over. Returns at once without TLS; with TLS, which ends here, when it is over."""
        tls = visitor.tls is not None
        lost = (lambda _connection: None) if tls else self._slots.give_back
        connection = Connection(self._config.loaded_app, visitor, limits=self._limits, lost=lost)
        if not self._slots.take(connection):
            await _turn_away(visitor)
        with contextlib.suppress(OSError):
            # For what uvicorn has given away: it is the kernel's, or waits where TLS ends.
            patience = int(self._limits.taking_seconds * 1000)
            visitor.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        if not tls:
            first = visitor.stream.take()
            await self._attach(socket.socket(fileno=visitor.sock.detach()), connection, first)
            return
        try:
            await self._pass_on(visitor, connection)
        finally:
            self._slots.give_back(connection)

    async def close(self) -> None:
        for protocol in list(self._state.connections):
            protocol.shutdown()
        await self._app.close()

    async def _pass_on(self, visitor: Visitor, connection: Connection) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        inner = Stream(ours)
        await self._attach(theirs, connection, b"")
        await Pump(visitor.stream, inner).run()

    async def _attach(self, sock: socket.socket, connection: Connection, first: bytes) -> None:
        config = copy.copy(self._config)
        config.loaded_app = connection
        protocol = HttpProtocol(config, self._state, connection, first)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
        except BaseException:
            self._slots.give_back(connection)
            sock.close()
            raise


async def _turn_away(visitor: Visitor) -> None:
    """There is no slot. Raises HandshakeFailed."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            why = "too many connections are open; try again later"
            await visitor.stream.send(answer(HTTPStatus.SERVICE_UNAVAILABLE, why))
            await visitor.stream.end()
    raise HandshakeFailed("too many connections of HTTP")
