"""The front's end of the channel by which the platform keeps duplicates of its listening sockets.

While no front is there, clients wait in the backlog of those, and the next front takes them over. Without a platform,
or if the channel breaks, ports are bound anew, as if it had never been there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import structlog

from lamplighter.gateway.keep_channel import Channel, listens
from lamplighter.gateway.keep_protocol import PATIENCE_SECONDS, At, Kind
from lamplighter.gateway.peers import is_ours

log = structlog.get_logger("lamplighter.gateway")


class KeptListeners:
    """Implements `ListenerStore`. A platform that connects takes the place of the former one, and is told all.

    What is offered is given up after `patience` seconds without routes: the platform may have been killed in between.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE_SECONDS) -> None:
        self._path = path
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._server: socket.socket | None = None
        self._channel: Channel | None = None
        self._listening: dict[At, socket.socket] = {}
        self._offered: dict[At, socket.socket] = {}
        self._settling: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Nothing is kept if that fails."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.umask(0o177)
        try:
            server.setblocking(False)
            self._path.unlink(missing_ok=True)
            server.bind(str(self._path))
            server.listen()
        except OSError as error:
            server.close()
            log.warning("gateway.ports_not_kept", error=str(error))
            return
        finally:
            os.umask(before)
        self._server = server
        self._loop.add_reader(server, self._on_connected)

    def leave(self) -> None:
        """Nobody connects any more; the platform that is connected stays."""
        if self._server is not None:
            self._loop.remove_reader(self._server)
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        self.leave()
        self.settle()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def take(self, address: str, port: int) -> socket.socket | None:
        """What the former front listened on there, with the clients in its backlog."""
        return self._offered.pop(At(address, port), None)

    def opened(self, address: str, port: int, sock: socket.socket) -> None:
        at = At(address, port)
        self._listening[at] = sock
        self._tell_held(at, sock)

    def closed(self, address: str, port: int) -> None:
        at = At(address, port)
        if self._listening.pop(at, None) is not None:
            self._give_up(at)

    def settle(self) -> None:
        """All routes are known: what was offered and no route asks for is given up."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        for at, sock in self._offered.items():
            # The platform has it as well, and a client that comes meanwhile is not to wait for nobody.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
            self._give_up(at)
        self._offered.clear()

    def _tell_held(self, at: At, sock: socket.socket) -> None:
        if self._channel is not None:
            try:
                self._channel.send(Kind.HOLD, at, sock)
            except ValueError as error:
                log.warning("gateway.port_not_kept", address=at.address, port=at.port, error=str(error))

    def _give_up(self, at: At) -> None:
        if self._channel is not None:
            self._channel.send(Kind.GIVE_UP, at)

    def _on_connected(self) -> None:
        assert self._server is not None
        try:
            peer, _ = self._server.accept()
        except OSError:
            return
        if not is_ours(peer):
            log.warning("gateway.keep_refused")
            peer.close()
            return
        if self._channel is not None:
            self._channel.close()
        self._channel = Channel(peer, self._heard, self._on_ended)
        for at, sock in self._listening.items():
            self._tell_held(at, sock)

    def _on_ended(self) -> None:
        self._channel = None

    def _heard(self, kind: Kind, at: At, sock: socket.socket | None) -> None:
        if kind is Kind.OFFERED and self._channel is not None:
            self._channel.send(Kind.READY)
        if kind is Kind.OFFER and sock is not None and at not in self._listening and listens(sock, at):
            sock.setblocking(False)
            if (former := self._offered.pop(at, None)) is not None:
                former.close()
            self._offered[at] = sock
            if self._settling is None:
                self._settling = self._loop.call_later(self._patience, self.settle)
            return
        if sock is not None:
            sock.close()
        if kind is Kind.OFFER and at not in self._listening:
            # As long as the platform has it open, the port cannot be bound.
            self._give_up(at)
