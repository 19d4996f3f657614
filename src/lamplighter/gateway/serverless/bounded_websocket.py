"""How WebSockets are spoken: by uvicorn's protocol, with a bound on what it holds of messages that are on their way.

A message is whole before the app gets it, be its sender logged in or not, and nobody waits for a pong to be taken.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

import structlog
from starlette.types import Message
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from lamplighter.gateway.serverless.errors import TooBusy
from lamplighter.gateway.serverless.limits import Share
from lamplighter.gateway.serverless.scopes import SOCKET

log = structlog.get_logger(__name__)

#: Bytes that a connection holds in nobody's account: where that is full, small messages still have room.
FREE = 16 * 1024
#: The most of one without an account: before the app begins, and after its end.
MOST_WITHOUT = 1024 * 1024


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One connection, which is ended when it holds more than its share."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._share: Share | None = None
        #: Bytes that were read since the app was done with all that had come; and of these, all since a message ended,
        #: with the whole read in which it did.
        self._came = self._since = 0

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # Without a handshake there is none. The app's task begins after this.
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            cast("dict[str, Any]", self.scope)[SOCKET] = self

    def charge(self, share: Share) -> None:
        """What is held is held of this from now on. Raises TooBusy."""
        self._share = share
        self._count()

    def charge_nobody(self) -> None:
        """The share is to end, and so is the app, or it charges another one at once."""
        self._share = None

    def data_received(self, data: bytes) -> None:
        messages = self.queue.qsize()
        super().data_received(data)
        self._came += len(data)
        self._since = len(data) + (self._since if self.queue.qsize() == messages else 0)
        self._count_or_end()

    async def receive(self) -> Message:  # type: ignore[override] # uvicorn's own types of the same interface
        if self.queue.empty():
            # Whoever asks again is done with what it got.
            self._came = self._since
            self._count_or_end()
        return cast("Message", await super().receive())

    def _count_or_end(self) -> None:
        try:
            self._count()
        except TooBusy:
            log.info("serverless.websocket_ended", held=self._came)
            self.transport.abort()

    def _count(self) -> None:
        held = self._came + self.transport.get_write_buffer_size()
        if self._share is not None:
            self._share.hold(max(held - FREE, 0))
        elif held > MOST_WITHOUT:
            raise TooBusy
