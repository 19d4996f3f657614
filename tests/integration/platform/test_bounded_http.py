"""What the API's server bears of clients that send too much, nothing, or too slowly, and that it serves all others."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from lamplighter.gateway.serverless import UVICORN
from lamplighter.platform.bounded_http import BoundedHttp, Room, end_stalled
from support.waiting import eventually

SECONDS = 20.0
SHORT = 0.2
UPGRADE = (
    b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LONG = b"x" * 300_000


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, path: str = "/") -> tuple[int, bytes]:
        await self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return await self.answer()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body."""
        async with asyncio.timeout(SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next(line for line in head if line.startswith("content-length: "))
            return int(head[0].split()[1]), await self.reader.readexactly(int(length.split()[1]))

    async def switched(self) -> bool:
        """Whether it speaks WebSocket from now on."""
        async with asyncio.timeout(SECONDS):
            return b" 101 " in await self.reader.readline()

    async def rest(self) -> bytes:
        """What is still said, until the server closes."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@dataclass
class Served:
    """A server of some answers: `/` at once, `/wait` once `go` is set, `/count` how many bytes it was sent."""

    room: Room
    port: int = 0
    state: ServerState = field(default_factory=ServerState)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    clients: list[Client] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        body = b"done"
        if scope["path"] == "/wait":
            await self.go.wait()
        if scope["path"] == "/count":
            body = str(await count(receive)).encode()
        if scope["path"] == "/much":
            body = b"x" * 50_000_000
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def dial(self) -> Client:
        known = len(self.state.connections)
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        # As long as there is room: who is first is known.
        await eventually(lambda: len(self.state.connections) != known or known >= self.room.connections)
        return client


async def count(receive: Receive) -> int:
    size = 0
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        size += len(message["body"])
        if not message["more_body"]:
            return size


@asynccontextmanager
async def serving(room: Room, *, stall: float = 60.0) -> AsyncIterator[Served]:
    """At the end nothing is left of any connection."""
    served = Served(room)
    config = uvicorn.Config(served, log_config=None, lifespan="off", **{**UVICORN, "http": partial(BoundedHttp, room)})
    config.load()
    make = partial(config.http_protocol_class, config=config, server_state=served.state, app_state={})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        end_stalled(listener, seconds=stall)
        served.port = listener.getsockname()[1]
        server = await asyncio.get_running_loop().create_server(make, sock=listener)
        try:
            yield served
        finally:
            server.close()
            for client in served.clients:
                client.writer.transport.abort()
            await eventually(lambda: not served.state.connections and not served.state.tasks, what="the end of all")
    assert not room.waiting


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + LONG,
        b"GET / HTTP/1.1\r\nA: " + LONG,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000,
    ],
    ids=["path", "header", "headers"],
)
async def test_a_head_that_does_not_end_is_refused(endless: bytes) -> None:
    async with serving(Room()) as served:
        client = await served.dial()
        await client.send(endless)
        status, body = await client.answer()
        assert status == 431
        assert "may have 65536 bytes" in json.loads(body)["message"]
        assert await client.rest() == b""
        assert served.begun == 0


@pytest.mark.parametrize("endless", [b"0\r\nA: " + LONG, b"5;a=" + LONG], ids=["trailer", "extension"])
async def test_nor_is_what_frames_a_body_endless(endless: bytes) -> None:
    async with serving(Room()) as served:
        client = await served.dial()
        await client.send(b"POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        await eventually(lambda: served.begun)
        client.writer.write(endless)
        assert await client.rest() == b""
        served.go.set()


async def test_long_heads_and_bodies_of_any_size_pass() -> None:
    """A body in many small pieces has more frames than a head may have bytes."""
    async with serving(Room()) as served:
        client = await served.dial()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 60_000 + b"\r\n\r\n")
        assert await client.answer() == (200, b"done")
        await client.send(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
        assert await client.answer() == (200, b"20000000")
        pieces = b"2\r\nxx\r\n" * 50_000 + b"0\r\n\r\n"
        await client.send(b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces)
        assert await client.answer() == (200, b"100000")
        assert await client.ask() == (200, b"done")


async def test_requests_that_come_at_once_are_answered_in_order() -> None:
    async with serving(Room()) as served:
        client = await served.dial()
        await client.send(b"GET /count HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [await client.answer(), await client.answer()] == [(200, b"0"), (200, b"done")]
        assert len(served.room.waiting) == 1


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost:"])
async def test_who_does_not_ask_in_time_is_let_go(said: bytes) -> None:
    async with serving(Room(head_seconds=SHORT)) as served:
        client = await served.dial()
        await client.send(said)
        assert await client.rest() == b""


async def test_nor_is_half_a_later_request_waited_for() -> None:
    async with serving(Room(head_seconds=SHORT)) as served:
        client = await served.dial()
        assert await client.ask() == (200, b"done")
        await client.send(b"GET / HTTP/1.1\r\nHost:")
        assert await client.rest() == b""


async def test_a_body_and_an_answer_may_take_longer_than_a_head() -> None:
    async with serving(Room(head_seconds=SHORT)) as served:
        sending, waiting = await served.dial(), await served.dial()
        await sending.send(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf.")
        await waiting.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: served.begun == 2)
        # Who came later is let go.
        assert await (await served.dial()).rest() == b""
        await sending.send(b"half.")
        served.go.set()
        assert await sending.answer() == (200, b"10")
        assert await waiting.answer() == (200, b"done")


async def test_when_all_places_are_taken_the_silent_give_way() -> None:
    async with serving(Room(connections=3)) as served:
        asking = await served.dial()
        await asking.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: served.begun)
        first, second = await served.dial(), await served.dial()
        assert await first.ask() == (200, b"done")
        newcomer = await served.dial()
        # It has waited longer than the one that was just answered.
        assert await second.rest() == b""
        assert await newcomer.ask() == (200, b"done")
        assert await first.ask() == (200, b"done")
        served.go.set()
        assert await asking.answer() == (200, b"done")


async def test_when_all_are_at_work_one_more_is_told_so() -> None:
    async with serving(Room(connections=2)) as served:
        busy = [await served.dial() for _ in range(2)]
        for one in busy:
            await one.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: served.begun == 2)
        late = await served.dial()
        status, body = await late.answer()
        assert status == 503
        assert "too many connections" in json.loads(body)["message"]
        served.go.set()
        assert [await one.answer() for one in busy] == [(200, b"done")] * 2


async def test_websockets_leave_room_for_requests() -> None:
    async with serving(Room(websockets=1)) as served:
        first, second = await served.dial(), await served.dial()
        await first.send(UPGRADE)
        assert await first.switched()
        await second.send(UPGRADE)
        status, body = await second.answer()
        assert status == 503
        assert "too many WebSockets" in json.loads(body)["message"]
        assert await (await served.dial()).ask() == (200, b"done")
        first.writer.transport.abort()
        await eventually(lambda: all(isinstance(one, BoundedHttp) for one in served.state.connections))
        third = await served.dial()
        await third.send(UPGRADE)
        assert await third.switched()


async def test_who_does_not_take_its_answer_is_let_go() -> None:
    async with serving(Room(), stall=1.0) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as sock:
            sock.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
            await eventually(lambda: served.begun)
            await eventually(lambda: not served.state.connections, what="the end of a connection that nobody reads")
