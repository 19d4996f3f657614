"""The sockets that clients connect to: one for each public port.

A port that somebody else has is tried again, and so is one that cannot be had while file descriptors are short. When
there are none left to accept with, accepting pauses: clients stay in the backlog. Others may have duplicates of these
sockets, so one that is given up is shut down as well: who connects is refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

log = structlog.get_logger("lamplighter.gateway")

BACKLOG = 4096
#: Connections taken from one port before the others have their turn.
_BATCH = 64
_PAUSE = 0.2
_RETRY_EVERY = 2.0
#: Seconds of silence before the kernel asks a peer whether it is there, between two such questions, and how many.
_KEEP_IDLE, _KEEP_INTERVAL, _KEEP_PROBES = 60, 10, 6
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: Gets the client's socket, its address (None by a Unix socket), and the port that it came to.
Accept = Callable[[socket.socket, str | None, int], object]


def tune(sock: socket.socket) -> None:
    """Find out about peers that have vanished, and send small pieces at once. Unix sockets are left as they are."""
    if sock.family == socket.AF_UNIX:
        return
    # A peer may have left already: whoever reads next is told.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEP_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEP_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class ListenerStore(Protocol):
    """Keeps duplicates of listening sockets, for the time in which there is no gateway. Never raises."""

    def take(self, address: str, port: int) -> socket.socket | None:
        """What an earlier gateway has left there, which listens still."""
        ...

    def opened(self, address: str, port: int, sock: socket.socket) -> None: ...

    def closed(self, address: str, port: int) -> None: ...


class _NotBound(Exception):
    """A port cannot be listened on: the message is a sentence that says why."""


@dataclass(slots=True)
class _Port:
    number: int
    sock: socket.socket | None = None


class Listeners:
    """Opens and closes ports on one address: an IP address, or a directory for Unix sockets as Postgres names them."""

    def __init__(self, accept: Accept, *, address: str = "127.0.0.1", keep: ListenerStore | None = None) -> None:
        self._accept = accept
        self._keep = keep
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._ports: dict[int, _Port] = {}
        self._retrying: asyncio.TimerHandle | None = None
        self._paused = False

    def move(self, address: str) -> tuple[str, ...]:
        """Listen at another address. Returns problems, a sentence each."""
        if address == self._address:
            return ()
        wanted = list(self._ports)
        self.close(wanted)
        self._address = address
        return self.open(wanted)

    def open(self, ports: Iterable[int]) -> tuple[str, ...]:
        """Listen on these, too. Returns problems, a sentence each; such ports are tried again until they are closed."""
        problems = []
        for number in ports:
            port = self._ports.setdefault(number, _Port(number))
            if port.sock is None and (problem := self._bind(port)):
                problems.append(problem)
        if problems:
            self._retry_later()
        return tuple(problems)

    def close(self, ports: Iterable[int]) -> None:
        """Listen no more on these. Clients that were not accepted yet are reset."""
        for number in list(ports):
            port = self._ports.pop(number, None)
            if port is not None and port.sock is not None:
                self._close(port)

    def _close(self, port: _Port) -> None:
        assert port.sock is not None
        self._loop.remove_reader(port.sock)
        if self._unix:
            Path(self._name(port.number)).unlink(missing_ok=True)
        else:
            with contextlib.suppress(OSError):
                port.sock.shutdown(socket.SHUT_RDWR)
        port.sock.close()
        port.sock = None
        if self._keep is not None:
            self._keep.closed(self._address, port.number)

    def close_all(self) -> None:
        self.close(list(self._ports))
        if self._retrying is not None:
            self._retrying.cancel()
            self._retrying = None

    def _bind(self, port: _Port) -> str | None:
        """Returns a problem."""
        sock = None if self._keep is None else self._keep.take(self._address, port.number)
        if sock is None:
            try:
                sock = self._bind_anew(port)
            except _NotBound as problem:
                return str(problem)
        port.sock = sock
        if not self._paused:
            self._loop.add_reader(sock, self._on_readable, port)
        if self._keep is not None:
            self._keep.opened(self._address, port.number, sock)
        return None

    def _bind_anew(self, port: _Port) -> socket.socket:
        """Raises _NotBound."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        try:
            sock = socket.socket(socket.AF_UNIX if self._unix else family, socket.SOCK_STREAM)
        except OSError as error:
            raise _NotBound(f"port {port.number} cannot be listened on: {error.strerror}") from error
        try:
            sock.setblocking(False)
            if self._unix:
                Path(self._name(port.number)).unlink(missing_ok=True)
                sock.bind(self._name(port.number))
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((self._address, port.number))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise _NotBound(f"{self._name(port.number)} cannot be listened on: {error.strerror or error}") from error
        return sock

    def _on_readable(self, port: _Port) -> None:
        for _ in range(_BATCH):
            sock = port.sock
            if sock is None:
                return
            try:
                client, address = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return
                if error.errno == errno.EINVAL:
                    # It was shut down by somebody who has it, too: it will listen no more.
                    self._close(port)
                    self._retry_later()
                    return
                # The client left while it waited: the next one may be there.
                continue
            client.setblocking(False)
            tune(client)
            self._accept(client, None if self._unix else str(address[0]), port.number)

    @property
    def _unix(self) -> bool:
        return self._address.startswith("/")

    def _name(self, number: int) -> str:
        return f"{self._address}/.s.PGSQL.{number}" if self._unix else f"{self._address}:{number}"

    def _pause(self, error: OSError) -> None:
        if self._paused:
            return
        log.warning("gateway.accepting_paused", error=error.strerror)
        self._paused = True
        for sock in self._sockets():
            self._loop.remove_reader(sock)
        self._loop.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._paused = False
        for port in self._ports.values():
            if port.sock is not None:
                self._loop.add_reader(port.sock, self._on_readable, port)

    def _sockets(self) -> list[socket.socket]:
        return [port.sock for port in self._ports.values() if port.sock is not None]

    def _retry_later(self) -> None:
        if self._retrying is None:
            self._retrying = self._loop.call_later(_RETRY_EVERY, self._retry)

    def _retry(self) -> None:
        self._retrying = None
        missing = [port for port in self._ports.values() if port.sock is None]
        for port in missing:
            if self._bind(port) is None:
                log.info("gateway.port_opened", port=port.number)
        if any(port.sock is None for port in missing):
            self._retry_later()
