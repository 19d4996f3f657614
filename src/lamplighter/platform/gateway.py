"""The platform's end of the link: finds or starts the gateway's process, and keeps it told.

The gateway outlives us: whoever is connected stays connected while a platform restarts. What is to be told is kept
here, so a gateway that was started anew is told everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import structlog

from lamplighter import __version__
from lamplighter.api.errors import Unavailable
from lamplighter.control.ports import Door
from lamplighter.gateway import spawning
from lamplighter.gateway.errors import SpawnFailed
from lamplighter.gateway.ports import (
    AskVerifier,
    Backend,
    Done,
    Drain,
    DropRoute,
    Hello,
    Listening,
    Report,
    Route,
    SetRoute,
    SetRoutes,
    ToGateway,
    ToPlatform,
    Verifier,
    Wake,
    WakeFailed,
    Welcome,
)
from lamplighter.gateway.refusals import CANNOT_CONNECT_NOW
from lamplighter.platform import gateway_processes
from lamplighter.platform.errors import GatewayFailed, RedirectFailed
from lamplighter.platform.gateway_line import LOOK_SECONDS, Line
from lamplighter.platform.keeper import Keeper
from lamplighter.platform.redirect import Redirects
from lamplighter.platform.redirect_plan import Counted

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
AGAIN_SECONDS = 0.5
#: How long a change may take to be acknowledged before the request goes on without.
TELL_SECONDS = 5.0
#: After so many looks in which a front has said nothing it hangs. It reports once a second.
SILENT_LOOKS = 15
#: So many for its first word: it may have been started on a host that is busy.
GREETING_LOOKS = 10
NO_COMPUTE = "the compute could not be started"
NO_POOLER = "the pooler could not be started"


class Below(Protocol):
    """What the link asks of the machine and the control plane."""

    def backends(self, endpoint_id: str) -> tuple[Backend | None, Backend | None]:
        """Where the running compute and its pooler listen."""
        ...

    @property
    def pools(self) -> bool:
        """Whether a wake of an awake endpoint brings a pooler."""
        ...

    def log_of(self, endpoint_id: str, *, pooler: bool = False) -> Path:
        """Where the compute's log lies, or its pooler's."""
        ...

    async def verifier(self, endpoint_id: str, role: str) -> str | None:
        """The role's SCRAM verifier, of a compute that runs."""
        ...

    async def wake(self, endpoint_id: str) -> bool:
        """Have the compute there, by and by. True if it is there already.

        Raises an `ApiError` or another error with a sentence for whoever waits.
        """
        ...

    async def pool(self, endpoint_id: str) -> None:
        """Have a pooler beside a compute that runs. Raises an error with a sentence for whoever waits."""
        ...

    def woken(self, endpoint_id: str, seconds: float, *, ok: bool) -> None: ...

    def reported(self, report: Report) -> None: ...

    def led_past(self, endpoint_id: str, counted: Counted) -> None:
        """Connections and bytes that the kernel led to a compute."""
        ...

    async def count_connected(self, endpoint_ids: Iterable[str]) -> None:
        """Of all endpoints: the gateway does not see those that the kernel leads past it."""
        ...

    def gone(self, endpoint_id: str) -> None:
        """There is no such endpoint any more."""
        ...

    def lost(self) -> None:
        """The gateway has ended; what was counted as open is not known any more."""
        ...


class LocalGateway:
    """Implements `control.ports.Gateway`. Before `start()` has returned nothing is told."""

    def __init__(
        self,
        *,
        run_dir: Path,
        log_file: Path,
        listening: Listening,
        below: Below,
        redirects: Redirects | None = None,
        endpoint_connections: int,
    ) -> None:
        self._run_dir = run_dir
        self._log_file = log_file
        self._listening = listening
        self._below = below
        self._redirects = redirects
        self._endpoint_connections = endpoint_connections
        self._keeper = Keeper()
        self._doors: dict[str, Door] = {}
        self._line: Line | None = None
        self._seq = 0
        self._waiting: dict[int, asyncio.Future[tuple[str, ...]]] = {}
        self._asleep_since: dict[str, float] = {}
        self._insisting: set[str] = set()
        #: Who may come, as the kernel was told.
        self._allowed: dict[str, tuple[str, ...] | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retired = False

    @property
    def doors(self) -> Mapping[str, Door]:
        """By endpoint, as they were last told."""
        return self._doors

    @property
    def doors_dir(self) -> Path | None:
        """Where the gateway's doors for our own programs are, sockets named by the port; None while it is away."""
        return None if self._line is None else spawning.Paths(self._line.socket_path).doors

    # Telling

    async def set_door(self, door: Door) -> None:
        self._doors[door.endpoint_id] = door
        await self.tell_again(door.endpoint_id)

    async def tell_again(self, endpoint_id: str) -> None:
        """What is behind the door has changed, such as a pooler that is ready."""
        door = self._doors.get(endpoint_id)
        if door is None:
            return
        route = self._route(door)
        if route.state == "awake" and (since := self._asleep_since.pop(endpoint_id, None)) is not None:
            self._below.woken(endpoint_id, time.monotonic() - since, ok=True)
        if self._redirects is not None:
            if route.state == "awake" and route.allowed == self._allowed.get(endpoint_id, route.allowed):
                # Not before those who wait: nft takes longer than to let them in by the relay.
                self._spawn_task(self._lead(self._redirects, endpoint_id))
            else:
                await _unlead(self._redirects.set(route))
            self._allowed[endpoint_id] = route.allowed
        await self._tell(lambda seq: SetRoute(seq, route))

    async def _lead(self, redirects: Redirects, endpoint_id: str) -> None:
        door = self._doors.get(endpoint_id)
        if door is not None:
            try:
                # As it is by now: it may be about to be stopped already.
                await redirects.set(self._route(door))
            except RedirectFailed as error:
                log.warning("gateway.not_redirected", endpoint_id=endpoint_id, error=str(error))

    async def drop_door(self, endpoint_id: str) -> None:
        self._asleep_since.pop(endpoint_id, None)
        self._allowed.pop(endpoint_id, None)
        if self._redirects is not None:
            await _unlead(self._redirects.remove(endpoint_id))
        if (door := self._doors.pop(endpoint_id, None)) is not None:
            if self._line is None:
                self._keeper.give_up((door.port, door.pooler_port))
            await self._tell(lambda seq: DropRoute(seq, endpoint_id))
        self._below.gone(endpoint_id)

    def refuse(self, endpoint_id: str, error: str) -> None:
        self._not_woken(endpoint_id, error, hint=f"The compute's log is {self._below.log_of(endpoint_id)}.")

    def _not_woken(self, endpoint_id: str, error: str, *, hint: str) -> None:
        log.warning("gateway.not_woken", endpoint_id=endpoint_id, error=error)
        if (since := self._asleep_since.pop(endpoint_id, None)) is not None:
            self._below.woken(endpoint_id, time.monotonic() - since, ok=False)
        self._tell_failed(endpoint_id, NO_COMPUTE, error, hint=hint)

    def _tell_failed(self, endpoint_id: str, what: str, error: str, *, hint: str) -> None:
        if self._line is not None:
            self._line.send(WakeFailed(endpoint_id, CANNOT_CONNECT_NOW, what, detail=error, hint=hint))

    def listen_anew(self, listening: Listening) -> None:
        """Certificates or addresses have changed."""
        self._listening = listening
        if self._line is not None:
            self._line.send(Hello(__version__, listening))

    def _route(self, door: Door) -> Route:
        compute, pooler = self._below.backends(door.endpoint_id) if door.state == "awake" else (None, None)
        state = "asleep" if door.state == "awake" and compute is None else door.state
        return Route(
            endpoint_id=door.endpoint_id,
            project_id=door.project_id,
            state=state,
            port=door.port,
            pooler_port=door.pooler_port,
            compute=compute,
            pooler=pooler,
            allowed=door.allowed,
            pools=self._below.pools,
            max_connections=self._endpoint_connections,
        )

    async def _tell(self, message: Callable[[int], ToGateway]) -> None:
        """Send, and wait until it holds. A gateway that is away is told everything when it is back."""
        line = self._line
        if line is None:
            return
        self._seq += 1
        seq = self._seq
        done = self._waiting[seq] = asyncio.get_running_loop().create_future()
        line.send(message(seq))
        try:
            async with asyncio.timeout(TELL_SECONDS):
                for problem in await done:
                    log.warning("gateway.problem", problem=problem)
        except TimeoutError:
            # Told everything anew, it cannot be left with what was meant to be changed.
            log.warning("gateway.slow", seconds=TELL_SECONDS)
            line.abort()
        finally:
            self._waiting.pop(seq, None)

    # The line

    async def start(self, doors: Iterable[Door] = ()) -> None:
        """Find the gateway or start one, and tell it everything.

        Raises `GatewayFailed`, and `RedirectFailed` when the kernel still leads to ports of a platform before this one.
        """
        self._doors = {door.endpoint_id: door for door in doors}
        if self._redirects is not None:
            # Before any compute is started: what a platform that is no more has left may lead to its port.
            await self._lead_anew(self._redirects)
        await self._take(await self._adopt() or await self._spawn())

    async def _lead_anew(self, redirects: Redirects) -> None:
        try:
            await redirects.replace_all(self._route(door) for door in self._doors.values())
        except RedirectFailed as error:
            await redirects.withdraw()
            log.warning("redirect.unavailable", why=error.why, instead="connections go by the relay")
            self._redirects = None

    async def count_redirected(self) -> None:
        """Tell below what went past the gateway since the last time, and have it count who is connected."""
        if self._redirects is not None:
            await self._below.count_connected(self._doors)
            for endpoint_id, counted in (await self._redirects.counters()).items():
                self._below.led_past(endpoint_id, counted)

    def retire(self) -> None:
        """Nobody gets in any more. Who is connected stays so until their compute is stopped."""
        self._retired = True
        self._keeper.close()
        if self._line is not None:
            self._line.send(Drain())

    async def close(self) -> None:
        """End the gateway's process, with the connections that it has. The computes are gone already."""
        line, self._line = self._line, None
        self._keeper.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if line is not None:
            line.close()
        await gateway_processes.end(self._run_dir, also=[line.pid] if line is not None else [])

    async def _take(self, line: Line) -> None:
        # Before its first route: from then on it listens.
        await self._keeper.meet(line.socket_path, line.pid)
        self._line = line
        self._spawn_task(self._listen(line))
        if self._retired:
            line.send(Drain())
        else:
            await self._tell(lambda seq: SetRoutes(seq, tuple(self._route(door) for door in self._doors.values())))

    def _spawn_task(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, line: Line) -> None:
        hangs = await self._hear_out(line)
        line.abort()
        if self._line is line:
            self._line = None
            self._forget_waiting()
            if not self._retired:
                if hangs:
                    await self._end_hung(line, silent_for=SILENT_LOOKS * LOOK_SECONDS)
                await self._again()

    async def _hear_out(self, line: Line) -> bool:
        """To the end of the line. Whether there was none, and the front hangs."""
        while True:
            try:
                message = await line.receive(looks=SILENT_LOOKS)
            except TimeoutError:
                return True
            except (ValueError, OSError) as error:
                log.warning("gateway.unreadable", error=str(error))
                return False
            if message is None:
                return False
            try:
                self._heard(line, message)
            except Exception:
                # One message that we cannot deal with must not make us deaf for all others.
                log.exception("gateway.message_failed", kind=message.kind)

    def _forget_waiting(self) -> None:
        for done in self._waiting.values():
            if not done.done():
                done.set_result(())

    async def _again(self) -> None:
        """The gateway has ended, or the line broke."""
        log.warning("gateway.lost")
        self._below.lost()
        while not self._retired:
            try:
                line = await self._adopt() or await self._spawn()
            except Exception as error:  # noqa: BLE001 - nobody else would ever start one again
                log.warning("gateway.failed", error=str(error), retry_in_seconds=AGAIN_SECONDS)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            await self._take(line)
            return

    def _heard(self, line: Line, message: ToPlatform) -> None:
        match message:
            case Done(seq, problems):
                done = self._waiting.get(seq)
                if done is not None and not done.done():
                    done.set_result(problems)
            case Wake(endpoint_id):
                # Before the first pause: what it is by now, a start may change.
                awake = self._is_awake(endpoint_id)
                self._spawn_task(self._pool(endpoint_id) if awake else self._wake(endpoint_id))
            case AskVerifier():
                self._spawn_task(self._answer(line, message))
            case Report():
                self._below.reported(message)
            case Welcome():
                pass

    async def _wake(self, endpoint_id: str) -> None:
        """Ask below until somebody is told something: a start may fail just when it is taken for one on its way."""
        self._asleep_since.setdefault(endpoint_id, time.monotonic())
        if endpoint_id in self._insisting:
            return
        self._insisting.add(endpoint_id)
        try:
            while endpoint_id in self._asleep_since:
                if await self._below.wake(endpoint_id):
                    await self.tell_again(endpoint_id)
                    # If it has been held meanwhile, nobody waits for a start any more.
                    self._asleep_since.pop(endpoint_id, None)
                    return
                await asyncio.sleep(AGAIN_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits to be told
            self._not_woken(endpoint_id, str(error), hint="")
        finally:
            self._insisting.discard(endpoint_id)

    def _is_awake(self, endpoint_id: str) -> bool:
        door = self._doors.get(endpoint_id)
        return door is not None and self._route(door).state == "awake"

    async def _pool(self, endpoint_id: str) -> None:
        """Whoever waits for one that is awake waits for its pooler, which most endpoints never need."""
        try:
            await self._below.pool(endpoint_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits to be told
            log.warning("gateway.no_pooler", endpoint_id=endpoint_id, error=str(error))
            where = self._below.log_of(endpoint_id, pooler=True)
            self._tell_failed(endpoint_id, NO_POOLER, str(error), hint=f"The pooler's log is {where}.")
        else:
            await self.tell_again(endpoint_id)

    async def _answer(self, line: Line, ask: AskVerifier) -> None:
        try:
            answer = Verifier(ask.ask, await self._below.verifier(ask.endpoint_id, ask.role))
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits to be told
            log.warning("gateway.no_verifier", endpoint_id=ask.endpoint_id, error=str(error))
            answer = Verifier(ask.ask, None, failed=True)
        line.send(answer)

    # The process

    async def _adopt(self) -> Line | None:
        """A gateway that an earlier platform left; those of another release are told to end when they are empty."""
        found: Line | None = None
        await asyncio.to_thread(gateway_processes.sweep, self._run_dir)
        for path in sorted(self._run_dir.glob(gateway_processes.SOCKETS)):
            try:
                line = await Line.connect(path)
            except OSError:
                continue
            welcome = await self._greet(line)
            if welcome is not None and welcome.version == __version__ and found is None:
                found = line
            else:
                line.send(Drain())
                with contextlib.suppress(OSError):
                    await line.writer.drain()
                line.close()
        return found

    async def _spawn(self) -> Line:
        path = self._run_dir / f"gateway-{uuid4().hex[:8]}.sock"
        env = gateway_processes.environment(self._run_dir, os.environ)
        try:
            await spawning.start(path, self._log_file, env=env, within=START_SECONDS)
            line = await Line.connect(path)
        except (SpawnFailed, OSError) as error:
            raise GatewayFailed(str(error)) from error
        if await self._greet(line) is None:
            line.close()
            raise GatewayFailed(f"the gateway did not answer; its log is {self._log_file}")
        return line

    async def _greet(self, line: Line) -> Welcome | None:
        """None from one that does not answer as it should. One that does not answer at all is ended."""
        line.send(Hello(__version__, self._listening))
        try:
            answer = await line.receive(looks=GREETING_LOOKS)
        except TimeoutError:
            line.abort()
            await self._end_hung(line, silent_for=GREETING_LOOKS * LOOK_SECONDS)
            return None
        except (ValueError, OSError):
            return None
        return answer if isinstance(answer, Welcome) else None

    async def _end_hung(self, line: Line, *, silent_for: float) -> None:
        """As long as it lives it has its ports, and clients wait there for nobody."""
        try:
            ended = await gateway_processes.end_hung(self._run_dir, line.pid)
        except OSError as error:
            log.warning("gateway.hangs", pid=line.pid, silent_for=silent_for, error=str(error))
        else:
            log.warning("gateway.hung", pid=line.pid, silent_for=silent_for, ended=ended)


async def _unlead(change: Awaitable[None]) -> None:
    """Raises Unavailable when connections would still be led where they must not be."""
    try:
        await change
    except RedirectFailed as error:
        raise Unavailable(str(error)) from error
