"""The platform's end of a line to a front, when that says nothing, and when it was we who were not there to hear it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lamplighter.gateway import link
from lamplighter.gateway.ports import Wake
from lamplighter.platform.gateway_line import Line

WAKE = Wake("ep-a")


@pytest.fixture
async def ends(place: Path) -> AsyncIterator[tuple[Line, socket.socket]]:
    """A line, and what its front would have."""
    path = place / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        line = await Line.connect(path)
        front = server.accept()[0]
    with front:
        yield line, front
    line.close()
    with contextlib.suppress(OSError):
        await line.writer.wait_closed()


async def test_it_is_known_who_listens(ends):
    line, _ = ends
    assert line.pid == os.getpid()


async def test_a_front_that_says_nothing_is_waited_for_so_long_and_no_longer(ends):
    """Half a message is none."""
    line, front = ends
    front.sendall(link.to_platform(WAKE)[:-1])
    with pytest.raises(TimeoutError):
        await line.receive(looks=3, every=0.02)
    front.sendall(b"\n")
    assert await line.receive(looks=1000) == WAKE


async def test_however_long_we_are_stopped_the_front_has_not_been_silent(ends):
    line, front = ends
    receiving = asyncio.create_task(line.receive(looks=4, every=0.05))
    # One turn, in which it begins to wait.
    await asyncio.sleep(0)
    front.sendall(link.to_platform(WAKE))
    # The loop stands still, as if we were stopped: for longer than all looks take.
    threading.Event().wait(0.5)
    assert await receiving == WAKE


async def test_the_end_of_a_line_is_no_silence(ends):
    line, front = ends
    front.shutdown(socket.SHUT_RDWR)
    assert await line.receive(looks=1000) is None
