"""One client, many tasks and threads: limits are kept to, and whatever is cancelled leaves nothing behind."""

import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from lamplighter import AsyncNeon, Neon
from lamplighter.client import errors
from lamplighter.client._async.sender import AsyncSender
from lamplighter.client._sync.sender import Sender
from lamplighter.client.pacing import WHOLE, Buckets, OwnStore, Pacer, Rate
from support.both import KEY
from support.scripted import Scripted, answer


def run(main: Callable[[], Awaitable[object]], backend: str) -> None:
    """In a thread of its own: fixtures of other modules may keep an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(anyio.run, main, backend=backend).result()


LIMITS = {"account": Rate(300, 60), "route": Rate(150, 20)}
EMPTY = {"projects": [], "applications": {}, "integrations": {}}


class Limiter:
    """A server that enforces limits, and takes a moment for each answer."""

    def __init__(self, pause=0.002, **limits):
        self.server = Scripted(self.step)
        self.buckets = Buckets(**limits)
        self.pause = pause
        self.lock = threading.Lock()
        self.statuses = Counter()

    def step(self, connection, asked):
        self.server.pause(random.uniform(0, self.pause))
        route = asked.target.partition("?")[0]
        with self.lock:
            now = time.monotonic()
            levels = [self.buckets.of(name, now) for name in (WHOLE, route)]
            # As the server's own limiter: only the count, nothing of what is in flight.
            good = all(level.tokens >= 1 for level in levels)
            for level in levels:
                level.tokens -= good
        self.server.pause(random.uniform(0, self.pause))
        status = 200 if good else 429
        self.statuses[status] += 1
        connection.sendall(answer(status, EMPTY if good else {"code": "", "message": "rate limit"}))


def with_pacer(neon, sender, pacer):
    neon._use(sender(neon._sender.driver, neon._sender.options, pacer))
    return neon


def books(store):
    with store as buckets:
        return {name: level.flying for name, level in buckets.levels.items()}


def test_threads_share_one_client():
    limiter = Limiter(**LIMITS)
    store = OwnStore(Buckets(**LIMITS))
    failed = []

    def work(neon):
        try:
            for number in range(12):
                neon.request("GET", f"/route/{number % 2}")
        except errors.NeonError as error:
            failed.append(error)

    with limiter.server, Neon(api_key=KEY, base_url=limiter.server.url) as neon:
        with_pacer(neon, Sender, Pacer(store))
        threads = [threading.Thread(target=work, args=(neon,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert limiter.statuses == {200: 16 * 12}
    assert set(books(store).values()) == {0}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks_share_one_client(backend):
    limiter = Limiter(**LIMITS)
    store = OwnStore(Buckets(**LIMITS))

    async def main():
        async with AsyncNeon(api_key=KEY, base_url=limiter.server.url) as neon, anyio.create_task_group() as group:
            with_pacer(neon, AsyncSender, Pacer(store))
            for number in range(200):
                group.start_soon(neon.request, "GET", f"/route/{number % 2}")

    with limiter.server:
        run(main, backend)
    assert limiter.statuses == {200: 200}
    assert set(books(store).values()) == {0}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_cancelled_leaves_nothing_behind(backend, seed):
    """Calls are cancelled wherever they are: in the line, connecting, sending, reading. Then others are made."""
    chance = random.Random(seed)
    # A server with more patience than we have tokens: what is cancelled may have taken one there.
    limiter = Limiter(pause=0.02, account=Rate(1e9, 1e9), route=Rate(1e9, 1e9))
    store = OwnStore(Buckets(account=Rate(500, 30), route=Rate(300, 10)))
    ended = Counter()

    async def some(neon, seconds):
        with anyio.move_on_after(seconds) as scope:
            await neon.request("GET", "/route/1")
        ended[scope.cancelled_caught] += 1

    async def main():
        async with AsyncNeon(api_key=KEY, base_url=limiter.server.url) as neon:
            with_pacer(neon, AsyncSender, Pacer(store))
            async with anyio.create_task_group() as group:
                for number in range(120):
                    # Some have all the time they want and some have none, however fast this machine is.
                    seconds = (None, 0.0, chance.uniform(0, 0.3), chance.uniform(0, 0.3))[number % 4]
                    group.start_soon(some, neon, seconds)
            pool = neon._sender.driver._http._transport._pool
            assert pool._requests == []
            assert all(connection.is_idle() for connection in pool.connections)
            assert set(books(store).values()) == {0}
            for _ in range(5):
                assert (await neon.request("GET", "/route/1")).parse() == EMPTY

    with limiter.server:
        run(main, backend)
    assert ended[True] > 5
    assert ended[False] > 5


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_deadline_in_the_line_gives_the_place_back(backend):
    limiter = Limiter(pause=0.0, account=Rate(1e9, 1e9), route=Rate(1e9, 1e9))
    store = OwnStore(Buckets(account=Rate(1, 1), route=Rate(1, 1)))
    pacer = Pacer(store)

    async def main():
        async with AsyncNeon(api_key=KEY, base_url=limiter.server.url, deadline=0.1) as neon:
            with_pacer(neon, AsyncSender, pacer)
            await neon.request("GET", "/x")
            with pytest.raises(errors.DeadlineExceeded) as caught:
                await neon.request("POST", "/x")
            assert not caught.value.sent

    with limiter.server:
        run(main, backend)
    assert not pacer._waiting
    assert limiter.server.methods == ["GET"]


def test_a_deadline_in_the_line_of_threads_gives_the_place_back():
    limiter = Limiter(pause=0.0, account=Rate(1e9, 1e9), route=Rate(1e9, 1e9))
    pacer = Pacer(OwnStore(Buckets(account=Rate(1, 1), route=Rate(1, 1))))
    with limiter.server, Neon(api_key=KEY, base_url=limiter.server.url, deadline=0.1) as neon:
        with_pacer(neon, Sender, pacer)
        neon.request("GET", "/x")
        with pytest.raises(errors.DeadlineExceeded):
            neon.request("POST", "/x")
    assert not pacer._waiting


def test_a_view_shares_the_line():
    with Neon(api_key=KEY, base_url="http://127.0.0.1:1") as neon:
        view = neon.with_options(deadline=1)
        assert view._sender.pacer is neon._sender.pacer
        assert view._sender.driver is neon._sender.driver
        assert view.projects is not neon.projects
        assert neon._sender.options.deadline is None
        assert view.with_options(deadline=float("inf"))._sender.options.deadline is None
