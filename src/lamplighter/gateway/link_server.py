"""The gateway's end of the link: a Unix socket of mode 0600, one platform at a time, a new one in place of the former.

Who connects must be the user that the gateway runs as.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from lamplighter.gateway import link
from lamplighter.gateway.errors import LinkRefused, SocketTaken
from lamplighter.gateway.peers import peer_of
from lamplighter.gateway.ports import Hello, ToGateway, ToPlatform
from lamplighter.gateway.spawning import Paths

log = structlog.get_logger("lamplighter.gateway")

#: Most that waits for a platform that does not read: then it is taken for gone, and learns all when it connects anew.
_UNREAD = 64 * 1024 * 1024


class LinkServer:
    """`handle(message)` is called for each message, in order; `lost()` when the platform goes and none took its place.

    A platform is who says `Hello`: who merely looks whether anybody answers takes nobody's place.
    """

    def __init__(self, path: Path, handle: Callable[[ToGateway], None], *, lost: Callable[[], None]) -> None:
        self._path = path
        self._handle = handle
        self._lost = lost
        self._server: asyncio.Server | None = None
        self._lock: int | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        return self._writer is not None and not self._writer.is_closing()

    def claim(self) -> None:
        """From now on the path is ours, and what lies beside it. Raises SocketTaken, OSError."""
        if self._lock is None:
            self._lock = _lock(self._path)

    async def open(self) -> None:
        """Raises SocketTaken, OSError."""
        self.claim()
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(str(self._path))
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._on_connected, sock=sock, limit=link.LONGEST)

    def release(self) -> None:
        """Leave the socket to another gateway. The platform that is connected stays."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def close(self) -> None:
        self.release()
        if self._writer is not None:
            self._writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, message: ToPlatform) -> bool:
        """Say something, if there is anybody. Returns whether there was."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return False
        if writer.transport.get_write_buffer_size() > _UNREAD:
            log.error("gateway.platform_does_not_read")
            writer.transport.abort()
            return False
        writer.write(link.to_platform(message))
        return True

    def _on_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="link")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _check_peer(writer)
            line = await reader.readline()
            if line:
                self._begin(link.read_by_gateway(line), writer)
                await self._read(reader, writer)
        except LinkRefused as error:
            log.warning("gateway.link_refused", error=str(error))
        except (ValueError, OSError) as error:
            # A line too long, or that is no message of ours: this platform is not to be understood.
            log.error("gateway.link_failed", error=str(error))  # noqa: TRY400 - what is wrong is in the message
        finally:
            if self._writer is writer:
                self._writer = None
                self._lost()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _begin(self, first: ToGateway, writer: asyncio.StreamWriter) -> None:
        if not isinstance(first, Hello):
            raise ValueError("the first message is no hello")  # noqa: TRY004 - said to a peer, as any bad line
        if self._writer is not None:
            log.info("gateway.platform_replaced")
            self._writer.close()
        self._writer = writer
        self._handle(first)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            # What a platform still says after another one took its place is out of date.
            if self._writer is not writer or not line.endswith(b"\n"):
                return
            self._handle(link.read_by_gateway(line))


def _check_peer(writer: asyncio.StreamWriter) -> None:
    uid = peer_of(writer.get_extra_info("socket")).uid
    if uid != os.geteuid():
        raise LinkRefused(f"User {uid} connected to the link, which belongs to user {os.geteuid()}.")


def _lock(path: Path) -> int:
    """Held as long as the socket is ours; the kernel lets it go when we die."""
    handle = os.open(Paths(path).lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise SocketTaken(path) from None
    return handle
