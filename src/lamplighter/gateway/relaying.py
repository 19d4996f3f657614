"""The front's side of the relay: a process of its own that moves the bytes of connections handed to it.

The relay is a compiled program (`relay.c`) where one was built, else `relay_fallback.py`; both speak what
`relay_protocol.py` tells. It lives in a session of its own and outlives the front, until its last connection ends.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lamplighter.gateway.errors import RelayFailed, RelayGone
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

#: What cannot be sent now, and can later: more fds are on their way than the kernel lets one user have, or no memory.
SHORT = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
#: Seconds until another try then.
RETRY = 0.02
#: Messages read in a row before other work of the loop gets its turn.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Ended:
    """A connection that is over: bytes `in_` reached the backend, bytes `out` the client, the first ones included."""

    id: int
    in_: int
    out: int
    reason: Reason


@dataclass(slots=True)
class _Message:
    content: bytes
    fds: tuple[int, ...] = ()


@dataclass(slots=True)
class _Asked:
    answer: asyncio.Future[dict[int, tuple[int, int]]]
    rows: dict[int, tuple[int, int]] = field(default_factory=dict)


def program() -> Path | None:
    """The compiled relay of this installation; None if there was no C compiler when it was built."""
    path = Path(__file__).with_name("_relay")
    return path if os.access(path, os.X_OK) else None


def command() -> list[str]:
    """How to start a relay. `LAMP_RELAY=python` takes the fallback, `LAMP_RELAY=/path` a program elsewhere."""
    wanted = os.environ.get("LAMP_RELAY", "")
    if wanted and wanted != "python":
        return [wanted]
    found = None if wanted == "python" else program()
    return [str(found)] if found else [sys.executable, "-m", "lamplighter.gateway.relay_fallback"]


def _other_user() -> list[str]:
    """Who a relay of root's is to become, as its last arguments: `LAMP_RELAY_USER=uid:gid`."""
    wanted = os.environ.get("LAMP_RELAY_USER", "")
    return [str(int(word)) for word in wanted.split(":", 1)] if wanted and os.geteuid() == 0 else []


class Relay:
    """One relay process, driven from one event loop. Nothing here blocks: what the relay cannot take yet is queued.

    `kind` is "compiled" or "python", `pid` the process, `capacity` how many connections its limit of files allows: more
    would be reported as "exhausted", so whoever hands over compares it with `open`. Callbacks run in the event loop
    and must not raise.
    """

    def __init__(self, control: socket.socket, process: subprocess.Popen[bytes], kind: str) -> None:
        """Use `start`."""
        self.kind = kind
        self.pid = process.pid
        self.capacity = 0
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Message] = deque()
        self._writing = False
        self._open: set[int] = set()
        self._asked: dict[int, _Asked] = {}
        self._asks = 0
        self._tell_closed: Callable[[Ended], object] = lambda _: None
        self._tell_death: Callable[[], object] = lambda: None
        self._closing = False
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._sent = asyncio.Event()
        # A thread, because neither the loop nor this object may live as long as the relay does.
        self._reaper = threading.Thread(target=process.wait, name="relay", daemon=True)
        self._reaper.start()
        self._loop.add_reader(control, self._on_readable)

    @classmethod
    async def start(cls, argv: list[str] | None = None, *, linger: int = LINGER, within: float = 10.0) -> Relay:
        """Start one, in a session of its own, with this process's stderr. Raises RelayFailed."""
        argv = command() if argv is None else argv
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * LARGEST)
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - a vfork; asyncio's would kill the relay with its loop
                [*argv, str(theirs.fileno()), str(linger), *_other_user()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise RelayFailed(f"The relay {argv[0]} did not start: {error}.") from error
        finally:
            theirs.close()
        relay = cls(ours, process, "python" if "-m" in argv else "compiled")
        try:
            async with asyncio.timeout(within):
                await relay._ready
        except (TimeoutError, RelayGone) as error:
            await relay.close()
            raise RelayFailed(f"The relay {argv[0]} did not say that it is ready.") from error
        return relay

    @property
    def alive(self) -> bool:
        """Whether connections can be handed to it."""
        return not (self._closing or self._gone.is_set())

    @property
    def open(self) -> int:
        """Connections that it has now, or will have."""
        return len(self._open)

    def on_closed(self, callback: Callable[[Ended], object]) -> None:
        """Call this once for each connection that ends; when the relay dies, for all it had."""
        self._tell_closed = callback

    def on_death(self, callback: Callable[[], object]) -> None:
        """Call this when the relay ends though nobody closed it, after all of its connections were told as closed."""
        self._tell_death = callback

    def hand_over(
        self,
        number: int,
        client: socket.socket,
        backend: socket.socket,
        *,
        to_backend: bytes = b"",
        to_client: bytes = b"",
    ) -> None:
        """Give two connected TCP or Unix sockets away: they are closed here, also if the relay dies before it has them.

        `number` must not be in use. Raises ValueError for more than `INITIAL` first bytes, and RelayGone; then the
        sockets stay with the caller.
        """
        if len(to_backend) > INITIAL or len(to_client) > INITIAL or number in self._open:
            raise ValueError(f"connection {number}: {len(to_backend)} and {len(to_client)} first bytes")
        if not self.alive:
            raise RelayGone
        header = HEADER.pack(HANDOVER, len(to_backend), len(to_client), 0, number)
        self._open.add(number)
        self._send(_Message(header + to_backend + to_client, (client.detach(), backend.detach())))

    def cut(self, number: int) -> None:
        """Reset both sides of a connection; it is reported as any. Nothing happens if it is over."""
        if self.alive and number in self._open:
            self._send(_Message(HEADER.pack(CUT, 0, 0, 0, number)))

    async def counters(self) -> dict[int, tuple[int, int]]:
        """Bytes in and out so far of each open connection, by number. Raises RelayGone."""
        if not self.alive:
            raise RelayGone
        self._asks += 1
        asked = self._asked[self._asks] = _Asked(self._loop.create_future())
        self._send(_Message(HEADER.pack(COUNTERS, 0, 0, 0, self._asks)))
        return await asked.answer

    async def close(self, *, cut: bool = True) -> None:
        """Hand over no more. `cut`: end all connections, and wait for the relay's end; else let it finish them alone.

        Queued connections are handed over first. Those that it finishes alone are not reported.
        """
        if not self._gone.is_set() and not self._closing:
            for number in self._open if cut else ():
                self._send(_Message(HEADER.pack(CUT, 0, 0, 0, number)))
            self._closing = True
            self._end_if_sent()
        if cut:
            await self._gone.wait()
            await asyncio.to_thread(self._reaper.join)
            return
        await self._sent.wait()
        if not self._gone.is_set():
            self._loop.remove_reader(self._control)
            self._control.close()
            self._gone.set()

    def _send(self, message: _Message) -> None:
        self._queue.append(message)
        if not self._writing:
            self._flush()

    def _flush(self) -> None:
        """Send what can be sent at once; go on when the socket takes more."""
        while self._queue:
            message = self._queue[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.fds))] if message.fds else []
            try:
                self._control.sendmsg([message.content], rights)
            except BlockingIOError:
                self._wait_writable(True)
                return
            except OSError as error:
                self._wait_writable(False)
                if error.errno in SHORT:
                    self._writing = True
                    self._loop.call_later(RETRY, self._again)
                # else the relay is gone, which the reader learns too, in order after the last reports
                return
            self._queue.popleft()
            _close_all(message)
        self._wait_writable(False)
        self._end_if_sent()

    def _end_if_sent(self) -> None:
        if self._closing and not self._queue:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
            self._sent.set()

    def _again(self) -> None:
        self._writing = False
        if not self._gone.is_set():
            self._flush()

    def _wait_writable(self, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self._control, self._flush)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._control)
        self._writing = wanted

    def _on_readable(self) -> None:
        for _ in range(_BATCH):
            try:
                message = self._control.recv(LARGEST)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._on_end()
                return
            self._receive(message)

    def _receive(self, message: bytes) -> None:
        kind, a, b, _, number = HEADER.unpack_from(message)
        if kind == CLOSED:
            in_, out = BYTES.unpack_from(message, HEADER.size)
            self._report(number, in_, out, REASONS[a])
        elif kind == COUNTERS and number in self._asked:
            asked = self._asked[number]
            asked.rows.update((row[0], (row[1], row[2])) for row in ROW.iter_unpack(message[HEADER.size :]))
            if b:
                del self._asked[number]
                if not asked.answer.done():
                    asked.answer.set_result(asked.rows)
        elif kind == READY and a == PROTOCOL and not self._ready.done():
            self.capacity = b
            self._ready.set_result(None)

    def _report(self, number: int, in_: int, out: int, reason: Reason) -> None:
        if number in self._open:
            self._open.remove(number)
            self._tell_closed(Ended(number, in_, out, reason))

    def _on_end(self) -> None:
        """The relay has closed the socket, which is the last thing it does."""
        self._wait_writable(False)
        self._loop.remove_reader(self._control)
        self._control.close()
        self._gone.set()
        for message in self._queue:
            _close_all(message)
        self._queue.clear()
        self._sent.set()
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(RelayGone())
        self._asked.clear()
        if not self._ready.done():
            self._ready.set_exception(RelayGone())
            return
        for number in list(self._open):
            self._report(number, 0, 0, "relay_died")
        if not self._closing:
            self._tell_death()


def _close_all(message: _Message) -> None:
    for fd in message.fds:
        with contextlib.suppress(OSError):
            os.close(fd)
