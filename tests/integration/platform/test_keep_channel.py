"""Listening sockets that are passed to a peer who is slow to take them, and to a front that gets no routes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamplighter.gateway.keep_channel import Channel
from lamplighter.gateway.keep_protocol import At, Kind
from lamplighter.gateway.keeping import KeptListeners
from support.waiting import eventually

MANY = 1000


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def at(server: socket.socket) -> At:
    return At(*server.getsockname())


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Taker:
    """The other end, which takes nothing until `begin`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.came: list[tuple[Kind, At]] = []
        self.channel: Channel | None = None

    def begin(self) -> None:
        self.channel = Channel(self._sock, self._heard, lambda: None)

    def _heard(self, kind: Kind, at: At, sock: socket.socket | None) -> None:
        self.came.append((kind, at))
        if sock is not None:
            sock.close()

    def close(self) -> None:
        self.channel.close() if self.channel else self._sock.close()


@contextlib.contextmanager
def ends() -> Iterator[tuple[Channel, Taker]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, taker = Channel(ours, lambda *_: None, lambda: None), Taker(theirs)
    try:
        yield channel, taker
    finally:
        channel.close()
        taker.close()


async def test_sockets_that_wait_to_be_passed_take_no_descriptors(listener):
    with ends() as (channel, taker):
        before = descriptors()
        for _ in range(MANY):
            channel.send(Kind.OFFER, at(listener), listener)
        assert descriptors() == before
        taker.begin()
        await eventually(lambda: len(taker.came) == MANY)


async def test_a_socket_that_is_closed_before_its_turn_is_left_out(listener):
    """What was to be said after it is said."""
    with ends() as (channel, taker):
        with socket.create_server(("127.0.0.1", 0)) as other:
            gone = at(other)
            for _ in range(MANY):
                channel.send(Kind.OFFER, at(listener), listener)
            channel.send(Kind.OFFER, gone, other)
        channel.send(Kind.OFFERED)
        taker.begin()
        await eventually(lambda: (Kind.OFFERED, At("", 0)) in taker.came)
        assert (Kind.OFFER, gone) not in taker.came
        assert taker.came.count((Kind.OFFER, at(listener))) == MANY


def is_refused(where: At) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((where.address, where.port)) == errno.ECONNREFUSED


async def test_what_was_offered_is_given_up_when_no_routes_come(place, listener):
    """The platform that has offered it may have been killed, and its duplicates with it."""
    store = KeptListeners(place / "keep", patience=0.1)
    store.open()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(str(place / "keep"))
    ready = asyncio.Event()
    platform = Channel(sock, lambda kind, *_: ready.set() if kind is Kind.READY else None, lambda: None)
    where = at(listener)
    platform.send(Kind.OFFER, where, listener)
    platform.send(Kind.OFFERED)
    async with asyncio.timeout(20):
        await ready.wait()
    platform.close()
    listener.close()
    await eventually(lambda: is_refused(where))
    assert store.take(where.address, where.port) is None
    store.close()
