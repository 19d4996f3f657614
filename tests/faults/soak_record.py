"""What a soak sees: when something was being killed, how each connection went, and what must never happen.

Clean is an error of Postgres with a SQLSTATE. A broken connection is excused only by what was killed meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

#: What can be killed. The two of `fall` are killed at once.
Strike: TypeAlias = Literal["postmaster", "relay", "gateway", "platform", "catalog", "fall"]
#: Whose death may reset a connection that is being made: its handshake is carried by them.
BREAKS_CONNECTS = frozenset({"gateway", "relay", "postmaster", "fall"})
#: Whose death may have a connection refused: clients of a gateway that is killed wait for the next one, if a platform
#: is there to start it. The kernel may lead to a postmaster's port until its end is known.
REFUSES_CONNECTS = frozenset({"postmaster", "fall"})
#: Only if both were away at the same time.
TOGETHER = frozenset({"gateway", "platform"})
#: Whose death may end a session that is there already.
CUTS_SESSIONS = frozenset({"relay", "postmaster"})
#: An undisturbed wake that takes longer has hung, and somebody else's doing ended that.
LATE_SECONDS = 30.0
MOST_VIOLATIONS = 200
#: From here on it is not tried any further: something is down for good.
HOPELESS = 50


class NotServed(Exception):
    """A connection was not served; that is recorded already."""


class Cut(Exception):
    """A session ended before its time; that is recorded already."""


@dataclass(slots=True)
class Window:
    """From before a kill until what was killed is back. `endpoint` None: it may hit all of them."""

    kind: Strike
    endpoint: str | None
    begin: float
    end: float = math.inf


class Windows:
    """All kills so far. Times are those of `time.monotonic`."""

    def __init__(self) -> None:
        self._all: list[Window] = []

    @contextlib.contextmanager
    def open(self, kind: Strike, endpoint: str | None = None) -> Iterator[Window]:
        window = Window(kind, endpoint, time.monotonic())
        self._all.append(window)
        try:
            yield window
        finally:
            window.end = time.monotonic()

    def over(self, begin: float, endpoint: str | None) -> frozenset[str]:
        """The kinds of kills that fell between `begin` and now and could be felt at this endpoint."""
        return frozenset(one.kind for one in list(self._all) if one.end >= begin and one.endpoint in (None, endpoint))

    @property
    def seconds(self) -> dict[str, list[float]]:
        """How long each kind was away."""
        found: dict[str, list[float]] = {}
        for one in self._all:
            found.setdefault(one.kind, []).append(round(one.end - one.begin, 3))
        return found


@dataclass
class Record:
    """Counts and logs. Every method may be called from any thread."""

    log: Path
    windows: Windows = field(default_factory=Windows)
    served: int = 0
    attempts: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    visits: Counter[str] = field(default_factory=Counter)
    wakes: list[float] = field(default_factory=list)
    violations: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = field(default_factory=time.monotonic)

    def event(self, event: str, /, **facts: Any) -> None:
        line = json.dumps({"at": round(time.monotonic() - self._began, 3), "event": event, **facts}, default=str)
        with self._lock, self.log.open("a") as log:
            log.write(line + "\n")

    def count(self, counter: Counter[str], name: str) -> None:
        with self._lock:
            counter[name] += 1

    def violation(self, what: str, /, **facts: Any) -> None:
        """Something happened that must not."""
        self.event("VIOLATION", what=what, **facts)
        with self._lock:
            if len(self.violations) < MOST_VIOLATIONS:
                self.violations.append({"at": round(time.monotonic() - self._began, 3), "what": what, **facts})

    @property
    def hopeless(self) -> bool:
        return len(self.violations) >= HOPELESS

    def connected(self, endpoint: str, begin: float, *, slept: bool) -> None:
        """Served: the first row is there. `slept`: it was asleep when the client came."""
        seconds = time.monotonic() - begin
        undisturbed = not self.windows.over(begin, endpoint)
        with self._lock:
            self.attempts += 1
            self.served += 1
            if slept and undisturbed:
                self.wakes.append(seconds)
        self.event("served", endpoint=endpoint, ms=round(seconds * 1000, 1), slept=slept)
        if undisturbed and seconds > LATE_SECONDS:
            self.violation("served too late", endpoint=endpoint, seconds=round(seconds, 1))

    def refused(self, endpoint: str, begin: float, *, code: str, message: str) -> NotServed:
        """A clean error. Without a kill that explains it, it is a violation all the same: nothing was wrong."""
        kills = self.windows.over(begin, endpoint)
        with self._lock:
            self.attempts += 1
            self.errors[code] += 1
        self.event("refused", endpoint=endpoint, code=code, message=message, during=sorted(kills), after=_since(begin))
        if not kills:
            self.violation("refused, though nothing was wrong", endpoint=endpoint, code=code, message=message)
        return NotServed(message)

    def broken(self, endpoint: str, begin: float, message: str) -> NotServed:
        """A connection that got neither a session nor an error of Postgres."""
        kills = self.windows.over(begin, endpoint)
        refused = "Connection refused" in message
        excuses = kills & (REFUSES_CONNECTS if refused and not kills >= TOGETHER else BREAKS_CONNECTS)
        with self._lock:
            self.attempts += 1
            self.excused[",".join(sorted(excuses)) or "nothing"] += 1
        self.event("broken", endpoint=endpoint, message=message, during=sorted(excuses), after=_since(begin))
        if not excuses:
            self.violation(
                "a connection broke without an error", endpoint=endpoint, message=message, after=_since(begin)
            )
        return NotServed(message)

    def cut(self, endpoint: str, begin: float, *, error: str, also: frozenset[str] = frozenset()) -> Cut:
        """A session that ended by itself. `also`: whose death may end this one, beside those that may end any."""
        excuses = self.windows.over(begin, endpoint) & (CUTS_SESSIONS | also)
        self.count(self.cuts, ",".join(sorted(excuses)) or "nothing")
        self.event("cut", endpoint=endpoint, error=error, during=sorted(excuses), after=_since(begin))
        if not excuses:
            self.violation("a session was cut", endpoint=endpoint, error=error, after=_since(begin))
        return Cut(error)


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 3)


def percentiles(seconds: Sequence[float]) -> dict[str, float | int]:
    """In milliseconds."""
    if not seconds:
        return {"n": 0}
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 1)

    return {"n": len(ordered), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)}
