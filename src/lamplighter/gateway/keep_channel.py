"""One end of the channel that listening sockets are passed through: messages in order, each with one socket at most.

Nothing here blocks: what the peer does not take yet is queued, as a duplicate that is closed once it is sent.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable

from lamplighter.gateway.keep_protocol import LARGEST, MOST, At, Kind, pack, unpack

_PEER = struct.Struct("3i")
_FD = array.array("i").itemsize
#: Messages read in a row before other work of the loop gets its turn.
_BATCH = 64
#: Seconds until another try when more fds are on their way than the kernel lets one user have (ETOOMANYREFS).
_RETRY = 0.02
_SHORT = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})


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


def is_ours(peer: socket.socket) -> bool:
    """Whether the process at the other end runs as our user."""
    _pid, uid, _gid = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return bool(uid == os.geteuid())


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
        self._queue: deque[tuple[bytes, int | None]] = deque()
        self._waiting = False
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(sock, self._on_readable)

    def send(self, kind: Kind, at: At | None = None, sock: socket.socket | None = None) -> None:
        """Raises OSError when there is no descriptor for a duplicate of `sock`, and ValueError as `pack`."""
        if not self._open:
            return
        message = pack(kind) if at is None else pack(kind, at)
        self._queue.append((message, None if sock is None else os.dup(sock.fileno())))
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
        for _, fd in self._queue:
            if fd is not None:
                os.close(fd)
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
            message, fd = self._queue[0]
            rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            try:
                self._sock.sendmsg([message], rights)
            except BlockingIOError:
                self._waiting = True
                self._loop.add_writer(self._sock, self._flush)
                return
            except OSError as error:
                if error.errno in _SHORT:
                    self._waiting = True
                    self._loop.call_later(_RETRY, self._flush)
                # else the peer is gone, which the reader learns too
                return
            self._queue.popleft()
            if fd is not None:
                os.close(fd)

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
