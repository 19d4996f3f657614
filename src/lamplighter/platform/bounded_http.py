"""How connections to the API's port speak HTTP: httptools, twice as fast as h11, with the bounds that it lacks.

Neither it nor uvicorn bounds the length of a request's head, the wait for one, or the number of connections. With
`--host` anybody may come, and this process is the control plane.
"""

from __future__ import annotations

import asyncio
import json
import socket
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lamplighter.api.errors import ApiError

#: Of a request's head, and of what frames a body. As h11 has it.
HEAD_BYTES = 64 * 1024
#: From a connection's begin, or the first byte of a later request, to the end of the request's head.
HEAD_SECONDS = 20.0
CONNECTIONS = 1000
#: Of these, WebSockets: their sessions last, and must leave room for the API.
WEBSOCKETS = 500
#: In which a client must take something of what it is sent.
STALL_SECONDS = 60.0


def end_stalled(listener: socket.socket, *, seconds: float = STALL_SECONDS) -> None:
    """Have the kernel end connections whose clients do not take what they are sent. They have it from their listener.

    Uvicorn waits for such clients for ever, whether it has more to say or only closes.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


class Room:
    """The connections of one server: limits, and who waits for a request, in the order in which they began to."""

    def __init__(
        self,
        *,
        head_bytes: int = HEAD_BYTES,
        head_seconds: float = HEAD_SECONDS,
        connections: int = CONNECTIONS,
        websockets: int = WEBSOCKETS,
    ) -> None:
        self.head_bytes = head_bytes
        self.head_seconds = head_seconds
        self.connections = connections
        self.websockets = websockets
        self.waiting: dict[BoundedHttp, None] = {}

    def end_longest_waiting(self) -> bool:
        """False when all are at work."""
        oldest = next(iter(self.waiting), None)
        if oldest is None:
            return False
        del self.waiting[oldest]
        oldest.transport.abort()
        return True


class BoundedHttp(HttpToolsProtocol):
    """One connection. When there are too many, one that has no request under way gives way to a new one."""

    def __init__(self, room: Room, /, **given: Any) -> None:
        super().__init__(**given)
        self._room = room
        self._deadline: asyncio.TimerHandle | None = None
        #: Bytes that were read since a head ended, or a piece of a body came.
        self._outside = 0
        self._advanced = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self._room.connections and not self._room.end_longest_waiting():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open; try again later")
            return
        self._room.waiting[self] = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._begin_request()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._deadline is None and self in self._room.waiting:
            self._expect_head()
        self._advanced = False
        super().data_received(data)
        # By whole reads, of 256 KiB at most: httptools tells of a header when it has all of it.
        self._outside = 0 if self._advanced else self._outside + len(data)
        if self._outside > self._room.head_bytes:
            what = f"the head of a request may have {self._room.head_bytes} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, what)

    def on_headers_complete(self) -> None:
        self._advanced = True
        self._begin_request()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._advanced = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Else the next of several requests that came at once is under way.
        if self.cycle.response_complete and not self.transport.is_closing():
            self._room.waiting[self] = None

    def handle_websocket_upgrade(self) -> None:
        if sum(not isinstance(one, BoundedHttp) for one in self.connections) >= self._room.websockets:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many WebSockets are open; try again later")
            return
        super().handle_websocket_upgrade()

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self._room.head_seconds, self.transport.abort)

    def _begin_request(self) -> None:
        self._room.waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # Its answer may have begun.
            self.transport.abort()
            return
        body = json.dumps(ApiError(why).with_request_id(str(uuid4())).body())
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write((head + body).encode())
        self.transport.close()
