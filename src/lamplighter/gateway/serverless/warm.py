"""Connections that are kept a while after use, for the next request of the same caller.

What a caller did to its session is undone before anybody gets the connection again (`DISCARD ALL`), and a connection is
found only by who knows the password that it was opened with. None keeps its endpoint awake for long.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from lamplighter.gateway.serverless.connection_string import Connection
from lamplighter.gateway.serverless.errors import TooBusy
from lamplighter.gateway.serverless.session import Session, connect
from lamplighter.gateway.serverless.targets import Target


@dataclass(frozen=True, slots=True)
class Warmth:
    """`keep_seconds` without use, `life_seconds` in all: so long a changed password may still find a connection.

    `kept` per caller and `kept_at_once` per endpoint without use; `at_once` in use per endpoint: who waits for longer
    than `wait_seconds` for one of these is refused.
    `connect_seconds` must be enough to wake an endpoint.
    """

    keep_seconds: float = 20.0
    life_seconds: float = 60.0
    kept: int = 4
    kept_at_once: int = 16
    at_once: int = 32
    wait_seconds: float = 30.0
    connect_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class _Key:
    """Who asks for what: only the same gets a connection again."""

    address: str
    port: int
    user: str
    database: str
    application_name: str
    options: str
    password: bytes


@dataclass(slots=True)
class _Kept:
    session: Session
    born: float
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Door:
    """How many may be in use at an endpoint, how many requests are here because of it, and what is being cleared."""

    places: asyncio.Semaphore
    callers: int = 0
    clearing: defaultdict[_Key, set[asyncio.Task[None]]] = field(default_factory=lambda: defaultdict(set))


class Warm:
    """All connections to all endpoints. It lives in one event loop."""

    def __init__(self, warmth: Warmth) -> None:
        self._warmth = warmth
        self._salt = os.urandom(32)
        self._kept: defaultdict[_Key, list[_Kept]] = defaultdict(list)
        self._kept_at: Counter[tuple[str, int]] = Counter()
        self._doors: dict[tuple[str, int], _Door] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @asynccontextmanager
    async def session(self, target: Target, connection: Connection) -> AsyncIterator[Session]:
        """A connection for one request. Raises SqlFailed, ConnectionLost, TooBusy."""
        key = self._key(target, connection)
        door = self._doors.setdefault((target.address, target.port), _Door(asyncio.Semaphore(self._warmth.at_once)))
        door.callers += 1
        try:
            await self._place(door)
        except BaseException:
            self._leave(key, door, placed=False)
            raise
        try:
            session, born = await self._take(key, door, target, connection)
        except BaseException:
            self._leave(key, door)
            raise
        try:
            yield session
        finally:
            # After the answer, which need not wait for it.
            self._clear(key, door, session, born)

    def _key(self, target: Target, connection: Connection) -> _Key:
        password = hashlib.blake2b(connection.password.encode(), key=self._salt, digest_size=32).digest()
        return _Key(
            target.address,
            target.port,
            connection.user,
            connection.database,
            connection.application_name,
            connection.options,
            password,
        )

    async def _place(self, door: _Door) -> None:
        try:
            async with asyncio.timeout(self._warmth.wait_seconds):
                await door.places.acquire()
        except TimeoutError as error:
            raise TooBusy from error

    def _leave(self, key: _Key, door: _Door, *, placed: bool = True) -> None:
        if placed:
            door.places.release()
        door.callers -= 1
        if not door.callers:
            del self._doors[key.address, key.port]

    async def _take(self, key: _Key, door: _Door, target: Target, connection: Connection) -> tuple[Session, float]:
        while True:
            while kept := self._kept.get(key):
                # The newest: the others may then grow old and go.
                one = kept[-1]
                self._forget(key, one)
                if one.session.usable:
                    return one.session, one.born
                one.session.close()
            if not (clearing := door.clearing.get(key)):
                break
            # Who asks again right after an answer gets the same connection, a moment later, and not a second one.
            await asyncio.wait(clearing, return_when=asyncio.FIRST_COMPLETED)
        session = await connect(target, connection, seconds=self._warmth.connect_seconds)
        return session, asyncio.get_running_loop().time()

    def _clear(self, key: _Key, door: _Door, session: Session, born: float) -> None:
        task = asyncio.get_running_loop().create_task(self._give_back(key, door, session, born))
        door.clearing[key].add(task)
        task.add_done_callback(partial(self._cleared, key, door))

    @staticmethod
    def _cleared(key: _Key, door: _Door, task: asyncio.Task[None]) -> None:
        door.clearing[key].discard(task)
        if not door.clearing[key]:
            del door.clearing[key]

    async def _give_back(self, key: _Key, door: _Door, session: Session, born: float) -> None:
        """Make it as new and keep it, or else end it."""
        left = self._warmth.life_seconds - (asyncio.get_running_loop().time() - born)
        clean = False
        try:
            clean = left > 0 and not self._closed and await session.clear()
        finally:
            if clean:
                self._keep(key, session, born, min(left, self._warmth.keep_seconds))
                self._leave(key, door)
            else:
                task = asyncio.get_running_loop().create_task(self._abandon(key, door, session))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def _abandon(self, key: _Key, door: _Door, session: Session) -> None:
        try:
            await session.abandon()
        finally:
            self._leave(key, door)

    def _keep(self, key: _Key, session: Session, born: float, seconds: float) -> None:
        at_door = (key.address, key.port)
        full = len(self._kept.get(key, ())) >= self._warmth.kept or self._kept_at[at_door] >= self._warmth.kept_at_once
        if self._closed or full:
            session.close()
            return
        self._kept_at[at_door] += 1
        loop = asyncio.get_running_loop()
        one = _Kept(session, born)
        one.timer = loop.call_later(seconds, self._drop, key, one)
        self._kept[key].append(one)
        session.watch(partial(self._drop, key, one))

    def _forget(self, key: _Key, one: _Kept) -> None:
        if one.timer is not None:
            one.timer.cancel()
        one.session.unwatch()
        self._kept[key].remove(one)
        if not self._kept[key]:
            del self._kept[key]
        at_door = (key.address, key.port)
        self._kept_at[at_door] -= 1
        if not self._kept_at[at_door]:
            del self._kept_at[at_door]

    def _drop(self, key: _Key, one: _Kept) -> None:
        self._forget(key, one)
        one.session.close()

    @property
    def kept(self) -> int:
        """Connections that wait for a caller."""
        return sum(len(kept) for kept in self._kept.values())

    async def close(self) -> None:
        """Close what is kept, and whatever comes back later."""
        self._closed = True
        for key, kept in list(self._kept.items()):
            for one in list(kept):
                self._drop(key, one)
        clearing = [task for door in self._doors.values() for tasks in door.clearing.values() for task in tasks]
        await asyncio.gather(*clearing, return_exceptions=True)
        await asyncio.gather(*self._ending, return_exceptions=True)
