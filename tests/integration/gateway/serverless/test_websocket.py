"""Postgres' protocol inside a WebSocket, message by message."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from lamplighter.gateway.serverless import Limits
from lamplighter.gateway.wire import messages
from lamplighter.gateway.wire.messages import Frames, Message, message, parse_error
from lamplighter.gateway.wire.startup import (
    SSL_REQUEST,
    CancelRequest,
    Startup,
    render_cancel,
    render_startup,
)
from support.serverless import ENDPOINT, PASSWORD, USER, Door, Postgres, served
from support.waiting import eventually
from support.wire import PROTOCOL_3_0, password_message

WAIT_SECONDS = 20
STARTUP = render_startup(
    Startup(PROTOCOL_3_0, (("user", USER), ("database", "neondb"), ("options", f"endpoint={ENDPOINT} -c work_mem=9MB")))
)
LOGIN = password_message(PASSWORD.encode())


def query(text: str) -> bytes:
    return message(b"Q", text.encode() + b"\0")


class Talk:
    """A client's end of one connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._frames = Frames(limit=1 << 26)

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.socket.send(piece)

    async def hear(self, until: bytes) -> list[Message]:
        """All messages up to one of this kind."""
        heard: list[Message] = []
        async with asyncio.timeout(WAIT_SECONDS):
            while not heard or heard[-1].kind != until:
                one = self._frames.pop()
                if one is None:
                    piece = await self.socket.recv()
                    assert isinstance(piece, bytes)
                    self._frames.push(piece)
                else:
                    heard.append(one)
        return heard

    async def closed(self) -> int:
        """The code with which the server closed."""
        async with asyncio.timeout(WAIT_SECONDS):
            with suppress(ConnectionClosedError):
                async for _ in self.socket:
                    pass
        assert self.socket.close_code is not None
        return self.socket.close_code


@asynccontextmanager
async def talking(
    door: Door, *, address: str | None = f"{ENDPOINT}.example.org:5432", **options: Any
) -> AsyncIterator[Talk]:
    where = f"ws://127.0.0.1:{door.port}/v2" + (f"?address={address}" if address else "")
    async with connect(where, max_size=1 << 26, **options) as socket:
        yield Talk(socket)


@asynccontextmanager
async def logged_in(door: Door) -> AsyncIterator[Talk]:
    async with talking(door) as talk:
        await talk.say(STARTUP, LOGIN)
        await talk.hear(b"Z")
        yield talk


def kinds(heard: list[Message]) -> bytes:
    return b"".join(one.kind for one in heard)


async def test_all_at_once_without_waiting(door: Door):
    """Startup, password and first query in one message: what the driver does by default."""
    async with talking(door) as talk:
        await talk.say(STARTUP + LOGIN + query("show work_mem"))
        hello = await talk.hear(b"Z")
        assert hello[0] == Message(b"R", struct.pack("!I", messages.AUTH_CLEARTEXT))
        assert hello[1] == Message(b"R", struct.pack("!I", messages.AUTH_OK))
        assert {b"S", b"K"} <= {one.kind for one in hello}
        answer = await talk.hear(b"Z")
        assert kinds(answer) == b"TDCZ"
        assert b"9MB" in answer[1].body
        assert door.resolved[-1] == (f"{ENDPOINT}.example.org", 5432)


async def test_byte_by_byte(door: Door):
    """Messages of the WebSocket are not messages of Postgres."""
    everything = STARTUP + LOGIN + query("select 1")
    async with talking(door) as talk:
        await talk.say(*(everything[at : at + 1] for at in range(len(everything))))
        await talk.hear(b"Z")
        assert kinds(await talk.hear(b"Z")) == b"TDCZ"


async def test_step_by_step(door: Door):
    """A client that waits for each answer, and asks for TLS first."""
    async with talking(door) as talk:
        await talk.say(SSL_REQUEST)
        assert await talk.socket.recv() == b"N"
        await talk.say(STARTUP)
        assert kinds(await talk.hear(b"R")) == b"R"
        await talk.say(LOGIN)
        await talk.hear(b"Z")
        await talk.say(query("select 1"))
        assert kinds(await talk.hear(b"Z")) == b"TDCZ"
        await talk.say(message(b"X"))
        assert await talk.closed() == 1000


async def test_the_host_is_told_by_the_header(door: Door):
    async with talking(door, address=None) as talk:
        await talk.say(STARTUP, LOGIN)
        await talk.hear(b"Z")
    assert door.resolved[-1] == ("127.0.0.1", door.port)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("example.org:5432", "The requested endpoint could not be found"),
        ("10.0.0.1:22", "The requested endpoint could not be found"),
        ("x@y", "missing hostname"),
    ],
)
async def test_other_hosts(door: Door, address: str, said: str):
    """The client gets an error of Postgres, and the end."""
    async with talking(door, address=address) as talk:
        await talk.say(STARTUP)
        error = parse_error((await talk.hear(b"E"))[-1].body)
        assert said in error["message"]
        assert error["severity"] == "FATAL"
        assert await talk.closed() == 1000


async def test_a_wrong_password(door: Door):
    """Postgres' own words."""
    async with talking(door) as talk:
        await talk.say(STARTUP, password_message(b"wrong"), query("select 1"))
        error = parse_error((await talk.hear(b"E"))[-1].body)
        assert (error["code"], error["routine"]) == ("28P01", "auth_failed")
        assert await talk.closed() == 1000


async def test_text_is_refused(door: Door):
    """In the session as before it."""
    async with talking(door) as talk:
        await talk.socket.send("hello")
        assert await talk.closed() == 1003
    async with logged_in(door) as talk:
        await talk.socket.send("hello")
        assert await talk.closed() == 1003
    await eventually(lambda: not sessions(door.server), what="the end of the session")


def sessions(server: Postgres) -> int:
    ((count,),) = server.run(
        f"select count(*) from pg_stat_activity where usename = '{USER}' and application_name = ''"
        " and current_setting('work_mem') is not null and query <> 'DISCARD ALL'"
    )
    return int(count)


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x10aaaaaaaa", b"\0\0\0\x08\x00\x02\x00\x00", b"\x7f" * 20],
)
async def test_garbage_is_refused(door: Door, garbage: bytes):
    async with talking(door) as talk:
        await talk.say(garbage)
        assert parse_error((await talk.hear(b"E"))[-1].body)["code"] == "08P01"
        assert await talk.closed() == 1000


async def test_something_else_than_a_password(door: Door):
    async with talking(door) as talk:
        await talk.say(STARTUP, query("select 1"))
        assert "expected password" in parse_error((await talk.hear(b"E"))[-1].body)["message"]
        await talk.closed()


async def test_a_password_without_end(door: Door):
    async with talking(door) as talk:
        await talk.say(STARTUP, b"p" + struct.pack("!I", 1 << 30) + b"x" * 100)
        assert "too long" in parse_error((await talk.hear(b"E"))[-1].body)["message"]
        await talk.closed()


async def test_a_client_that_stalls(server: Postgres):
    """Whoever does not go on is sent away, at each step."""
    with served(server, limits=Limits(hello_seconds=0.2)) as door:
        for said in (b"", STARTUP[:9], STARTUP, STARTUP + LOGIN[:4]):
            async with talking(door) as talk:
                await talk.say(*([said] if said else []))
                assert parse_error((await talk.hear(b"E"))[-1].body)["code"] == "57P03"
                assert await talk.closed() == 1000


async def test_a_cancel_request(door: Door):
    """It reaches the endpoint, and the session goes on."""
    async with talking(door) as talk:
        await talk.say(STARTUP, LOGIN)
        (key,) = [one for one in await talk.hear(b"Z") if one.kind == b"K"]
        pid, secret = messages.parse_backend_key(key.body)
        await talk.say(query("select pg_sleep(100)"))
        await eventually(
            lambda: door.server.run(f"select 1 from pg_stat_activity where pid = {pid} and state = 'active'")
        )
        async with talking(door) as other:
            await other.say(render_cancel(CancelRequest(pid, secret)))
            assert await other.closed() == 1000
        error = parse_error((await talk.hear(b"E"))[-1].body)
        assert error["code"] == "57014"
        await talk.hear(b"Z")
        await talk.say(query("select 1"))
        assert kinds(await talk.hear(b"Z")) == b"TDCZ"


async def test_a_client_that_goes(door: Door):
    """Its session ends, also when it does not say so."""
    async with logged_in(door) as talk:
        assert sessions(door.server) == 1
        talk.socket.transport.abort()
    await eventually(lambda: not sessions(door.server), what="the end of the session")


async def test_an_endpoint_that_ends(door: Door):
    """The client hears why."""
    async with logged_in(door) as talk:
        door.server.run(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{USER}'")
        assert parse_error((await talk.hear(b"E"))[-1].body)["code"] == "57P01"
        assert await talk.closed() == 1000


async def test_an_endpoint_that_is_not_there(server: Postgres):
    with served(server, port=1) as door:
        async with talking(door) as talk:
            await talk.say(STARTUP, LOGIN)
            assert parse_error((await talk.hear(b"E"))[-1].body)["code"] == "08006"


async def test_an_address_that_may_not_come_in(server: Postgres):
    with served(server, admits=lambda client: False) as door:
        async with talking(door) as talk:
            await talk.say(STARTUP, LOGIN)
            assert "is not allowed to connect" in parse_error((await talk.hear(b"E"))[-1].body)["message"]


async def test_by_a_unix_socket(server: Postgres):
    with served(server, address=str(server.log.parent)) as door:
        async with logged_in(door) as talk:
            await talk.say(query("select inet_client_addr() is null"))
            assert b"t" in (await talk.hear(b"Z"))[1].body


async def test_a_reader_that_does_not_read_costs_little(door: Door):
    """Postgres waits for it, as it does for any slow client; nothing piles up in between."""
    text = "select repeat('x', 1000000) from generate_series(1, 2000)"
    async with talking(door, max_queue=1) as talk:
        await talk.say(STARTUP, LOGIN, query(text))
        waits = "select 1 from pg_stat_activity where wait_event = 'ClientWrite' and query like 'select repeat%'"
        await eventually(lambda: door.server.run(waits), what="Postgres to wait for us")
        talk.socket.transport.abort()
    await eventually(lambda: not sessions(door.server), what="the end of the session")


async def test_long_values_both_ways(door: Door):
    async with logged_in(door) as talk:
        await talk.say(query("select '" + "x" * 3_000_000 + "' || repeat('y', 3000000)"))
        row = (await talk.hear(b"Z"))[1]
        assert len(row.body) == 2 + 4 + 6_000_000


async def test_a_long_first_query_with_the_password(door: Door):
    """The driver puts all that it writes at once into one message, be the query as long as it may."""
    async with talking(door) as talk:
        await talk.say(STARTUP + LOGIN + query("select '" + "x" * 3_000_000 + "'"))
        await talk.hear(b"Z")
        row = (await talk.hear(b"Z"))[1]
        assert len(row.body) == 2 + 4 + 3_000_000
    await eventually(lambda: door.serverless.held == 0, what="all to be given back")


@asynccontextmanager
async def half_a_message(talk: Talk, size: int) -> AsyncIterator[None]:
    """So much of one message is sent meanwhile, whose end does not come."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // 10_000):
            yield b"x" * 10_000
        await asyncio.Event().wait()

    task = asyncio.ensure_future(talk.socket.send(pieces()))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("proven", [False, True])
async def test_half_a_message_is_counted(door: Door, *, proven: bool):
    """Until its sender goes, be it logged in or not."""
    async with talking(door) as talk:
        if proven:
            await talk.say(STARTUP, LOGIN)
            await talk.hear(b"Z")
        async with half_a_message(talk, 200_000):
            await eventually(lambda: door.serverless.held > 150_000, what="what came to be counted")
            talk.socket.transport.abort()
    await eventually(lambda: door.serverless.held == 0, what="all to be given back")


@pytest.mark.parametrize(
    ("proven", "limits"),
    [(False, Limits(stranger=100_000)), (False, Limits(strangers=100_000)), (True, Limits(caller=100_000))],
)
async def test_who_sends_more_than_there_is_room_for(server: Postgres, limits: Limits, *, proven: bool):
    """Its connection ends; others, with short messages, have room."""
    with served(server, limits=limits) as door:
        async with talking(door) as greedy, talking(door) as modest:
            if proven:
                await greedy.say(STARTUP, LOGIN)
                await greedy.hear(b"Z")
            async with half_a_message(greedy, 1_000_000):
                assert await greedy.closed() == 1006
            await modest.say(STARTUP + LOGIN + query("select 1"))
            await modest.hear(b"Z")
            assert kinds(await modest.hear(b"Z")) == b"TDCZ"
        await eventually(lambda: door.serverless.held == 0, what="all to be given back")


PING = bytes([0x89, 0x80 | 125]) + bytes(4 + 125)
#: With nothing in it.
MESSAGE = bytes([0x82, 0x80]) + bytes(4)


@pytest.mark.parametrize("said", [PING * 1000, PING * 1000 + MESSAGE])
async def test_pings_without_end(server: Postgres, said: bytes):
    """Whoever takes no answers to them does not have them kept."""
    with served(server, limits=Limits(stranger=1_000_000)) as door:
        async with talking(door) as talk:
            talk.socket.transport.pause_reading()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await send_on(talk, said)
            talk.socket.transport.abort()


async def send_on(talk: Talk, piece: bytes) -> None:
    """Until the connection ends."""
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=os.dup(talk.socket.transport.get_extra_info("socket").fileno())) as sock:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                await loop.sock_sendall(sock, piece)
