"""Whose turn it is: Neon's limits as the client counts them. Pure; safe to share by threads and by tasks.

The server has a bucket of `capacity` tokens for each limit, which refills at `per_second`; a request takes one when it
arrives. When that is, between being sent and being answered, we do not know. So at any moment each request in flight
may still have to take its token, all of them at once; and as the server's bucket never holds more than its capacity,

    ours never holds more than capacity - in flight.

With that it is never fuller than the server's less what is on its way: a request that we have a token for is not
refused (while nobody else uses the account), however long requests take and in whatever order they arrive. And no
count can be higher and still sure of that, so nothing is held back that could surely be sent.

Waiters are served in the order in which they came, but for those whose own route has no token. One of them, the
oldest, keeps time for all; the others sleep until they are woken.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Protocol

Pacing = Literal["client", "machine", "off"]


@dataclass(frozen=True, slots=True)
class Rate:
    """`capacity` requests at once, refilled at `per_second`."""

    per_second: float
    capacity: float


ACCOUNT: Final = Rate(700 / 60, 700)
ROUTE: Final = Rate(40, 40)
#: Routes with a limit of their own.
ROUTES: Final = {"createOrgApiKey": Rate(10, 10)}

#: The name of the account's own bucket, beside those of routes.
WHOLE: Final = ""

#: We refill this much more slowly than the server, so that rounding never makes a token a moment too early.
_CAUTION: Final = 1 - 1e-9


@dataclass(slots=True)
class Bucket:
    """What is known of one of the server's buckets at the time `at`, in seconds of a monotonic clock."""

    rate: Rate
    tokens: float
    at: float
    flying: int = 0

    def refill(self, now: float) -> None:
        room = self.rate.capacity - self.flying
        passed = max(0.0, now - self.at)
        self.at = max(self.at, now)
        self.tokens = min(room, self.tokens + passed * self.rate.per_second * _CAUTION)

    @property
    def ready(self) -> bool:
        return self.tokens >= 1

    def is_full(self, now: float) -> bool:
        """Whether it is as if it had never been used."""
        self.refill(now)
        return self.flying == 0 and self.tokens >= self.rate.capacity

    def due(self) -> float | None:
        """Seconds until there is a token; None when that takes an answer first."""
        if self.tokens >= 1:
            return 0.0
        if self.rate.capacity - self.flying < 1:
            return None
        # A microsecond more: whoever comes then finds it there, however times are rounded.
        return (1 - self.tokens) / (self.rate.per_second * _CAUTION) + 1e-6

    def take(self) -> None:
        self.tokens -= 1
        self.flying += 1

    def land(self, *, unsent: bool) -> None:
        """A request is over. One that was never sent gives its token back."""
        self.flying = max(0, self.flying - 1)
        if unsent:
            self.tokens += 1


@dataclass(slots=True)
class Buckets:
    """All buckets of an account. Until `hold` nothing is sent: the server said so."""

    account: Rate = ACCOUNT
    route: Rate = ROUTE
    routes: dict[str, Rate] = field(default_factory=lambda: dict(ROUTES))
    hold: float = 0.0
    levels: dict[str, Bucket] = field(default_factory=dict)

    def of(self, name: str, now: float) -> Bucket:
        """The bucket of a route (or of the account), refilled until now; it is full when it was never used."""
        found = self.levels.get(name)
        if found is None:
            rate = self.rate_of(name)
            found = self.levels[name] = Bucket(rate, rate.capacity, now)
        else:
            found.refill(now)
        return found

    def rate_of(self, name: str) -> Rate:
        return self.account if name == WHOLE else self.routes.get(name, self.route)

    def take(self, route: str, now: float) -> None:
        self.of(WHOLE, now).take()
        self.of(route, now).take()

    def land(self, route: str, now: float, *, unsent: bool) -> None:
        for name in (WHOLE, route):
            self.of(name, now).land(unsent=unsent)
            self.of(name, now)

    def refused(self, route: str, now: float, hold: float) -> None:
        """The server says that there were no tokens. It does not say of what, so both are taken to be empty."""
        for name in (WHOLE, route):
            self.of(name, now).tokens = min(0.0, self.of(name, now).tokens)
        self.hold = max(self.hold, now + hold)


class Store(Protocol):
    """Where the buckets are: entered for one change after another, by one thread at a time.

    `poll` is how long to sleep at most when it takes somebody else's answer for a token to come.
    """

    poll: float

    def close(self) -> None: ...

    def __enter__(self) -> Buckets: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class OwnStore:
    """Buckets of this client alone."""

    # Whoever changes something wakes who waits for it: this is for what nobody thought of.
    poll = 30.0

    def __init__(self, buckets: Buckets | None = None) -> None:
        self._buckets = buckets or Buckets()

    def close(self) -> None:
        return None

    def __enter__(self) -> Buckets:
        return self._buckets

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None


class Turn:
    """A request's place in the line, until it was answered."""

    __slots__ = ("_wake", "nudged", "over", "ready", "route")

    def __init__(self, route: str) -> None:
        self.route = route
        self.ready = False
        self.over = False
        self.nudged = False
        self._wake: Callable[[], None] | None = None

    def listen(self, wake: Callable[[], None]) -> None:
        """`wake` is called, from any thread, when it is worth asking `Pacer.wait` again."""
        self._wake = wake
        # It may have been worth it since `wait` answered: then nobody will say so again.
        if self.nudged:
            wake()

    def nudge(self) -> None:
        self.nudged = True
        wake = self._wake
        if wake is not None:
            wake()


class Pacer:
    """Gives turns. Every turn that was entered has to be ended: by `answered`, `unsent` or `refused`."""

    def __init__(self, store: Store | None = None) -> None:
        self._store: Store = store or OwnStore()
        # A generator that is thrown away may end its turn while this very thread is in here: hence the R.
        self._lock = threading.RLock()
        self._lines: dict[str, OrderedDict[Turn, int]] = {}
        self._waiting: OrderedDict[Turn, None] = OrderedDict()
        self._keeper: Turn | None = None
        self._entered = 0

    def enter(self, route: str, now: float) -> Turn:
        """A place in the line; it may be `ready` at once."""
        turn = Turn(route)
        with self._lock:
            self._entered += 1
            self._lines.setdefault(route, OrderedDict())[turn] = self._entered
            self._waiting[turn] = None
            with self._store as buckets:
                woken = self._serve(buckets, now)
        _wake(woken, but=turn)
        return turn

    def wait(self, turn: Turn, now: float) -> float | None:
        """None when it is the turn's time; else how many seconds to wait, if nobody wakes it, before asking again."""
        with self._lock:
            turn.nudged = False
            if turn.ready:
                return None
            with self._store as buckets:
                woken = self._serve(buckets, now)
                seconds = self._due(buckets, now) if turn is self._keeper else None
            left = None if turn.ready else min(self._store.poll if seconds is None else seconds, 60.0)
        _wake(woken, but=turn)
        # A keeper who asks a moment too early would ask again and again.
        return None if left is None else max(left, 1e-4)

    def answered(self, turn: Turn, now: float) -> None:
        """The server has had the request (or may have)."""
        self._end(turn, now, unsent=False)

    def unsent(self, turn: Turn, now: float) -> None:
        """The request never left; one that is still waiting leaves the line."""
        self._end(turn, now, unsent=True)

    def refused(self, turn: Turn, now: float, hold: float) -> None:
        """The server refused it (429) and is to be left alone for `hold` seconds."""
        self._end(turn, now, unsent=False, hold=hold)

    def close(self) -> None:
        """Lets go of what the store holds. A turn may still be given, or end: that opens it again."""
        with self._lock:
            self._store.close()

    def _end(self, turn: Turn, now: float, *, unsent: bool, hold: float | None = None) -> None:
        with self._lock:
            if turn.over:
                return
            turn.over = True
            if not turn.ready:
                self._forget(turn)
            with self._store as buckets:
                if turn.ready:
                    buckets.land(turn.route, now, unsent=unsent)
                if hold is not None:
                    buckets.refused(turn.route, now, hold)
                woken = self._serve(buckets, now) if self._waiting else []
        _wake(woken)

    def _forget(self, turn: Turn) -> None:
        del self._waiting[turn]
        line = self._lines[turn.route]
        del line[turn]
        if not line:
            del self._lines[turn.route]

    def _serve(self, buckets: Buckets, now: float) -> list[Turn]:
        """Gives turns while there are tokens. Returns who is to be woken: they, and who keeps time from now on."""
        woken: list[Turn] = []
        while self._waiting and now >= buckets.hold and buckets.of(WHOLE, now).ready:
            turn = self._next(buckets, now)
            if turn is None:
                break
            self._forget(turn)
            buckets.take(turn.route, now)
            turn.ready = True
            woken.append(turn)
        self._keeper = next(iter(self._waiting), None)
        if self._keeper is not None:
            woken.append(self._keeper)
        return woken

    def _next(self, buckets: Buckets, now: float) -> Turn | None:
        heads = ((next(iter(line.items())), route) for route, line in self._lines.items())
        able = [head for head, route in heads if buckets.of(route, now).ready]
        return min(able, key=lambda head: head[1])[0] if able else None

    def _due(self, buckets: Buckets, now: float) -> float | None:
        """Seconds until a turn can be given."""
        whole = buckets.of(WHOLE, now).due()
        routes = [due for route in self._lines if (due := buckets.of(route, now).due()) is not None]
        if whole is None or not routes:
            return None
        return max(whole, min(routes), buckets.hold - now)


def _wake(turns: Iterable[Turn], but: Turn | None = None) -> None:
    for turn in turns:
        if turn is not but:
            turn.nudge()
