"""Fronts of gateways that are killed, and a keeper that has duplicates of what they listen on. No Postgres is needed:
who is told that an endpoint is disabled has been served."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lamplighter import __version__
from lamplighter.gateway import link
from lamplighter.gateway.keep_channel import Channel
from lamplighter.gateway.keep_protocol import At, Kind
from lamplighter.gateway.ports import (
    Done,
    Drain,
    DropRoute,
    Hello,
    Listening,
    Route,
    SetRoutes,
    ToGateway,
    ToPlatform,
    Welcome,
)
from lamplighter.gateway.spawning import Paths
from lamplighter.platform.keeper import Keeper
from support.front import GatewayProcess, free_port
from support.waiting import eventually

HERE = "127.0.0.1"


class Front:
    """One gateway's process, and a platform's end of its link."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.process = GatewayProcess(place)
        self.pid = self.process.process.pid
        self._seq = 0

    async def greet(self, listening: Listening) -> None:
        await asyncio.to_thread(self.process.wait_until_answers)
        self._reader, self._writer = await asyncio.open_unix_connection(str(self.process.socket), limit=link.LONGEST)
        await self.hello(listening)

    async def hello(self, listening: Listening) -> None:
        self.send(Hello(__version__, listening))
        assert isinstance(await self._next(), Welcome)

    def send(self, message: ToGateway) -> None:
        self._writer.write(link.to_gateway(message))

    async def _next(self) -> ToPlatform:
        async with asyncio.timeout(20):
            return link.read_by_platform(await self._reader.readline())

    async def _done(self) -> tuple[str, ...]:
        while not isinstance(message := await self._next(), Done):
            pass
        assert message.seq == self._seq
        return message.problems

    async def tell(self, *ports: int) -> tuple[str, ...]:
        """A disabled endpoint at each of these, and no other; answers problems."""
        self._seq += 1
        self.send(SetRoutes(self._seq, tuple(Route(f"ep-{port}", "a-project", "disabled", port) for port in ports)))
        return await self._done()

    async def drop(self, port: int) -> None:
        self._seq += 1
        self.send(DropRoute(self._seq, f"ep-{port}"))
        assert await self._done() == ()

    async def kill(self) -> None:
        self.process.process.kill()
        await asyncio.to_thread(self.process.process.wait)

    async def end(self) -> None:
        if hasattr(self, "_writer"):
            self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        await asyncio.to_thread(self.process.end)


class Scene:
    """One keeper, and the fronts that it meets one after the other."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.keeper = Keeper()
        self.listening = Listening()
        self.fronts: list[Front] = []

    async def front(self, *ports: int) -> Front:
        """Another one, as far as a platform would bring it."""
        front = await self.stranger()
        await self.keeper.meet(front.process.socket, front.pid)
        assert await front.tell(*ports) == ()
        await eventually(lambda: set(ports) <= self.ports())
        return front

    async def stranger(self) -> Front:
        """One that the keeper has not met."""
        front = Front(self.place / str(len(self.fronts)))
        self.fronts.append(front)
        await front.greet(self.listening)
        return front

    def ports(self) -> set[int]:
        return {at.port for at in self.keeper.held}

    async def close(self) -> None:
        self.keeper.close()
        for front in self.fronts:
            await front.end()


@pytest.fixture
def place() -> Iterator[Path]:
    """Short: paths of Unix sockets have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="keep-") as name:
        yield Path(name)


@pytest.fixture
async def scene(place: Path) -> AsyncIterator[Scene]:
    made = Scene(place)
    yield made
    await made.close()


def startup(**values: str) -> bytes:
    words = b"".join(f"{name}\0{value}\0".encode() for name, value in values.items()) + b"\0"
    return struct.pack("!ii", len(words) + 8, 3 << 16) + words


class Client:
    """Connects at once, and raises ConnectionRefusedError if it is refused."""

    def __init__(self, port: int, address: str = HERE, **values: str) -> None:
        self._sock = socket.create_connection((address, port), timeout=20)
        self._sock.sendall(startup(user="a", database="b", **values))

    async def answer(self) -> bytes:
        """What it is told, to the end."""

        def read() -> bytes:
            with self._sock:
                return b"".join(iter(lambda: self._sock.recv(4096), b""))

        return await asyncio.to_thread(read)


async def is_served(port: int, address: str = HERE) -> bool:
    return b"endpoint has been disabled" in await Client(port, address).answer()


def is_refused(port: int, address: str = HERE) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.settimeout(10)
        return sock.connect_ex((address, port)) == errno.ECONNREFUSED


def is_free(port: int) -> bool:
    """Whether a program that takes no liberties can have it."""
    with socket.socket() as sock:
        try:
            sock.bind((HERE, port))
            sock.listen()
        except OSError:
            return False
        return True


@pytest.mark.parametrize(("address", "way"), [(HERE, HERE), ("0.0.0.0", HERE), ("::1", "::1"), ("::", "::1")])
async def test_who_comes_while_no_front_is_there_is_served_by_the_next(scene, address, way):
    scene.listening = Listening(address=address)
    ports = [free_port(), free_port()]
    for _ in range(2):
        front = await scene.front(*ports)
        assert all([await is_served(port, way) for port in ports])
        await front.kill()
        clients = [Client(port, way) for port in ports * 10]
        await scene.front(*ports)
        for client in clients:
            assert b"endpoint has been disabled" in await client.answer()
        assert scene.keeper.held == {At(address, port) for port in ports}
        await scene.fronts[-1].kill()


async def test_who_waits_at_the_domain_s_port_is_not_answered_before_there_are_routes(scene):
    port, domain_port = free_port(), free_port()
    scene.listening = Listening(domain="db.example.test", domain_port=domain_port)
    front = await scene.front(port)
    assert domain_port in scene.ports()
    await front.kill()
    clients = [Client(domain_port, options=f"endpoint=ep-{port}") for _ in range(10)]
    after = await scene.stranger()
    await scene.keeper.meet(after.process.socket, after.pid)
    # Certificates may be new at any time.
    await after.hello(scene.listening)
    # Time enough to accept them, if it did.
    await asyncio.to_thread(has_had_turns, after)
    assert "port_failed" not in after.process.log.read_text()
    await after.tell(port)
    for client in clients:
        assert b"endpoint has been disabled" in await client.answer()


def has_had_turns(front: Front) -> None:
    """Until the front has answered others, twice."""
    for _ in range(2):
        front.process.wait_until_answers()


async def test_a_port_that_is_given_up_refuses_at_once_and_is_free_for_others(scene):
    ports = [free_port(), free_port()]
    front = await scene.front(*ports)
    await front.drop(ports[0])
    assert is_refused(ports[0])
    await eventually(lambda: is_free(ports[0]))
    assert scene.ports() == {ports[1]}
    assert await is_served(ports[1])
    # And it can be had again.
    assert await front.tell(*ports) == ()
    assert await is_served(ports[0])


async def test_a_port_that_is_given_up_refuses_at_once_although_somebody_has_a_duplicate(scene):
    """Whoever keeps them may be slow, or stopped."""
    port = free_port()
    front = await scene.stranger()
    kept: list[socket.socket] = []
    channel = listen_in(front, kept)
    await front.tell(port)
    await eventually(lambda: kept)
    await front.drop(port)
    assert is_refused(port)
    assert await front.tell(port) == ()
    assert await is_served(port)
    channel.close()
    for sock in kept:
        sock.close()


def keep_of(front: Front) -> str:
    return str(Paths(front.process.socket).keep)


def listen_in(front: Front, kept: list[socket.socket]) -> Channel:
    """A platform that keeps what it gets, and closes nothing."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(keep_of(front))

    def heard(kind: Kind, at: At, sock: socket.socket | None) -> None:
        if sock is not None:
            kept.append(sock)

    return Channel(sock, heard, lambda: None)


async def test_a_socket_that_somebody_has_shut_down_is_bound_anew(scene):
    port = free_port()
    front = await scene.stranger()
    kept: list[socket.socket] = []
    channel = listen_in(front, kept)
    await front.tell(port)
    await eventually(lambda: kept)
    kept[0].shutdown(socket.SHUT_RDWR)
    await eventually(lambda: not is_refused(port))
    assert await is_served(port)
    channel.close()
    for sock in kept:
        sock.close()


async def test_what_no_route_asks_for_any_more_is_closed_on_both_sides(scene):
    ports = [free_port(), free_port()]
    front = await scene.front(*ports)
    await front.kill()
    await scene.front(ports[0])
    assert is_refused(ports[1])
    await eventually(lambda: scene.ports() == {ports[0]})
    assert is_free(ports[1])


async def test_a_port_that_is_given_up_while_no_front_is_there_refuses_at_once(scene):
    ports = [free_port(), free_port()]
    front = await scene.front(*ports)
    await front.kill()
    scene.keeper.give_up((ports[0], None))
    assert is_refused(ports[0])
    assert not is_refused(ports[1])


async def test_a_platform_that_comes_later_is_told_of_all(scene):
    ports = [free_port(), free_port()]
    front = await scene.front(*ports)
    scene.keeper.close()
    assert await is_served(ports[0])
    scene.keeper = Keeper()
    await scene.keeper.meet(front.process.socket, front.pid)
    assert scene.ports() == set(ports)
    await front.kill()
    client = Client(ports[1])
    await scene.front(*ports)
    assert b"endpoint has been disabled" in await client.answer()


async def test_a_platform_that_meets_its_front_again_goes_on(scene):
    ports = [free_port(), free_port()]
    front = await scene.front(*ports)
    await scene.keeper.meet(front.process.socket, front.pid)
    assert scene.ports() == set(ports)
    assert await front.tell(*ports) == ()
    assert await is_served(ports[0])


async def test_a_platform_that_ends_takes_its_duplicates_along(scene):
    port = free_port()
    front = await scene.front(port)
    scene.keeper.close()
    assert await is_served(port)
    await front.kill()
    assert is_refused(port)


async def test_a_front_that_drains_leaves_no_port(scene):
    ports = [free_port(), free_port()]
    front = await scene.front(*ports)
    front.send(Drain())
    await eventually(lambda: is_refused(ports[0]) and is_refused(ports[1]))
    await eventually(lambda: scene.ports() == set())
    assert await (await scene.stranger()).tell(*ports) == ()


async def test_what_a_front_that_lives_listens_on_is_not_given_to_another(scene):
    """One that is stopped may go on at any time: both would accept, and the first would end it for the second."""
    port = free_port()
    front = await scene.front(port)
    os.kill(front.pid, signal.SIGSTOP)
    other = await scene.stranger()
    await scene.keeper.meet(other.process.socket, other.pid)
    assert scene.ports() == set()
    assert "cannot be listened on" in " ".join(await other.tell(port))
    os.kill(front.pid, signal.SIGCONT)
    assert await is_served(port)
    # The other one gets it when it is free.
    front.send(Drain())
    await eventually(lambda: scene.ports() == {port})
    assert await is_served(port)


async def test_a_front_that_cannot_be_offered_anything_binds_its_ports_itself(scene):
    port = free_port()
    front = await scene.front(port)
    await front.kill()
    after = await scene.stranger()
    await asyncio.to_thread(Path(keep_of(after)).unlink)
    await scene.keeper.meet(after.process.socket, after.pid)
    assert scene.ports() == set()
    assert await after.tell(port) == ()
    assert await is_served(port)


async def test_what_was_offered_to_a_front_that_died_is_offered_to_the_next(scene):
    port = free_port()
    front = await scene.front(port)
    await front.kill()
    client = Client(port)
    between = await scene.stranger()
    os.kill(between.pid, signal.SIGSTOP)
    meeting = asyncio.create_task(scene.keeper.meet(between.process.socket, between.pid))
    # One turn, in which it offers what it has.
    await asyncio.sleep(0)
    await between.kill()
    await meeting
    assert scene.ports() == {port}
    await scene.front(port)
    assert b"endpoint has been disabled" in await client.answer()


async def test_nobody_waits_for_ever_for_a_front_that_does_not_come(scene):
    scene.keeper = Keeper(patience=0.1)
    port = free_port()
    front = await scene.front(port)
    await front.kill()
    await eventually(lambda: is_refused(port))


async def test_a_platform_that_speaks_nonsense_breaks_nothing(scene):
    port = free_port()
    front = await scene.front(port)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(keep_of(front))
        sock.settimeout(20)
        sock.send(b"good day")
        while sock.recv(4096):
            pass
    assert await is_served(port)


@pytest.fixture
def few_files() -> Iterator[None]:
    """The soft limit that a shell has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_more_ports_than_a_shell_lets_have_files(few_files, scene):
    # Between those of platforms of tests, and those of others.
    ports = list(range(19000, 20000))
    front = await scene.front(*ports)
    await front.kill()
    clients = [Client(port) for port in ports[::100]]
    await scene.front(*ports)
    for client in clients:
        assert b"endpoint has been disabled" in await client.answer()
