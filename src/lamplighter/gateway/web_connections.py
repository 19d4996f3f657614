"""Connections of HTTP and WebSocket: how many there may be, who gives way, and who is ended because it stalls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from lamplighter.address_ranges import holder_of
from lamplighter.gateway import serverless
from lamplighter.gateway.visitors import Visitor

#: Connections at one time, and of these, those of one address of another host (of IPv6 its /64).
MOST = 2000
MOST_OF_ADDRESS = 500
#: From the begin of a connection to the end of its first request's head.
_FIRST_REQUEST_SECONDS = 20.0


def answer(status: HTTPStatus, why: str) -> bytes:
    """A last one, with the headers that all have: without the first one a browser shows nothing of it."""
    body = json.dumps({"message": why})
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "access-control-allow-origin: *",
        f"neon-request-id: {uuid4()}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    )
    return "\r\n".join((*lines, "", body)).encode()


class Connection:
    """The app as one connection has it: with the addresses of its two ends, which a socket pair does not tell.

    It also ends the connection when a request's head does not come to its end, or when the client does not take what
    it is sent: uvicorn has no deadline for either. `lost` is called when uvicorn is done with it.
    """

    def __init__(
        self,
        app: Callable[..., object],
        visitor: Visitor,
        *,
        limits: serverless.Limits,
        lost: Callable[[Connection], None],
    ) -> None:
        self._app: ASGIApp = app  # type: ignore[assignment] # uvicorn's own types of the same interface
        # The client's own port tells nothing; the other one tells whose address it is.
        self._ends = {"client": (visitor.address or "", 0), "server": (visitor.local or "", visitor.port)}
        self._limits = limits
        self._lost = lost
        #: Where TLS ends before uvicorn, the client's end of it.
        self._before: socket.socket | None = visitor.sock if visitor.tls is not None else None
        self.holder = None if visitor.payer is None else holder_of(visitor.payer)
        self.logged_in = False
        self._serving = False
        self._ended = False
        self._began = 0.0
        self._first: asyncio.TimerHandle | None = None
        self._request: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._serving = True
        if self._first is not None:
            self._first.cancel()
        began = self._began
        if self._request is not None:
            self._request.cancel()
            self._request = None
        else:
            # It was there whole before the answer to the request before it.
            began = asyncio.get_running_loop().time()
        scheme = ("http" if scope["type"] == "http" else "ws") + ("s" if self._before is not None else "")
        more = {"scheme": scheme, serverless.BEGAN: began, serverless.LOGGED_IN: self._log_in}
        try:
            await self._app({**scope, **self._ends, **more}, receive, send)
        finally:
            self._serving = False

    def _log_in(self) -> None:
        self.logged_in = True

    # What its protocol tells

    def made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # Whatever is not taken is told.
        transport.set_write_buffer_limits(high=0)
        loop = asyncio.get_running_loop()
        if self._ended:
            loop.call_soon(transport.abort)
        self._first = loop.call_later(_FIRST_REQUEST_SECONDS, self.end)

    def hears(self) -> None:
        """Bytes have come: if no request is being served, they are another one's, or what is left of the last."""
        if not self._serving and self._request is None:
            loop = asyncio.get_running_loop()
            self._began = loop.time()
            self._request = loop.call_later(self._limits.request_seconds, self.end)

    def waits(self) -> None:
        """The client does not take what it is sent."""
        if self._taking is None:
            self._taking = asyncio.get_running_loop().call_later(self._limits.taking_seconds, self.end)

    def goes_on(self) -> None:
        """It has taken all."""
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def lost(self) -> None:
        for timer in (self._first, self._request, self._taking):
            if timer is not None:
                timer.cancel()
        self._lost(self)

    def end(self) -> None:
        """At once, whatever is on its way."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
        if self._before is not None:
            # Who passes its bytes on may wait for it to take some.
            with contextlib.suppress(OSError):
                self._before.shutdown(socket.SHUT_RDWR)


class Slots:
    """Who has a connection, the oldest first, in all and by address. On this host, addresses are not told apart."""

    def __init__(self, *, most: int = MOST, of_address: int = MOST_OF_ADDRESS) -> None:
        self._most = most
        self._of_address = of_address
        self._all: dict[Connection, None] = {}
        self._of_holder: dict[str | None, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def take(self, connection: Connection) -> bool:
        """Whether there is one. Else the oldest by which nobody has logged in gives way."""
        those = self._of_holder.get(connection.holder, {})
        if connection.holder is not None and len(those) >= self._of_address:
            fits = self._end_oldest(those)
        else:
            fits = len(self._all) < self._most or self._end_oldest(self._all)
        if fits:
            self._all[connection] = None
            self._of_holder.setdefault(connection.holder, {})[connection] = None
        return fits

    def give_back(self, connection: Connection) -> None:
        """Also of one that has none."""
        if connection not in self._all:
            return
        del self._all[connection]
        those = self._of_holder[connection.holder]
        del those[connection]
        if not those:
            del self._of_holder[connection.holder]

    def _end_oldest(self, those: dict[Connection, None]) -> bool:
        oldest = next((one for one in those if not one.logged_in), None)
        if oldest is None:
            return False
        # At once: the next one that comes is not to find it again.
        self.give_back(oldest)
        oldest.end()
        return True


class _Protocol(asyncio.Protocol):
    """Tells its connection what uvicorn is told."""

    _connection: Connection

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connection.waits()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connection.goes_on()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.lost()


class HttpProtocol(_Protocol, H11Protocol):
    """`first` is what was read of the connection before."""

    def __init__(self, config: uvicorn.Config, state: ServerState, connection: Connection, first: bytes) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._connection = connection
        self._first = first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._connection.made(transport)
        if self._first:
            # Before anything that comes after it. Nothing would mean the end.
            self.data_received(self._first)

    def data_received(self, data: bytes) -> None:
        self._connection.hears()
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(answer(HTTPStatus.BAD_REQUEST, msg))
        self.transport.close()


class WebSocketProtocol(_Protocol, serverless.BoundedWebSocket):
    """What an `HttpProtocol` becomes: uvicorn gives it the same `config`, of which the app is the connection."""

    def __init__(self, config: uvicorn.Config, **given: Any) -> None:
        super().__init__(config=config, **given)
        assert isinstance(config.loaded_app, Connection)
        self._connection = config.loaded_app
