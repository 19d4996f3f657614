"""The clients of a soak: connections of libpq that tell the SQLSTATE of a refusal, and what a session is to find.

libpq keeps the code of a refused connection to itself unless it is asked for before the connection is made, for which
psycopg has no call: its own copy of libpq is asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import pq

from faults.soak_record import Record

#: Longer than the gateway waits for a wake.
CONNECT_SECONDS = 90.0
SESSION_SECONDS = 60.0
LOOPBACK = "127.0.0.1"
BY_DOMAIN = f"&hostaddr={LOOPBACK}"
_VERBOSE = 2
_FATAL = re.compile(r"(?:FATAL|ERROR|PANIC):  ([0-9A-Z]{5}): ([^\n]*(?:\nDETAIL:[^\n]*)?)")
#: With these a server ends a session, all of whose text may come before the end itself.
_ENDINGS = {"57P01", "57P02", "57P03"}


def _libpq() -> ctypes.CDLL:
    names = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libpq" in line}
    library = ctypes.CDLL(min(names))
    library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


_LIBPQ = _libpq()

Connection = psycopg.Connection[tuple[object, ...]]


class Refused(Exception):
    """An error of Postgres."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class Broken(Exception):
    """The connection ended without one."""


def connect(uri: str) -> Connection:
    """A session with autocommit. Raises Refused, Broken; TimeoutError is a Broken one."""
    connecting = pq.PGconn.connect_start(uri.encode())
    _LIBPQ.PQsetErrorVerbosity(connecting.pgconn_ptr, _VERBOSE)
    until = time.monotonic() + CONNECT_SECONDS
    while (polled := connecting.connect_poll()) in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        poller = select.poll()
        poller.register(connecting.socket, select.POLLIN if polled == pq.PollingStatus.READING else select.POLLOUT)
        if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
            connecting.finish()
            raise Broken(f"no answer in {CONNECT_SECONDS:g} s")
    if polled != pq.PollingStatus.OK:
        message = connecting.get_error_message()
        connecting.finish()
        if found := _FATAL.search(message):
            raise Refused(found[1], found[2])
        raise Broken(message.strip())
    connecting.nonblocking = 1
    connection: Connection = psycopg.Connection(connecting)
    connection.autocommit = True
    return connection


def reached(uri: str, *, by_domain: bool) -> str:
    """The same, without a name server for the domain."""
    return uri + BY_DOMAIN if by_domain else uri


@dataclass
class Place:
    """One endpoint, and what its counter may say: `low` was acknowledged, `high` asked for."""

    number: int
    project: str
    branch: str
    endpoint: str
    uri: str
    pooled: str | None = None
    low: int = 0
    high: int = 0
    slept: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Whoever has a cycle with it.
    turn: threading.Lock = field(default_factory=threading.Lock)
    _seen: set[int] = field(default_factory=set)

    @property
    def path(self) -> str:
        return f"/projects/{self.project}/endpoints/{self.endpoint}"

    @property
    def host(self) -> str:
        return urlsplit(self.uri).hostname or ""

    @property
    def address(self) -> tuple[str, int]:
        return LOOPBACK if self.named else self.host, urlsplit(self.uri).port or 5432

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """All: past the gateway the kernel may lead who comes to the first, never who comes to the pooled one."""
        pooled = urlsplit(self.pooled or self.uri).port or 5432
        return list(dict.fromkeys((self.address, (self.address[0], pooled))))

    @property
    def named(self) -> str | None:
        """What tells endpoints apart at the one port of a domain where TLS does not; None at ports of their own."""
        return f"endpoint={self.endpoint}" if self.uri.endswith(BY_DOMAIN) else None

    @property
    def plain(self) -> str:
        """Without TLS, to which channels are bound."""
        base = self.uri.partition("?")[0]
        return f"{base}?sslmode=disable" + (f"&options={quote(self.named)}{BY_DOMAIN}" if self.named else "")

    def asked(self) -> None:
        with self.lock:
            self.high += 1

    def acknowledged(self, value: int) -> str | None:
        """What is wrong with this answer to an increment, if anything is."""
        with self.lock:
            if value in self._seen:
                return f"{value} was given before: a commit is lost"
            if value > self.high:
                return f"{value} is more than the {self.high} that were asked for"
            self._seen.add(value)
            self.low = max(self.low, value)
            return None


@dataclass
class Guest:
    """One session at an endpoint."""

    place: Place
    connection: Connection
    record: Record

    def bump(self) -> int:
        """Commit one more."""
        self.place.asked()
        (value,) = self.connection.execute("update counter set n = n + 1 returning n").fetchone() or (0,)
        assert isinstance(value, int)
        if problem := self.place.acknowledged(value):
            self.record.violation("data", endpoint=self.place.endpoint, problem=problem)
        return value

    def look(self) -> None:
        """Is this the endpoint, with all that was committed?"""
        low = self.place.low
        row = self.connection.execute("select (select id from me), (select n from counter)").fetchone()
        assert row is not None
        name, value = row
        assert isinstance(value, int)
        if name != self.place.endpoint:
            self.record.violation("another endpoint answered", endpoint=self.place.endpoint, answered=name)
        elif not low <= value <= self.place.high:
            problem = f"{value} is not between {low} and {self.place.high}"
            self.record.violation("data", endpoint=self.place.endpoint, problem=problem)


class Watch:
    """Ends sessions that hang, which is a violation: whoever waits for an answer cannot say so itself."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._sessions: dict[int, tuple[float, socket.socket, str]] = {}

    @contextlib.contextmanager
    def over(self, connection: Connection, endpoint: str) -> Iterator[None]:
        # A descriptor of our own: libpq may close its one, and somebody else get the number.
        double = socket.socket(fileno=os.dup(connection.fileno()))
        key = id(double)
        with self._lock:
            self._sessions[key] = (time.monotonic() + SESSION_SECONDS, double, endpoint)
        try:
            yield
        finally:
            with self._lock:
                self._sessions.pop(key, None)
            double.close()

    def look(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [key for key, (until, _, _) in self._sessions.items() if until < now]
            for key in late:
                _, double, endpoint = self._sessions.pop(key)
                self._record.violation("a session got no answer", endpoint=endpoint, seconds=SESSION_SECONDS)
                with contextlib.suppress(OSError):
                    double.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def session(
    place: Place, record: Record, watch: Watch, *, uri: str | None = None, also: frozenset[str] = frozenset()
) -> Iterator[Guest]:
    """A served connection whose first row was right. Raises NotServed; Cut if it ends meanwhile."""
    begin = time.monotonic()
    with place.lock:
        slept, place.slept = place.slept, False
    try:
        connection = connect(uri or place.uri)
    except Refused as error:
        raise record.refused(place.endpoint, begin, code=error.code, message=str(error)) from error
    except Broken as error:
        raise record.broken(place.endpoint, begin, str(error)) from error
    try:
        with watch.over(connection, place.endpoint):
            guest = Guest(place, connection, record)
            guest.look()
            record.connected(place.endpoint, begin, slept=slept)
            yield guest
    except psycopg.OperationalError as error:
        if not (connection.closed or connection.broken or error.sqlstate in _ENDINGS):
            raise
        raise record.cut(place.endpoint, begin, error=f"{error.sqlstate or ''} {error}".strip(), also=also) from error
    finally:
        connection.close()
