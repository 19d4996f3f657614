"""Bytes both ways between two streams, one of which does not end at the relay's sockets: TLS that ends here.

By callbacks, and not by two tasks that wait in turn: for each read a task costs a future and three system calls more.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Callable

from lamplighter.gateway.relay_protocol import LINGER
from lamplighter.gateway.streams import LARGE, Stream

#: Seconds for a client to close, after its server has.
_CLOSE_SECONDS = 10.0
_AT_ONCE = struct.pack("ii", 1, 0)
_NOT_NOW = (BlockingIOError, InterruptedError)


class _Way:
    """From one stream to another. Nothing is read while a piece waits to be taken."""

    def __init__(self, source: Stream, sink: Stream) -> None:
        self.count = 0
        #: Of these, and of what TLS makes of them, the bytes that the sink's socket has taken.
        self.taken = 0
        #: Done once the sink has been told that nothing more comes.
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Sees what passes, until it is done with that.
        self.listener: Callable[[bytes], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._sink = sink
        self._waiting = b""
        self._ended = False
        self._blocked = False

    def start(self) -> None:
        """With what was read ahead."""
        self._loop.add_reader(self._source.sock, self._read)
        ahead = self._source.take()
        more, ended = self._source.open(b"")
        self._pass_on(ahead + more, ended)

    def stop(self) -> None:
        self._loop.remove_reader(self._source.sock)
        self._loop.remove_writer(self._sink.sock)
        self.over.cancel()

    def _read(self) -> None:
        try:
            raw = self._source.sock.recv(LARGE)
        except _NOT_NOW:
            return
        except OSError:
            raw = b""
        data, ended = self._source.open(raw) if raw else (b"", True)
        self._pass_on(data, ended)

    def _pass_on(self, data: bytes, ended: bool) -> None:
        if data:
            if self.listener is not None:
                self.listener(data)
            self.count += len(data)
            self._waiting = self._sink.seal(data)
        if ended:
            self._ended = True
            self._loop.remove_reader(self._source.sock)
            self._waiting += self._sink.farewell()
        self._write()

    def _write(self) -> None:
        if self._waiting:
            try:
                sent = self._sink.sock.send(self._waiting)
            except _NOT_NOW:
                sent = 0
            except OSError:
                self._finish()
                return
            self.taken += sent
            self._waiting = self._waiting[sent:]
        if self._waiting:
            if not self._blocked:
                self._blocked = True
                self._loop.remove_reader(self._source.sock)
                self._loop.add_writer(self._sink.sock, self._write)
        elif self._ended:
            self._finish()
        elif self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._sink.sock)
            self._loop.add_reader(self._source.sock, self._read)

    def _finish(self) -> None:
        """Also after a reset: a server is to stop what it does for nobody."""
        self._loop.remove_reader(self._source.sock)
        self._loop.remove_writer(self._sink.sock)
        with contextlib.suppress(OSError):
            self._sink.sock.shutdown(socket.SHUT_WR)
        if not self.over.done():
            self.over.set_result(None)


class Pump:
    """Each way holds one piece at a time.

    `linger`: seconds in which no piece moves that it lasts when its server has closed.
    """

    def __init__(self, client: Stream, server: Stream, *, linger: float = LINGER) -> None:
        self._client = client
        self._server = server
        self._linger = linger
        self._inward = _Way(client, server)
        self._outward = _Way(server, client)
        self._task: asyncio.Task[object] | None = None

    @property
    def in_(self) -> int:
        """Bytes from the client so far."""
        return self._inward.count

    @property
    def out(self) -> int:
        """Bytes to the client so far."""
        return self._outward.count

    def listen(self, listener: Callable[[bytes], None] | None) -> None:
        """Have it called with what the server says, or no more."""
        self._outward.listener = listener

    def cut(self) -> None:
        """End it from outside; `run` raises CancelledError."""
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Until both sides have ended, or the server has and the client does not follow. Closes both."""
        self._task = asyncio.current_task()
        given_up = asyncio.create_task(self._give_up())
        try:
            self._inward.start()
            self._outward.start()
            await asyncio.wait({self._outward.over, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if given_up.done():
                # Reset: the client must not take what it has for all.
                self._client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            else:
                await asyncio.wait({self._inward.over}, timeout=_CLOSE_SECONDS)
        finally:
            given_up.cancel()
            self._inward.stop()
            self._outward.stop()
            self._server.close()
            self._client.close()

    async def _give_up(self) -> None:
        """Return when the server has closed, and the client has taken nothing of what it said for long."""
        loop = asyncio.get_running_loop()
        closed = select.poll()
        # Its end of file is not read while the client takes nothing.
        closed.register(self._server.sock, select.POLLRDHUP)
        moved, since = -1, 0.0
        while True:
            await asyncio.sleep(self._linger / 4)
            if moved != (moved := self._inward.taken + self._outward.taken) or not closed.poll(0):
                since = loop.time()
            elif loop.time() - since >= self._linger:
                return
