"""What the gateway passes on by itself, when the client does not keep up with a backend that has gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from lamplighter.gateway.pumping import Pump
from lamplighter.gateway.streams import Stream
from support.waiting import eventually

#: More than the sockets of the client hold.
ANSWER = b"x" * (1 << 19)


@dataclass
class Passed:
    """A pump that runs, and the far ends of both its sides. The client's takes little at once, the backend's much."""

    client: socket.socket
    backend: socket.socket
    pump: Pump
    running: asyncio.Task[None]
    said: int = 0

    async def say(self, content: bytes) -> None:
        """As the backend."""
        await asyncio.get_running_loop().sock_sendall(self.backend, content)
        self.said += len(content)

    async def read(self, size: int = 65536) -> bytes:
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recv(self.client, size)

    async def read_all(self) -> None:
        while await self.read():
            pass


@asynccontextmanager
async def pumping(*, linger: float) -> AsyncIterator[Passed]:
    async with AsyncExitStack() as stack:
        ends = []
        for buffer in (1 << 14, 1 << 20):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            far = stack.enter_context(socket.socket())
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            far.connect(listening.getsockname())
            near, _ = listening.accept()
            for end in (far, near):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            ends += [far, near]
        client, to_client, backend, to_backend = ends
        pump = Pump(Stream(to_client), Stream(to_backend), linger=linger)
        running = asyncio.create_task(pump.run())
        yield Passed(client, backend, pump, running)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def pass_time(seconds: float) -> None:
    end = asyncio.get_running_loop().time() + seconds
    await eventually(lambda: asyncio.get_running_loop().time() > end)


async def test_of_a_client_that_takes_nothing_when_its_backend_has_gone() -> None:
    """It is given up, and reset: what it has is not all. Not while the backend is there."""
    async with pumping(linger=0.2) as passed:
        # No more than is taken off the backend's hands: an end of file comes after all that was sent.
        with contextlib.suppress(TimeoutError):
            while await eventually(lambda: passed.pump.out == passed.said, seconds=1.0):
                await passed.say(b"x" * 65536)
        assert not passed.running.done()
        passed.backend.close()
        await eventually(passed.running.done, what="the end")
        await passed.running
        with pytest.raises(ConnectionResetError):
            await passed.read_all()


async def test_a_client_that_is_slow_gets_all() -> None:
    """However long that takes after the backend has closed, as long as something moves."""
    async with pumping(linger=1) as passed:
        saying = asyncio.create_task(passed.say(ANSWER))
        saying.add_done_callback(lambda _: passed.backend.close())
        got = 0
        while not saying.done():
            got += len(await passed.read())
        closed = asyncio.get_running_loop().time()
        while part := await passed.read(32768):
            got += len(part)
            await pass_time(0.2)
        assert asyncio.get_running_loop().time() > closed + 1.25, "it was not slow"
        assert got == len(ANSWER)
        passed.client.close()
        await passed.running
