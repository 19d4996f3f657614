"""What clients do to an endpoint in one cycle of a soak, well-behaved ones and others.

Pauses are part of what is tried: they reach over the idle timeout, and into the suspension that follows it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from faults.soak_client import Place, Watch, session
from faults.soak_record import Cut, NotServed, Record
from faults.world import DATABASE, ROLE

#: PostgreSQL's numbers for what comes before a protocol.
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
CANCEL = 80877102
PROTOCOL = 3 << 16
HERD = 8
ROWS = 2000
ANSWER_SECONDS = 90.0
#: In which the gateway closes who says nothing: its own deadline is ten.
SILENCE_SECONDS = 30.0
GATEWAY = frozenset({"gateway", "fall"})


def startup(place: Place) -> bytes:
    said = ["user", ROLE, "database", DATABASE, *(("options", place.named) if place.named else ())]
    words = b"".join(word.encode() + b"\0" for word in said) + b"\0"
    return struct.pack("!ii", len(words) + 8, PROTOCOL) + words


def reset(sock: socket.socket) -> None:
    """Close it as a host does that has crashed and come back."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@dataclass
class Visits:
    """By name. Each may raise NotServed and Cut, which are recorded; whatever else it raises is a violation."""

    record: Record
    watch: Watch
    psql: Path
    env: Mapping[str, str]
    http: httpx2.Client
    #: Clients that said nothing and were left alone, and when.
    silent: list[tuple[float, socket.socket]] = field(default_factory=list)

    def pay(self, name: str, place: Place, chance: random.Random) -> None:
        getattr(self, name)(place, chance)
        self.record.count(self.record.visits, name)

    def session(self, place: Place, **options: Any) -> Any:
        return session(place, self.record, self.watch, **options)

    # Those that behave

    def simple(self, place: Place, chance: random.Random) -> None:
        with self.session(place) as guest:
            for _ in range(chance.randint(1, 5)):
                guest.bump()

    def plain(self, place: Place, chance: random.Random) -> None:
        with self.session(place, uri=place.plain) as guest:
            guest.bump()

    def herd(self, place: Place, chance: random.Random) -> None:
        """All at once, at an endpoint that sleeps."""
        with ThreadPoolExecutor(HERD) as pool:
            for one in [pool.submit(self.simple, place, random.Random(chance.random())) for _ in range(HERD)]:
                with contextlib.suppress(NotServed, Cut):
                    one.result()

    def copy(self, place: Place, chance: random.Random) -> None:
        """In and out again, by more than what fits into buffers."""
        rows = [(number, "x" * chance.randint(1, 2000)) for number in range(ROWS)]
        with self.session(place) as guest:
            connection = guest.connection
            connection.execute("create temporary table load (n int, filler text)")
            with connection.cursor() as cursor:
                with cursor.copy("copy load from stdin") as load:
                    for row in rows:
                        load.write_row(row)
                with cursor.copy("copy load to stdout") as out:
                    size = sum(len(piece) for piece in out)
            if size != sum(len(f"{n}\t{filler}\n") for n, filler in rows):
                self.record.violation("COPY lost bytes", endpoint=place.endpoint, size=size)
            guest.bump()

    def cancel(self, place: Place, chance: random.Random) -> None:
        """A statement ends at once, and the session goes on."""
        with self.session(place) as guest:
            over = threading.Event()

            def insist() -> None:
                # One that comes before the statement is for nothing.
                while not over.wait(0.2):
                    with contextlib.suppress(psycopg.Error):
                        guest.connection.cancel_safe(timeout=20)

            asking = threading.Thread(target=insist)
            asking.start()
            try:
                guest.connection.execute("select pg_sleep(50)")
            except psycopg.errors.QueryCanceled:
                pass
            else:
                self.record.violation("a cancel request did nothing", endpoint=place.endpoint)
            finally:
                over.set()
                asking.join()
            # The last one may still be on its way.
            for _ in range(5):
                with contextlib.suppress(psycopg.errors.QueryCanceled):
                    guest.look()
                    break

    def hold(self, place: Place, chance: random.Random) -> None:
        """An idle session keeps its endpoint awake, for longer than the idle timeout."""
        with self.session(place) as guest:
            for _ in range(2):
                _pause(chance.uniform(1.5, 3.0))
                guest.bump()

    def race(self, place: Place, chance: random.Random) -> None:
        """Clients that come about when the endpoint is put to sleep."""
        for _ in range(4):
            self.simple(place, chance)
            _pause(chance.uniform(0.8, 2.4))
        self.simple(place, chance)

    def sql_over_http(self, place: Place, chance: random.Random) -> None:
        begin = time.monotonic()
        place.asked()
        host, port = place.address
        headers = {"Neon-Connection-String": place.uri, "Host": f"{place.host}:{port}"}
        body = {"query": "update counter set n = n + 1 returning n, (select id from me)", "params": []}
        with place.lock:
            slept, place.slept = place.slept, False
        try:
            answer = self.http.post(f"http://{host}:{port}/sql", json=body, headers=headers, timeout=ANSWER_SECONDS)
        except httpx2.TransportError as error:
            raise self.record.broken(place.endpoint, begin, repr(error)) from error
        found = answer.json()
        if not answer.is_success:
            code = f"http {answer.status_code} {found.get('code')}"
            raise self.record.refused(place.endpoint, begin, code=code, message=str(found.get("message")))
        self.record.connected(place.endpoint, begin, slept=slept)
        row = found["rows"][0]
        problem = place.acknowledged(int(row["n"]))
        if problem or row["id"] != place.endpoint:
            self.record.violation("data", endpoint=place.endpoint, problem=problem, row=row)

    def by_pooler(self, place: Place, chance: random.Random) -> None:
        # TLS may end in the gateway here, and then its end is theirs.
        with self.session(place, uri=place.pooled, also=GATEWAY) as guest:
            guest.bump()

    # Those that do not

    def stall(self, place: Place, chance: random.Random) -> None:
        """Some say nothing, half a word, or stop in the midst of TLS; others are served meanwhile."""
        for_postgres = [startup(place)[:-4], SSL_REQUEST]
        silent = []
        for words in chance.sample([b"", struct.pack("!i", 80), *for_postgres], 3):
            with contextlib.suppress(OSError):
                sock = socket.create_connection(place.address, timeout=ANSWER_SECONDS)
                silent.append((words, sock))
                sock.sendall(words)
        try:
            self.simple(place, chance)
        finally:
            for words, sock in silent:
                # Whom Postgres has to wait for may stay for its authentication_timeout, a minute.
                if words in for_postgres or chance.random() < 0.5:
                    reset(sock)
                else:
                    self.silent.append((time.monotonic(), sock))

    def half_close(self, place: Place, chance: random.Random) -> None:
        """One that has nothing more to say still gets the answer, and then the end."""
        begin = time.monotonic()
        with self._asked(place, begin) as sock:
            sock.shutdown(socket.SHUT_WR)
            try:
                while sock.recv(4096):
                    pass
            except TimeoutError:
                self.record.violation("a half-closed connection stays", endpoint=place.endpoint)
            except OSError as error:
                raise self.record.cut(place.endpoint, begin, error=repr(error)) from error
        self.simple(place, chance)

    def walk_away(self, place: Place, chance: random.Random) -> None:
        """They have woken it, and are gone before it can answer."""
        for _ in range(chance.randint(1, 5)):
            with contextlib.suppress(OSError):
                sock = socket.create_connection(place.address, timeout=ANSWER_SECONDS)
                sock.sendall(chance.choice([SSL_REQUEST, startup(place)]))
                _pause(chance.uniform(0.0, 0.1))
                reset(sock)
        self.record.count(self.record.kills, "client walks away")
        self.simple(place, chance)

    def stale_cancel(self, place: Place, chance: random.Random) -> None:
        """A cancel request of nobody is answered with the end, and wakes nobody: the caller looks at that."""
        with contextlib.suppress(OSError), socket.create_connection(place.address, timeout=SILENCE_SECONDS) as sock:
            sock.sendall(struct.pack("!iiii", 16, CANCEL, chance.randrange(1 << 31), chance.randrange(1 << 31)))
            try:
                while sock.recv(64):
                    pass
            except TimeoutError:
                self.record.violation("a cancel request stays", endpoint=place.endpoint)

    def client_killed(self, place: Place, chance: random.Random) -> None:
        """A client's process dies while its statement runs."""
        begin = time.monotonic()
        place.asked()
        words = ["-c", "update counter set n = n + 1 returning n", "-c", "select pg_sleep(1.5)"]
        command = [str(self.psql), place.uri, "-XAtq", "-v", "VERBOSITY=verbose", *words]
        with subprocess.Popen(
            command, env={**os.environ, **self.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as client:
            assert client.stdout is not None
            assert client.stderr is not None
            timer = threading.Timer(ANSWER_SECONDS, client.kill)
            timer.start()
            line = client.stdout.readline()
            timer.cancel()
            if line:
                _pause(chance.uniform(0.0, 0.3))
            client.send_signal(signal.SIGKILL)
            said = client.stderr.read()
        if line:
            self.record.count(self.record.kills, "client")
            if problem := place.acknowledged(int(line)):
                self.record.violation("data", endpoint=place.endpoint, problem=problem)
        else:
            self.record.event("psql", endpoint=place.endpoint, said=said)
            # It may have been refused or cut: which, its own words do not tell without a doubt.
            if not self.record.windows.over(begin, place.endpoint):
                self.record.violation("psql was not served", endpoint=place.endpoint, said=said)
            raise NotServed(said)

    def resets(self, place: Place, chance: random.Random) -> None:
        """A session's connection is reset within a transaction, of which nothing may be left."""
        with self.session(place) as guest:
            guest.bump()
            guest.connection.autocommit = False
            guest.connection.execute("update counter set n = n + 1000000")
            double = socket.socket(fileno=os.dup(guest.connection.fileno()))
            double.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            double.close()
            guest.connection.close()
            self.record.count(self.record.kills, "client's connection")
        self.simple(place, chance)

    def _asked(self, place: Place, begin: float) -> socket.socket:
        """A connection whose startup was answered with the question for a password. Raises NotServed."""
        sock = None
        try:
            sock = socket.create_connection(place.address, timeout=ANSWER_SECONDS)
            sock.sendall(startup(place))
            answer = sock.recv(4096)
        except OSError as error:
            if sock is not None:
                sock.close()
            raise self.record.broken(place.endpoint, begin, repr(error)) from error
        if answer[:1] == b"R":
            self.record.event("asked for a password", endpoint=place.endpoint)
            return sock
        sock.close()
        if answer[:1] == b"E":
            fields = {part[:1]: part[1:].decode() for part in answer[5:].split(b"\0") if part}
            code, message = fields.get(b"C", "?"), fields.get(b"M", "?")
            raise self.record.refused(place.endpoint, begin, code=code, message=message)
        raise self.record.broken(place.endpoint, begin, f"ended after {answer!r}")

    # Afterwards

    def forget_silent(self) -> None:
        """Those that said nothing: the gateway has closed them, or has its time still."""
        for since, sock in self.silent:
            left = max(0.1, since + SILENCE_SECONDS - time.monotonic())
            sock.settimeout(left)
            with contextlib.suppress(ConnectionError):
                try:
                    while sock.recv(4096):
                        pass
                except TimeoutError:
                    self.record.violation("a silent client stays connected", seconds=SILENCE_SECONDS)
            sock.close()
        self.silent.clear()


#: How often each is paid, of a hundred.
WEIGHTS: Mapping[str, int] = {
    "simple": 18,
    "plain": 8,
    "herd": 10,
    "copy": 6,
    "cancel": 8,
    "hold": 6,
    "race": 8,
    "sql_over_http": 6,
    "stall": 6,
    "half_close": 6,
    "walk_away": 6,
    "stale_cancel": 2,
    "client_killed": 6,
    "resets": 4,
}


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


Visit = Callable[[Place, random.Random], None]
