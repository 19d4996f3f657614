"""The gateway as a whole: what the platform tells is brought to the table, the ports and those who wait."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from lamplighter import __version__
from lamplighter.gateway.certificates import Certificates
from lamplighter.gateway.front import Front, Patience
from lamplighter.gateway.keeping import KeptListeners
from lamplighter.gateway.link_server import LinkServer
from lamplighter.gateway.listeners import Listeners
from lamplighter.gateway.logs import LogFile
from lamplighter.gateway.ports import (
    AskVerifier,
    Done,
    Drain,
    DropRoute,
    Hello,
    Listening,
    Route,
    SetRoute,
    SetRoutes,
    ToGateway,
    Verifier,
    Wake,
    WakeFailed,
    Welcome,
)
from lamplighter.gateway.relaying import Ended
from lamplighter.gateway.relays import Relays
from lamplighter.gateway.routes import Change, RouteTable
from lamplighter.gateway.spawning import Paths
from lamplighter.gateway.traffic import Ledger
from lamplighter.gateway.verifiers import Verifiers
from lamplighter.gateway.waking import Waker
from lamplighter.gateway.web_later import WebLater

if TYPE_CHECKING:
    from lamplighter.gateway.web import Doors, Web

log = structlog.get_logger("lamplighter.gateway")

_REPORT_EVERY = 1.0
#: Of so many connections the relay is asked for live counters every second; of more, seldom: a row each.
_FEW = 1000
_SELDOM = 10


class Gate:
    """One gateway process. `drained` is set when it shall end."""

    def __init__(self, socket_path: Path, *, patience: Patience | None = None, log_file: LogFile | None = None) -> None:
        patience = patience or Patience()
        self._log_file = log_file
        self.drained = asyncio.Event()
        self._opened = False
        self._draining = False
        self._told_all = False
        self._listening = Listening()
        self._table = RouteTable()
        self._ledger = Ledger()
        self._link = LinkServer(socket_path, self._on_message, lost=self._on_lost)
        self._waker = Waker(self._ask_wake, lambda: self._link.connected, patience=patience.wake)
        self._verifiers = Verifiers(self._ask_verifier, lambda: self._link.connected)
        self._relays = Relays(self._on_ended)
        self._certificates = Certificates()
        self._doors: Doors | None = None
        self._web = WebLater(self._make_web)
        self.front = Front(
            table=self._table,
            waker=self._waker,
            ledger=self._ledger,
            relays=self._relays,
            certificates=self._certificates,
            verifiers=self._verifiers,
            web=self._web,
            patience=patience,
            ended=self._on_session_ended,
        )
        #: Doors for our own programs, which only our user can open.
        paths = Paths(socket_path)
        self._unix = paths.doors
        self._unix_doors = Listeners(self.front.accept, address=str(self._unix))
        self._keep = KeptListeners(paths.keep)
        self._listeners = Listeners(self.front.accept, keep=self._keep)
        self._reporting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises SocketTaken, RelayFailed, OSError."""
        await self._relays.start()
        self._link.claim()
        self._opened = True
        self._unix.mkdir(mode=0o700, exist_ok=True)
        self._unix.chmod(0o700)
        # Ahead of the link: whoever finds that has found both.
        self._keep.open()
        await self._link.open()
        self._reporting = asyncio.create_task(self._report(), name="report")

    def drain(self) -> None:
        """Listen no more, leave the socket to another gateway, and end when the last connection has."""
        if self._draining:
            return
        log.info("gateway.draining", connections=self._ledger.connections)
        self._draining = True
        if self._log_file is not None:
            self._log_file.leave()
        self._close_doors()
        self._keep.leave()
        self._keep.settle()
        self._link.release()
        self.front.drain()
        self._look_drained()

    async def close(self) -> None:
        """Connections in the relay are left to it; those that are passed on here end."""
        self._close_doors()
        self._keep.close()
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        await self._web.close()
        await self.front.close()
        self._link.send(self._ledger.report())
        await self._link.close()
        await self._relays.close(cut=False)
        if self._opened:
            # Else it is that of the gateway which has the socket.
            with contextlib.suppress(OSError):
                self._unix.rmdir()

    def _make_web(self) -> Web:
        from lamplighter.gateway.web import Doors, Web  # noqa: PLC0415 - loaded by now, in a thread

        self._doors = Doors(self._table, address=self._listening.address, unix=self._unix, admit=self._waker.admit)
        return Web(self._doors)

    def _close_doors(self) -> None:
        self._listeners.close_all()
        self._unix_doors.close_all()

    # What the platform says

    def _on_message(self, message: ToGateway) -> None:
        match message:
            case Hello():
                self._on_hello(message)
            case SetRoutes(seq=seq, routes=routes):
                problems = self._on_change(self._table.replace(routes))
                for route in routes:
                    self._told(route)
                self._told_all = True
                self._open_domain_port()
                self._keep.settle()
                self._link.send(Done(seq, (*problems, *self._table.conflicts())))
                # Not before: nobody else waits for it.
                self._web.load()
            case SetRoute(seq=seq, route=route):
                problems = self._on_change(self._table.set(route))
                self._told(route)
                self._link.send(Done(seq, (*problems, *self._table.conflicts_of(route))))
            case DropRoute(seq=seq, endpoint_id=endpoint_id):
                self._link.send(Done(seq, self._on_change(self._table.drop(endpoint_id))))
            case WakeFailed():
                log.warning(
                    "gateway.wake_failed",
                    endpoint_id=message.endpoint_id,
                    error=message.message,
                    detail=message.detail,
                    hint=message.hint,
                )
                self._waker.failed(message)
            case Verifier(ask=ask, failed=True):
                self._verifiers.failed(ask)
            case Verifier(ask=ask, verifier=verifier):
                self._verifiers.answered(ask, verifier)
            case Drain():
                self.drain()

    def _on_hello(self, hello: Hello) -> None:
        self._link.send(Welcome(__version__))
        if hello.version != __version__:
            # It will have us drain, and start one of its own.
            log.warning("gateway.other_version", ours=__version__, theirs=hello.version)
            return
        if self._log_file is not None:
            self._log_file.look()
        self._listen(hello.listening)
        self._ledger.anew()
        self._waker.again()
        self._verifiers.again()
        log.info("gateway.platform_connected", routes=len(self._table))

    def _listen(self, listening: Listening) -> None:
        before, self._listening = self._listening, listening
        self._certificates.configure(listening)
        self.front.domain = listening.domain
        self.front.domain_port = listening.domain_port
        if self._doors is not None:
            self._doors.address = listening.address
        _log_problems(self._listeners.move(listening.address))
        if before.domain_port != listening.domain_port and before.domain_port is not None:
            self._listeners.close([before.domain_port])
        self._open_domain_port()

    def _open_domain_port(self) -> None:
        port = self._listening.domain_port
        # Before there are routes, whoever waits in its backlog would be told that there is no such endpoint.
        if port is not None and self._told_all and not self._draining:
            _log_problems(self._listeners.open([port]))

    def _on_change(self, change: Change) -> tuple[str, ...]:
        self._listeners.close(change.closed)
        self._unix_doors.close(change.closed)
        for endpoint_id in change.gone:
            self.front.cut(endpoint_id)
            self._waker.gone(endpoint_id)
        if self._draining:
            return ()
        return self._listeners.open(change.opened)

    def _told(self, route: Route) -> None:
        self._waker.told(route)
        if self._draining:
            self._unix_doors.close([route.port])
        else:
            self._unix_doors.open([route.port])

    def _on_lost(self) -> None:
        log.warning("gateway.platform_gone", routes=len(self._table), waiting=self._waker.waiting)

    # What it is told

    def _ask_wake(self, endpoint_id: str) -> None:
        self._link.send(Wake(endpoint_id))

    def _ask_verifier(self, ask: int, endpoint_id: str, role: str) -> bool:
        return self._link.send(AskVerifier(ask, endpoint_id, role))

    def _on_ended(self, ended: Ended) -> None:
        if ended.reason == "exhausted":
            self._ledger.refused("relay_full")
        else:
            log.debug("gateway.connection_ended", number=ended.id, reason=ended.reason)
        self._on_session_ended(ended.id, ended.in_, ended.out)

    def _on_session_ended(self, number: int, in_: int, out: int) -> None:
        if self._ledger.closed(number, in_=in_, out=out) and self._link.connected:
            self._link.send(self._ledger.report())
        self._look_drained()

    def _look_drained(self) -> None:
        if self._draining and not self._ledger.connections and not self.front.on_their_way:
            self.drained.set()

    async def _report(self) -> None:
        round_ = 0
        while True:
            await asyncio.sleep(_REPORT_EVERY)
            round_ += 1
            self._look_drained()
            if not self._link.connected:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_EVERY):
                    await self._count(round_)
            self._link.send(self._ledger.report())

    async def _count(self, round_: int) -> None:
        if self._ledger.connections > _FEW and round_ % _SELDOM:
            return
        for number, (in_, out) in (await self._relays.counters()).items():
            self._ledger.moved(number, in_=in_, out=out)
        for number, session in self.front.sessions.items():
            self._ledger.moved(number, in_=session.in_, out=session.out)


def _log_problems(problems: tuple[str, ...]) -> None:
    for problem in problems:
        log.error("gateway.port_failed", problem=problem)
