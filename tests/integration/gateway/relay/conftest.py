"""Relays, both kinds, and connections to hand to them: TCP on loopback, of which a test holds both far ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lamplighter.gateway import relaying
from lamplighter.gateway.relaying import Ended, Relay
from support.waiting import eventually

SOURCE = Path(relaying.__file__).with_name("relay.c")
STRICT = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror")
PATIENCE = 30.0


@dataclass
class Ends:
    """What a client and a backend hold of one connection through a relay."""

    number: int
    client: socket.socket
    backend: socket.socket

    async def send(self, end: socket.socket, content: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(end, content)

    async def read(self, end: socket.socket, length: int) -> bytes:
        """So many bytes, fewer only before an end of file."""
        content = bytearray()
        async with asyncio.timeout(PATIENCE):
            while len(content) < length:
                part = await asyncio.get_running_loop().sock_recv(end, length - len(content))
                if not part:
                    break
                content += part
        return bytes(content)

    async def pass_on(self, content: bytes, back: bytes = b"") -> None:
        """Whole, in both directions."""
        await asyncio.gather(self.send(self.client, content), self._expect(self.backend, content))
        await asyncio.gather(self.send(self.backend, back), self._expect(self.client, back))

    async def _expect(self, end: socket.socket, content: bytes) -> None:
        assert await self.read(end, len(content)) == content

    def close(self) -> None:
        self.client.close()
        self.backend.close()


def reset(end: socket.socket) -> None:
    """Close with a reset."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()


def files_of(pid: int) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


@dataclass
class Bench:
    """One relay, what it reported, and connections through it."""

    relay: Relay
    listening: socket.socket
    closed: dict[int, Ended] = field(default_factory=dict)
    deaths: list[None] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    opened: list[Ends] = field(default_factory=list)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two ends of a TCP connection."""
        near = socket.create_connection(self.listening.getsockname())
        far, _ = self.listening.accept()
        for end in (near, far):
            end.setblocking(False)
        return near, far

    def open(self, *, to_backend: bytes = b"", to_client: bytes = b"") -> Ends:
        (client, client_far), (backend, backend_far) = self.pair(), self.pair()
        ends = Ends(next(self.numbers), client, backend)
        self.opened.append(ends)
        self.relay.hand_over(ends.number, client_far, backend_far, to_backend=to_backend, to_client=to_client)
        assert client_far.fileno() == backend_far.fileno() == -1
        return ends

    async def ended(self, ends: Ends) -> Ended:
        await eventually(lambda: ends.number in self.closed, seconds=PATIENCE, what="the report")
        return self.closed[ends.number]

    async def settled(self) -> None:
        """The relay has taken all that it was sent."""
        await self.relay.counters()

    def kib(self, what: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.relay.pid}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0])

    def files(self) -> set[int]:
        return files_of(self.relay.pid)


class Benches:
    """Makes relays, and ends them."""

    def __init__(self, argv: list[str], stack: AsyncExitStack) -> None:
        self.argv = argv
        self.stack = stack

    async def __call__(self, *, linger: int = 60) -> Bench:
        listening = self.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        relay = await Relay.start(self.argv, linger=linger)
        bench = Bench(relay, listening)
        relay.on_closed(lambda ended: bench.closed.__setitem__(ended.id, ended))
        relay.on_death(lambda: bench.deaths.append(None))
        self.stack.push_async_callback(relay.close)
        self.stack.callback(lambda: [ends.close() for ends in bench.opened])
        return bench


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """relay.c as it is now, which may be newer than what is installed, compiled so that any warning fails."""
    found = shutil.which(os.environ.get("CC", "cc"))
    assert found is not None, "These tests need a C compiler (Debian: gcc and libc6-dev)."
    made = tmp_path_factory.mktemp("relay") / "relay"
    subprocess.run([found, *STRICT, "-o", str(made), str(SOURCE)], check=True)
    return made


@pytest.fixture(scope="session")
def fallback() -> list[str]:
    return [sys.executable, "-m", "lamplighter.gateway.relay_fallback"]


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    """As many as there may be: a test holds both ends of its connections."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
async def benches(argv: list[str]) -> AsyncIterator[Benches]:
    """`argv` is the fixture of a test class: which relay."""
    async with AsyncExitStack() as stack:
        yield Benches(argv, stack)


@pytest.fixture
async def bench(benches: Benches) -> Bench:
    return await benches()
