"""One end of the channel that listening sockets are passed through: messages in order, each with one socket at most.

Nothing here blocks: what the peer does not take yet is queued. The kernel makes the duplicate when a message is sent,
so that thousands that wait take no descriptors of ours.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable

from lamplighter.gateway.keep_protocol import LARGEST, MOST, At, Kind, pack, unpack
from lamplighter.gateway.relaying import RETRY, SHORT

_FD = array.array("i").itemsize
#: Messages read in a row before other work of the loop gets its turn.
_BATCH = 64


def listens(sock: socket.socket, at: At) -> bool:
    """Whether this is a TCP socket that listens on that port."""
    with contextlib.suppress(OSError):
        return (
            sock.family in (socket.AF_INET, socket.AF_INET6)
            and sock.type == socket.SOCK_STREAM
            and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            and sock.getsockname()[1] == at.port
        )
    return False


class Channel:
    """`heard(kind, at, sock)` is called for each message; `ended()` once, when the peer goes or cannot be understood.

    What `heard` gets is its own to close. Neither is called after `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        heard: Callable[[Kind, At, socket.socket | None], None],
        ended: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[bytes, socket.socket | None]] = deque()
        self._waiting = False
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(sock, self._on_readable)

    def send(self, kind: Kind, at: At | None = None, sock: socket.socket | None = None) -> None:
        """Raises ValueError as `pack`. If `sock` is closed before its turn comes, that message is left out."""
        if not self._open:
            return
        message = pack(kind) if at is None else pack(kind, at)
        self._queue.append((message, sock))
        if len(self._queue) > 2 * MOST:
            # Somebody who reads nothing: without a channel both go on as if there had never been one.
            self._end()
        elif not self._waiting:
            self._flush()

    def close(self) -> None:
        """What could not be sent yet never is."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._queue.clear()

    def _end(self) -> None:
        if self._open:
            self.close()
            self._ended()

    def _flush(self) -> None:
        self._waiting = False
        if not self._open:
            return
        self._loop.remove_writer(self._sock)
        while self._queue:
            message, sock = self._queue[0]
            try:
                if sock is None:
                    self._sock.sendmsg([message])
                elif sock.fileno() >= 0:
                    fds = array.array("i", [sock.fileno()])
                    self._sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            except BlockingIOError:
                self._waiting = True
                self._loop.add_writer(self._sock, self._flush)
                return
            except OSError as error:
                if error.errno in SHORT:
                    self._waiting = True
                    self._loop.call_later(RETRY, self._flush)
                # else the peer is gone, which the reader learns too
                return
            self._queue.popleft()

    def _on_readable(self) -> None:
        for _ in range(_BATCH):
            if not self._open:
                return
            try:
                message, rights, _, _ = self._sock.recvmsg(LARGEST, socket.CMSG_SPACE(_FD), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                message, rights = b"", []
            sock = _socket_of(rights)
            try:
                # An end of file is no message either.
                kind, at = unpack(message)
            except ValueError:
                if sock is not None:
                    sock.close()
                self._end()
                return
            self._heard(kind, at, sock)


def _socket_of(rights: list[tuple[int, int, bytes]]) -> socket.socket | None:
    """The first that came along, if it is a socket. The others are closed: the buffer has room for two."""
    fds = array.array("i")
    for level, kind, content in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % _FD])
    for fd in fds[1:]:
        os.close(fd)
    if not fds:
        return None
    try:
        return socket.socket(fileno=fds[0])
    except OSError:
        os.close(fds[0])
        return None
