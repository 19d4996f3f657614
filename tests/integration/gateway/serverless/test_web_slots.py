"""Connections of HTTP: who gives way when there are too many, and who is ended because it stalls."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect

from lamplighter.compute.tls import ensure_tls
from lamplighter.compute.user import SystemUser
from lamplighter.gateway.certificates import Certificates
from lamplighter.gateway.errors import HandshakeFailed
from lamplighter.gateway.ports import Listening
from lamplighter.gateway.serverless import Limits, Target
from lamplighter.gateway.visitors import Visitor
from lamplighter.gateway.web import Web
from lamplighter.gateway.web_connections import Slots
from lamplighter.gateway.wire.messages import message
from lamplighter.gateway.wire.startup import Startup, render_startup
from support.serverless import PASSWORD, USER, Postgres
from support.waiting import eventually
from support.wire import PROTOCOL_3_0, password_message

STRANGER, OTHER, THIRD = "192.0.2.1", "192.0.2.2", "192.0.2.3"
PREFLIGHT = b"OPTIONS /sql HTTP/1.1\r\nhost: x\r\n\r\n"
WAIT_SECONDS = 20


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the gateway has."""
    return "asyncio", {"use_uvloop": True}


class Leading:
    """Every host is the one server."""

    def __init__(self, port: int = 1) -> None:
        self._port = port

    async def resolve(self, _host: str, _port: int | None) -> Target:
        return Target("127.0.0.1", self._port)


@dataclass
class Scene:
    """Who serves HTTP, and the clients' ends of its connections."""

    web: Web
    slots: Slots
    clients: list[socket.socket] = field(default_factory=list)

    async def come(self, address: str) -> socket.socket:
        """A client that is served. Raises HandshakeFailed."""
        ours, theirs = self.pair()
        with theirs:
            await self.web(Visitor(theirs, address, 1, 1.0))
        return ours

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A client's end, and one that is the gateway's to close."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.clients.append(ours)
        return ours, theirs


@asynccontextmanager
async def serving(*, most: int = 10, of_address: int = 10, port: int = 1, **limits: Any) -> AsyncIterator[Scene]:
    slots = Slots(most=most, of_address=of_address)
    scene = Scene(Web(cast("Any", Leading(port)), limits=Limits(**limits), slots=slots), slots)
    try:
        yield scene
    finally:
        for client in scene.clients:
            client.close()
        await eventually(lambda: not len(slots), what="the end of all connections")
        await scene.web.close()


async def ask(client: socket.socket, request: bytes = PREFLIGHT) -> bytes:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_SECONDS):
        await loop.sock_sendall(client, request)
        return await loop.sock_recv(client, 1 << 16)


async def ended(client: socket.socket) -> bool:
    async with asyncio.timeout(WAIT_SECONDS):
        return await asyncio.get_running_loop().sock_recv(client, 1) == b""


# Who gives way


async def all_served(*clients: socket.socket) -> bool:
    return all([(await ask(one)).startswith(b"HTTP/1.1 200 ") for one in clients])


async def test_silent_ones_of_one_address_leave_room():
    """The oldest of its own gives way to each further one, and nobody else."""
    async with serving(of_address=3) as scene:
        silent = [await scene.come(STRANGER) for _ in range(3)]
        other = await scene.come(OTHER)
        late = await scene.come(STRANGER)
        assert await ended(silent[0])
        assert len(scene.slots) == 4
        assert await all_served(*silent[1:], other, late)


async def test_silent_ones_of_many_addresses_leave_room():
    """The oldest of all gives way."""
    async with serving(most=2) as scene:
        first, second, third = [await scene.come(address) for address in (STRANGER, OTHER, THIRD)]
        assert await ended(first)
        assert await all_served(second, third)


async def test_this_host_has_no_share():
    """All of its programs have one address."""
    async with serving(of_address=1) as scene:
        assert await all_served(*[await scene.come("127.0.0.1") for _ in range(3)])


async def test_networks_are_addresses():
    """Whoever has one address of IPv6 has all of its /64."""
    async with serving(of_address=1) as scene:
        first = await scene.come("2001:db8::1")
        await scene.come("2001:db8::2")
        assert await ended(first)


def select(answer: int) -> bytes:
    uri = f"postgresql://{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@ep-x.example.org/neondb"
    body = json.dumps({"query": f"select {answer} as n"})
    head = ["POST /sql HTTP/1.1", "host: x", f"neon-connection-string: {uri}", f"content-length: {len(body)}"]
    return "\r\n".join([*head, "", body]).encode()


@asynccontextmanager
async def by_http(client: socket.socket) -> AsyncIterator[None]:
    """Logged in, before and after."""
    assert b'"n":42' in await ask(client, select(42))
    yield
    assert b'"n":43' in await ask(client, select(43))


@asynccontextmanager
async def by_websocket(client: socket.socket) -> AsyncIterator[None]:
    startup = render_startup(Startup(PROTOCOL_3_0, (("user", USER), ("database", "neondb"))))
    async with connect("ws://x/v2?address=ep-x.example.org:5432", sock=client) as talking:

        async def hear_until_ready() -> bytes:
            heard = b""
            async with asyncio.timeout(WAIT_SECONDS):
                while not heard.endswith(b"Z\0\0\0\5I"):
                    heard += cast("bytes", await talking.recv())
            return heard

        await talking.send(startup + password_message(PASSWORD.encode()))
        await hear_until_ready()
        yield
        await talking.send(message(b"Q", b"select 43\0"))
        assert b"SELECT 1" in await hear_until_ready()


@pytest.mark.parametrize("way", [by_http, by_websocket])
async def test_who_has_logged_in_gives_no_way(server: Postgres, way: Any):
    """Who comes is told so, in a manner that browsers show."""
    async with serving(most=1, port=server.port) as scene, way(await scene.come(STRANGER)):
        for address in (STRANGER, OTHER):
            with pytest.raises(HandshakeFailed, match="too many connections"):
                await scene.come(address)
            said = scene.clients[-1].recv(4096)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"\r\naccess-control-allow-origin: *\r\n" in said


# Who stalls


async def test_who_takes_no_answers_is_ended():
    """It would else keep a place for as long as it likes."""
    async with serving(taking_seconds=0.3) as scene:
        client = await scene.come(STRANGER)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            async with asyncio.timeout(WAIT_SECONDS):
                await asyncio.get_running_loop().sock_sendall(client, PREFLIGHT * 100_000)
        await eventually(lambda: not len(scene.slots))


async def test_who_takes_no_answers_by_tls_is_ended(tmp_path: Path, owner: SystemUser):
    """There it is not uvicorn that waits for it."""
    files = ensure_tls(tmp_path / "tls", owner, ["localhost"])
    certificates = Certificates()
    certificates.configure(Listening(certificate=str(files.certificate), key=str(files.key)))
    context = ssl.create_default_context(cafile=str(files.authority))
    async with serving(taking_seconds=0.3) as scene:
        ours, theirs = scene.pair()
        ours.settimeout(WAIT_SECONDS)
        visitor = Visitor(theirs, STRANGER, 1, 10.0)

        def talk() -> None:
            with context.wrap_socket(ours, server_hostname="localhost") as client:
                while True:
                    client.sendall(PREFLIGHT * 100)

        talking = asyncio.ensure_future(asyncio.to_thread(talk))
        await visitor.next_opening()
        await visitor.end_tls(certificates)
        await visitor.next_opening()
        async with asyncio.timeout(WAIT_SECONDS):
            await scene.web(visitor)
        assert not len(scene.slots)
        with pytest.raises((ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)):
            await talking


async def test_who_takes_answers_late_gets_them_all():
    """Though what it is sent has to wait."""
    many = 5000
    async with serving() as scene:
        client = await scene.come(STRANGER)
        loop = asyncio.get_running_loop()
        writing = asyncio.ensure_future(loop.sock_sendall(client, PREFLIGHT * many))
        heard = b""
        async with asyncio.timeout(WAIT_SECONDS):
            while heard.count(b"HTTP/1.1 200 ") < many:
                heard += await loop.sock_recv(client, 1 << 16)
            await writing


async def test_a_browser_can_read_what_was_wrong():
    """Also where uvicorn does not get as far as the app."""
    async with serving() as scene:
        said = await ask(await scene.come(STRANGER), b"GET / HTTP/1.1\r\nno header\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"\r\naccess-control-allow-origin: *\r\n" in said
    assert b"\r\nneon-request-id: " in said
