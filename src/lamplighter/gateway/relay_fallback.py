"""The relay in plain Python, where there is no compiled one: `python -m lamplighter.gateway.relay_fallback`.

The same as relay.c, function by function where that reads well in Python. A bare epoll loop: transports and tasks cost
half as much again (measured). Imports nothing that it can do without, for memory.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import resource
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator

from lamplighter.gateway.relay_protocol import (
    BYTES,
    CLOSED,
    COUNTERS,
    CUT,
    HANDOVER,
    HEADER,
    INITIAL,
    LARGEST,
    LINGER,
    PROTOCOL,
    READY,
    REASONS,
    ROW,
    Reason,
)

#: Bytes received at once, and most that wait for a side.
CHUNK = 64 * 1024
#: Full chunks of one side before others get their turn.
IN_A_ROW = 4
#: Control messages before connections get their turn.
MESSAGES = 64
#: Counters in one message.
ROWS = 1024
#: Files to ask for: two a connection. Root may have more than its hard limit.
FILES = 262144

_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_AT_ONCE = struct.pack("ii", 1, 0)
_ALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6))


class Side:
    """One socket of a connection. `waiting` is what it did not take yet, `taken` counts what it did."""

    __slots__ = (
        "conn",
        "finished",
        "hung_up",
        "lost",
        "other",
        "recv",
        "send",
        "sock",
        "taken",
        "told",
        "waiting",
    )

    other: Side

    def __init__(self, conn: Conn, sock: socket.socket, lost: Reason) -> None:
        self.conn = conn
        self.sock = sock
        self.recv = sock.recv
        self.send = sock.send
        self.lost: Reason = lost
        self.waiting: memoryview | None = None
        self.taken = 0
        self.hung_up = self.finished = self.told = False


class Conn:
    """Two sides, and the time at which it ends if nothing more moves (after its backend has closed)."""

    __slots__ = ("backend", "client", "dead", "deadline", "id", "moved")

    def __init__(self, number: int, client: socket.socket, backend: socket.socket) -> None:
        self.id = number
        self.client = Side(self, client, "client_lost")
        self.backend = Side(self, backend, "backend_lost")
        self.client.other = self.backend
        self.backend.other = self.client
        self.dead = False
        self.deadline = 0.0
        self.moved = 0


class Relay:
    """The loop and all that it knows. `control` is closed once the front has closed its end and hears nothing."""

    def __init__(self, control: socket.socket, linger: float) -> None:
        self.control = control
        self.linger = linger
        self.deaf = False
        self.mute = False
        self.conns: dict[int, Conn] = {}
        self.sides: dict[int, Side] = {}
        self.lingering: dict[int, Conn] = {}
        self.again: dict[Side, None] = {}
        self.reports: deque[bytes] = deque()
        self.counting: Iterator[bytes] | None = None
        self.poller = select.epoll()
        self.interest = select.EPOLLIN
        control.setblocking(False)
        self.poller.register(control, self.interest)

    # The end of a connection.

    def end(self, conn: Conn, reason: Reason, *, reset: bool = True) -> None:
        if conn.dead:
            return
        conn.dead = True
        for side in (conn.client, conn.backend):
            with contextlib.suppress(OSError):
                if reset:
                    side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            # By hand: close() leaves it to epoll as long as another process has the same socket.
            with contextlib.suppress(OSError):
                self.poller.unregister(side.sock)
            self.sides.pop(side.sock.fileno(), None)
            self.again.pop(side, None)
            side.sock.close()
            side.waiting = None
        del self.conns[conn.id]
        self.lingering.pop(conn.id, None)
        self.report(conn.id, reason, conn.backend.taken, conn.client.taken)

    def report(self, number: int, reason: Reason, in_: int, out: int) -> None:
        self.reports.append(HEADER.pack(CLOSED, REASONS.index(reason), 0, 0, number) + BYTES.pack(in_, out))

    def set_deadline(self, conn: Conn) -> None:
        conn.deadline = time.monotonic() + self.linger
        conn.moved = conn.client.taken + conn.backend.taken
        self.lingering[conn.id] = conn

    # Bytes.

    def pass_end(self, to: Side) -> None:
        """Pass an end of file on, once all before it was taken."""
        if to.told or to.waiting is not None:
            return
        to.told = True
        if to.other.told:
            self.end(to.conn, "ended", reset=False)
        else:
            with contextlib.suppress(OSError):
                to.sock.shutdown(socket.SHUT_WR)

    def lose(self, side: Side) -> None:
        # Passed on as what it is. But once a side has finished it is no loss: farewells of TLS often meet a reset.
        self.end(side.conn, "ended" if side.finished or side.other.finished else side.lost)

    def last_words(self, from_: Side) -> None:
        """What a side still has to say reaches the other one: a Postgres that ends a session says why, then resets."""
        to = from_.other
        with contextlib.suppress(OSError):
            while to.waiting is None:
                said = from_.recv(CHUNK)
                from_.finished = from_.finished or not said
                sent = to.send(said) if said else 0
                to.taken += sent
                if not said or sent < len(said):
                    return

    def give(self, to: Side, content: bytes) -> bool:
        """False: it is not there any more."""
        try:
            sent = to.send(content)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.last_words(to)
            self.lose(to)
            return False
        to.taken += sent
        if sent < len(content):
            to.waiting = memoryview(content[sent:])
        return True

    def pump(self, from_: Side) -> None:
        """Move what has come. Edges are not repeated: read until nothing is left, or have another turn."""
        to = from_.other
        for _ in range(IN_A_ROW):
            if to.waiting is not None or from_.finished or from_.conn.dead:
                return
            try:
                got = from_.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                self.lose(from_)
                return
            if not got:
                from_.finished = True
                self.pass_end(to)
                return
            # Less than asked for is all there was, and spares a call that says so.
            if not self.give(to, got) or (len(got) < CHUNK and not from_.hung_up):
                return
        self.again[from_] = None

    def flush(self, to: Side) -> None:
        """Send what waits for a side; then the other one may be read again."""
        assert to.waiting is not None
        try:
            sent = to.send(to.waiting)
        except BlockingIOError:
            return
        except OSError:
            to.waiting = None
            self.last_words(to)
            self.lose(to)
            return
        to.taken += sent
        to.waiting = to.waiting[sent:] if sent < len(to.waiting) else None
        if to.waiting is not None:
            return
        if to.other.finished:
            self.pass_end(to)
        else:
            self.pump(to.other)

    def on_events(self, side: Side, events: int) -> None:
        if events & select.EPOLLOUT and side.waiting is not None:
            self.flush(side)
        if side.conn.dead:
            return
        if events & _ENDS:
            # Known here, though its end of file is not read while the client takes nothing.
            if side is side.conn.backend and not side.hung_up:
                self.set_deadline(side.conn)
            side.hung_up = True
        if events & (select.EPOLLIN | _ENDS):
            self.pump(side)
        # It may be reset while it is not read, because the other side takes nothing, or after its end of file.
        if events & select.EPOLLERR and not side.conn.dead and side not in self.again:
            self.lose(side)

    # The control socket.

    def watch_control(self) -> None:
        if self.control.fileno() < 0:
            return
        if self.deaf and self.mute:
            # It would be reported as hung up for ever.
            self.poller.unregister(self.control)
            self.control.close()
            return
        busy = self.reports or self.counting
        wanted = select.EPOLLOUT if busy else 0 if self.deaf else select.EPOLLIN
        if wanted != self.interest:
            self.poller.modify(self.control, wanted)
            self.interest = wanted

    def tell(self, content: bytes) -> bool:
        """False: not now."""
        if self.mute:
            return True
        try:
            self.control.send(content)
        except OSError as error:
            # A host without memory may have some again.
            if error.errno in {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}:
                return False
            self.mute = True
        return True

    def send_reports(self) -> None:
        while self.reports and self.tell(self.reports[0]):
            self.reports.popleft()

    def counters(self, number: int) -> Iterator[bytes]:
        """The messages of one answer; a connection that ends meanwhile may be in it."""
        rows = [ROW.pack(conn.id, conn.backend.taken, conn.client.taken) for conn in self.conns.values()]
        for start in range(0, max(1, len(rows)), ROWS):
            part = rows[start : start + ROWS]
            yield HEADER.pack(COUNTERS, len(part), start + ROWS >= len(rows), 0, number) + b"".join(part)

    def send_counters(self) -> None:
        while self.counting:
            content = next(self.counting, None)
            if content is None:
                self.counting = None
            elif not self.tell(content):
                rest = self.counting
                self.counting = _chained(content, rest)
                return

    def begin(self, number: int, fds: list[int], content: bytes, length: int) -> None:
        """Takes the fds, of which some may be missing: the kernel leaves them out when this process has too many."""
        socks = []
        for fd in fds:
            try:
                socks.append(socket.socket(fileno=fd))
            except OSError:
                os.close(fd)
        if len(socks) != 2:
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                sock.close()
            self.report(number, "exhausted", 0, 0)
            return
        conn = self.conns[number] = Conn(number, *socks)
        for sock in socks:
            _prepare(sock)
        try:
            for side in (conn.client, conn.backend):
                self.poller.register(side.sock, _EDGES)
                self.sides[side.sock.fileno()] = side
        except OSError:
            self.end(conn, "exhausted")
            return
        if length and not self.give(conn.backend, content[:length]):
            return
        if len(content) > length:
            self.give(conn.client, content[length:])

    def on_message(self, content: bytes, fds: list[int]) -> None:
        if len(content) >= HEADER.size:
            kind, a, b, _, number = HEADER.unpack_from(content)
            rest = len(content) - HEADER.size
            if kind == HANDOVER and a <= INITIAL and b <= INITIAL and rest == a + b and number not in self.conns:
                self.begin(number, fds, content[HEADER.size :], a)
                return
            if kind == CUT and not rest and number in self.conns:
                self.end(self.conns[number], "cut")
            elif kind == COUNTERS and not rest:
                self.counting = self.counters(number)
                self.send_counters()
        for fd in fds:
            os.close(fd)

    def receive_message(self) -> bool:
        """False: nothing more now."""
        fds = array.array("i")
        try:
            content, rights, _, _ = self.control.recvmsg(LARGEST, socket.CMSG_LEN(2 * fds.itemsize))
        except ConnectionResetError:
            # Messages of a front that is gone may still be there.
            self.mute = True
            return True
        except OSError:
            return False
        for level, kind, given in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(given[: len(given) - len(given) % fds.itemsize])
        if not content:
            self.deaf = True
            return False
        self.on_message(content, list(fds))
        return True

    def on_control(self, events: int) -> None:
        if self.deaf and events & select.EPOLLHUP:
            self.mute = True
        self.send_reports()
        if not self.reports:
            self.send_counters()
        for _ in range(MESSAGES):
            if self.deaf or self.reports or self.counting or not self.receive_message():
                return

    # The loop.

    def patience(self) -> float | None:
        if self.again:
            return 0
        if not self.lingering:
            return None
        return max(0.0, next(iter(self.lingering.values())).deadline - time.monotonic())

    def expire(self) -> None:
        now = time.monotonic()
        while self.lingering:
            conn = next(iter(self.lingering.values()))
            if conn.deadline > now:
                return
            if conn.moved == conn.client.taken + conn.backend.taken:
                self.end(conn, "ended" if conn.client.told else "client_lost", reset=not conn.client.told)
            else:
                del self.lingering[conn.id]
                self.set_deadline(conn)

    def next_turns(self) -> None:
        sides = list(self.again)
        self.again.clear()
        for side in sides:
            if not side.conn.dead:
                self.pump(side)

    def serve(self, room: int) -> None:
        self.tell(HEADER.pack(READY, PROTOCOL, room, 0, 0))
        control = self.control.fileno()
        sides = self.sides
        while self.conns or not self.deaf or (self.reports and not self.mute):
            heard = 0
            # An fd that is closed in this round is opened again only by a control message, and those come last.
            for fd, events in self.poller.poll(self.patience(), 256):
                if fd == control:
                    heard = events
                elif side := sides.get(fd):
                    self.on_events(side, events)
            if heard:
                self.on_control(heard)
            if self.again:
                self.next_turns()
            if self.lingering:
                self.expire()
            if self.reports:
                self.send_reports()
            self.watch_control()


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _prepare(sock: socket.socket) -> None:
    """Find out about peers that have vanished, and send small pieces at once.

    The end of a backend that had much to say stays behind that while the client takes nothing. Its kernel gives up
    after some minutes, without a word: only an answer to keepalive tells.
    """
    sock.setblocking(False)
    # Unix sockets know none of these, and need none.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _ALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def raise_limit() -> int:
    """As many files as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, FILES), hard):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
    return hard


def become(user: int, group: int) -> None:
    """Give up root's rights, for ever; the kernel then lets nobody of that user look into it. Raises OSError."""
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def main(words: list[str]) -> None:
    # Two a connection, and a few of our own.
    room = max(0, raise_limit() - 16) // 2
    if len(words) > 3:
        become(int(words[2]), int(words[3]))
    control = socket.socket(fileno=int(words[0]) if words else 3)
    Relay(control, float(words[1]) if len(words) > 1 else LINGER).serve(room)


if __name__ == "__main__":
    main(sys.argv[1:])
