"""Duplicates of the sockets that the gateway's front listens on, so that no client is refused while it is away.

Nobody accepts on them here: clients wait in the backlog until the next front, which gets them before its first route.
They are closed when the front closes its own, when nobody may come in any more, and with this process. Whenever it is
in doubt whose they are, they are closed as well: the next front then binds its ports itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import socket
import time
from collections.abc import Container
from pathlib import Path

import structlog

from lamplighter.gateway.keep_channel import Channel, listens
from lamplighter.gateway.keep_protocol import MOST, PATIENCE_SECONDS, At, Kind
from lamplighter.gateway.peers import is_ours
from lamplighter.gateway.spawning import Paths

log = structlog.get_logger(__name__)

#: In which a front takes what it is offered.
MEET_SECONDS = 5.0
DYING_SECONDS = 1.0
#: Descriptors that are left to the rest of the platform.
RESERVE = 256


class Keeper:
    """One front at a time. Nothing here raises: what cannot be kept is bound anew by the next front."""

    def __init__(self, *, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._held: dict[At, socket.socket] = {}
        self._channel: Channel | None = None
        self._ready: asyncio.Future[None] | None = None
        #: The process whose sockets they are, by a pidfd.
        self._front: tuple[int, int] | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._limit = 0
        self._closed = False

    @property
    def held(self) -> frozenset[At]:
        """Where clients would wait if the front were gone."""
        return frozenset(self._held)

    async def meet(self, link: Path, pid: int) -> None:
        """Give a front what is held, and hold from now on what it listens on. `link` is its socket, `pid` its process.

        Whether it is new or was here before: it has not been told routes by us yet.
        """
        if self._closed:
            return
        self._raise_limit()
        self._hang_up()
        if not self._change_front(pid):
            return
        try:
            async with asyncio.timeout(MEET_SECONDS):
                await self._offer(link)
        except (OSError, TimeoutError) as error:
            log.warning("gateway.ports_not_kept", error=str(error))
            self._hang_up()
            # One that lives needs its ports now; for one that has died already there will be another.
            if isinstance(error, ConnectionError) and await self._front_dies():
                self._on_ended()
            else:
                self._drop_all()

    def give_up(self, ports: Container[int | None]) -> None:
        """These belong to nobody any more, and there is no front that could close them."""
        for at in [at for at in self._held if at.port in ports]:
            self._drop(at)

    def close(self) -> None:
        """Keep nothing from now on."""
        self._closed = True
        self._hang_up()
        self._drop_all()
        self._forget_front()

    async def _offer(self, link: Path) -> None:
        """Raises OSError, and whatever ends the wait for an answer."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            sock.connect(str(Paths(link).keep))
            if not is_ours(sock):
                raise ConnectionError("another user answers there")
        except OSError:
            sock.close()
            raise
        self._ready = asyncio.get_running_loop().create_future()
        channel = self._channel = Channel(sock, self._heard, self._on_ended)
        for at, held in list(self._held.items()):
            channel.send(Kind.OFFER, at, held)
        channel.send(Kind.OFFERED)
        await self._ready

    def _heard(self, kind: Kind, at: At, sock: socket.socket | None) -> None:
        match kind:
            case Kind.HOLD:
                self._hold(at, sock)
                return
            case Kind.GIVE_UP:
                self._drop(at)
            case Kind.READY if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        if sock is not None:
            sock.close()

    def _hold(self, at: At, sock: socket.socket | None) -> None:
        self._drop(at)
        if sock is None:
            log.warning("gateway.port_not_kept", port=at.port)
        elif listens(sock, at) and len(self._held) < MOST and sock.fileno() < self._limit - RESERVE:
            self._held[at] = sock
        else:
            sock.close()

    def _drop(self, at: At) -> None:
        if (sock := self._held.pop(at, None)) is not None:
            sock.close()

    def _drop_all(self) -> None:
        for at in list(self._held):
            self._drop(at)

    def _on_ended(self) -> None:
        """The front has died, or will tell us nothing more."""
        self._channel = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ConnectionResetError("the gateway has left"))
        # Those that it has closed, and did not get to say so.
        for at, sock in list(self._held.items()):
            if not listens(sock, at):
                self._drop(at)
        self._stop_giving_up()
        self._giving_up = asyncio.get_running_loop().call_later(self._patience, self._drop_all)

    def _hang_up(self) -> None:
        self._stop_giving_up()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _stop_giving_up(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _change_front(self, pid: int) -> bool:
        """What a front that lives still has is not for another: both would accept, and either could end it for both."""
        if self._front_lives() and self._front is not None:
            if self._front[0] == pid:
                return True
            self._drop_all()
        self._forget_front()
        try:
            self._front = (pid, os.pidfd_open(pid))
        except ProcessLookupError:
            # It has died already, and the next one gets what is held.
            pass
        except OSError as error:
            # Whether it lives could never be told.
            log.warning("gateway.ports_not_kept", error=str(error))
            self._drop_all()
            return False
        return True

    def _front_lives(self) -> bool:
        if self._front is None:
            return False
        # It can be read from once the process is gone, with all that it had open.
        found = select.poll()
        found.register(self._front[1], select.POLLIN)
        return not found.poll(0)

    async def _front_dies(self) -> bool:
        """Its files are closed a moment before it is gone."""
        deadline = time.monotonic() + DYING_SECONDS
        while self._front_lives():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(DYING_SECONDS / 50)
        return True

    def _forget_front(self) -> None:
        if self._front is not None:
            os.close(self._front[1])
            self._front = None

    def _raise_limit(self) -> None:
        """The soft limit of a shell is 1,024; an endpoint has two ports."""
        if self._limit:
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = soft + MOST if hard == resource.RLIM_INFINITY else min(hard, soft + MOST)
        self._limit = soft
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            self._limit = wanted
