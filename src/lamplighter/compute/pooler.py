"""A PgBouncer in transaction mode beside each running compute, and who gets in kept as Postgres has it.

As postmasters, poolers are detached, known by a record in the run directory, and adopted by the next process. PgBouncer
listens on 127.0.0.1 without TLS, which the gateway has ended: users of this host reach it too, and need a password as
everybody. What it knows of roles and passwords is what we told it: at the start, when asked to (`reload`), and once
a second, because roles are made and changed by SQL too. While no control plane runs, it stays at what it knows.
A tenant may make any number of roles: `Limits` says how many of them are followed, and a digest what has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import psycopg
import structlog

from lamplighter.compute import launcher, logs, pooler_files, process
from lamplighter.compute.errors import ComputeError, NotRunning, StopFailed
from lamplighter.compute.places import replace_file
from lamplighter.compute.pooler_config import QUIT_SINCE, PoolerSpec, Users, may_be_role, render_ini
from lamplighter.compute.pooler_errors import PoolerFailed, PoolerPortTaken
from lamplighter.compute.pooler_files import PoolerPlaces, PoolerRecord, pooler_places
from lamplighter.compute.pooler_knowledge import ConnectTo, Knowledge
from lamplighter.compute.pooler_program import PoolerProgram
from lamplighter.compute.pooler_roles import Limits
from lamplighter.compute.user import drop_prefix
from lamplighter.compute.watch import ExitWatch, describe_status

log = structlog.get_logger("lamplighter.compute")

_UP = b"process up"
_RELOADED = b"re-reading config"
#: As many files as it may open: our own limit is often 1024, and each client takes one. Set from within, because root
#: of a container may not do it to a process of another user.
_WITH_FILES = ("/bin/sh", "-c", 'ulimit -n "$(ulimit -H -n)"; exec "$@"', "sh")
#: Seconds between looks into the log.
_LOOK_EVERY = 0.002

PoolerState = Literal["running", "stopped", "crashed"]


@dataclass(frozen=True, slots=True)
class PoolerStatus:
    """What is known of a pooler now."""

    compute_id: str
    state: PoolerState
    pid: int | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class PoolerPatience:
    """Seconds. `poll`: between looks at the roles. `first_pause` doubles with each crash, up to `longest_pause`.

    `reread`: at least so long between two readings of all roles that logins ask for.
    """

    poll: float = 1.0
    reread: float = 1.0
    up: float = 10.0
    answer: float = 10.0
    quick: float = 2.0
    kill: float = 10.0
    first_pause: float = 0.1
    longest_pause: float = 30.0
    steady: float = 60.0


@dataclass(slots=True)
class _Pooler:
    """What this process knows of one pooler. `spec` None: none is wanted."""

    id: str
    places: PoolerPlaces
    knowledge: Knowledge
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    spec: PoolerSpec | None = None
    record: PoolerRecord | None = None
    watch: ExitWatch | None = None
    keeper: asyncio.Task[None] | None = None
    #: Starts it again, after a crash or to have it forget.
    restarting: asyncio.Task[None] | None = None
    crashed: bool = False
    #: How often it has crashed, or could not be started again, without a steady time in between.
    crashes: int = 0
    ending: bool = False

    @property
    def running(self) -> bool:
        return self.watch is not None and not self.watch.ended.done()


class Poolers:
    """All poolers of one host; one `Poolers` works on a run directory at a time, the same one as the supervisor's.

    `connect` and `running` ask about a compute. `owner` is who Postgres runs as, and so PgBouncer. A pooler that
    crashes is started again while its compute runs; the log says how it ended.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        program: PoolerProgram,
        owner: tuple[int, int],
        connect: ConnectTo,
        running: Callable[[str], bool],
        log_dir: Path | None = None,
        patience: PoolerPatience | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._program = program
        self._owner = owner
        self._connect = connect
        self._compute_runs = running
        self._log_dir = log_dir
        self._patience = patience or PoolerPatience()
        self._limits = limits or Limits()
        self._drop = drop_prefix(owner)
        self._poolers: dict[str, _Pooler] = {}

    # Life and death

    async def adopt(self) -> Sequence[PoolerStatus]:
        """Once, after the supervisor has adopted: find what an earlier process left.

        A living pooler beside a running compute is taken over; one that died beside it is started again; all others are
        ended. Returns what there is now.
        """
        running = await asyncio.to_thread(pooler_files.running_below, self._run_dir)
        for path in sorted(self._run_dir.glob(f"*/{pooler_files.RECORD_NAME}")):
            record = await asyncio.to_thread(pooler_files.load, path)
            if record is not None:
                async with self._locked(record.spec.compute_id) as pooler:
                    if pooler.places.record == path and await self._adopt_one(pooler, record):
                        running.pop(pooler.places.ini, None)
        if left := await asyncio.to_thread(process.kill_all, [pid for pids in running.values() for pid in pids]):
            raise StopFailed("a pooler", left)
        for pooler in list(self._poolers.values()):
            if pooler.spec is not None and not pooler.running:
                self._revive_later(pooler)
        return self.list()

    async def _adopt_one(self, pooler: _Pooler, record: PoolerRecord) -> bool:
        """Whether a living process was taken over."""
        if not self._compute_runs(pooler.id):
            await asyncio.to_thread(pooler_files.remove, pooler.places)
            return False
        pooler.spec, pooler.record = record.spec, record
        identity = record.identity
        if identity is None or not record.up or not process.is_alive(identity):
            log.warning("pooler.ended_unwatched", compute_id=pooler.id)
            pooler.crashed = True
            return False
        try:
            self._watch(pooler, identity.pid)
        except ProcessLookupError:
            return False
        if not process.is_alive(identity):
            # It ended, and its pid was given away, before there was a handle that holds on to it.
            self._unwatch(pooler)
            return False
        pooler.knowledge.users = await asyncio.to_thread(pooler_files.load_users, pooler.places)
        self._keep(pooler)
        return True

    async def start(self, compute_id: str, *, port: int, socket: tuple[Path, int], cu: float) -> PoolerStatus:
        """Make a pooler run beside a running compute, and return when it listens and knows all roles.

        `socket` is what `Supervisor.socket` gives. One that runs already gets another size without losing a client; for
        another port it is stopped first. Raises `PoolerFailed`, `PoolerPortTaken`, `NotRunning`, psycopg.Error.
        """
        spec = PoolerSpec(compute_id, port, socket[0], socket[1], cu)
        async with self._locked(compute_id) as pooler:
            await _cancel(pooler.restarting)
            if pooler.running and pooler.spec is not None and replace(spec, cu=pooler.spec.cu) != pooler.spec:
                await self._end(pooler)
            if pooler.running:
                await self._resize(pooler, spec)
                await self._tell(pooler)
            else:
                pooler.crashes = 0
                await self._launch(pooler, spec)
            return self.status(compute_id)

    async def reload(self, compute_id: str) -> None:
        """Have PgBouncer know the roles and passwords of this moment. Nothing happens if it does not run.

        Raises `NotRunning` and psycopg.Error when the compute does not answer.
        """
        pooler = self._poolers.get(compute_id)
        if pooler is not None and pooler.running:
            await self._tell(pooler)

    async def verifier(self, compute_id: str, role: str) -> str | None:
        """What a role proves its password against, at this moment and by PgBouncer too; None if it may not get in.

        Costs a look at that one role, unless PgBouncer has to be told of it, for which a login waits up to a second.
        None too for a role beyond the limit. Raises `PoolerFailed` if no pooler runs, and as `reload`.
        """
        pooler = self._poolers.get(compute_id)
        asked_at = time.monotonic()
        while pooler is not None and pooler.running:
            if not may_be_role(role):
                return None
            knowledge = pooler.knowledge
            async with knowledge.telling:
                now = await knowledge.verifier(role)
                known = knowledge.users.open.get(role)
                if known == now:
                    return known
                if knowledge.is_beyond(role, asked_at):
                    return None
                pause = knowledge.pause()
                if pause <= 0:
                    await self._update(pooler)
                    return knowledge.users.open.get(role)
            await asyncio.sleep(pause)
        raise PoolerFailed(compute_id, "does not run")

    async def stop(self, compute_id: str) -> None:
        """End the pooler, and return when it is gone. Before its compute is stopped. No error if none runs.

        Clients are cut off. Raises `StopFailed`.
        """
        if compute_id in self._poolers:
            async with self._locked(compute_id) as pooler:
                await self._stop(pooler)

    async def stop_beside_nothing(self, compute_id: str) -> None:
        """`stop`, unless the compute runs: it may have been started again since somebody saw it crash."""
        if compute_id in self._poolers:
            async with self._locked(compute_id) as pooler:
                if not self._compute_runs(compute_id):
                    await self._stop(pooler)

    async def _stop(self, pooler: _Pooler) -> None:
        pooler.spec = None
        await _cancel(pooler.restarting)
        await self._end(pooler)
        pooler.record, pooler.crashed, pooler.knowledge.users = None, False, Users()
        await asyncio.to_thread(pooler_files.remove, pooler.places)

    async def forget(self, compute_id: str) -> None:
        """Stop, and remove the log too: the compute is gone for good."""
        await self.stop(compute_id)
        self._poolers.pop(compute_id, None)
        places = pooler_places(self._run_dir, compute_id, self._log_dir)
        await asyncio.to_thread(pooler_files.remove_logs, places)

    async def close(self) -> None:
        """Stop watching. The poolers go on, to be adopted by the next process."""
        for pooler in self._poolers.values():
            await _cancel(pooler.restarting)
            await self._leave(pooler)
            self._unwatch(pooler)

    def status(self, compute_id: str) -> PoolerStatus:
        """What is known now; costs nothing."""
        pooler = self._poolers.get(compute_id)
        if pooler is None or pooler.spec is None:
            return PoolerStatus(compute_id, "stopped")
        port = pooler.spec.port
        if not pooler.running or pooler.watch is None or pooler.record is None or not pooler.record.up:
            return PoolerStatus(compute_id, "crashed" if pooler.crashed else "stopped", port=port)
        return PoolerStatus(compute_id, "running", pooler.watch.pid, port)

    def list(self) -> Sequence[PoolerStatus]:
        """All that run or have crashed."""
        statuses = (self.status(compute_id) for compute_id in sorted(self._poolers))
        return [status for status in statuses if status.state != "stopped"]

    def log_file(self, compute_id: str) -> Path:
        """Where PgBouncer writes its log."""
        return pooler_places(self._run_dir, compute_id, self._log_dir).log

    # Inside of the poolers

    @contextlib.asynccontextmanager
    async def _locked(self, compute_id: str) -> AsyncIterator[_Pooler]:
        """The pooler, for us alone."""
        while True:
            pooler = self._poolers.get(compute_id)
            if pooler is None:
                pooler = self._poolers[compute_id] = self._make(compute_id)
            async with pooler.lock:
                # Else it was forgotten while we waited, and another may have been made for the id.
                if self._poolers.get(compute_id) is pooler:
                    yield pooler
                    return

    def _make(self, compute_id: str) -> _Pooler:
        knowledge = Knowledge(
            compute_id,
            connect=self._connect,
            limits=self._limits,
            answer=self._patience.answer,
            reread=self._patience.reread,
        )
        return _Pooler(compute_id, pooler_places(self._run_dir, compute_id, self._log_dir), knowledge)

    async def _launch(self, pooler: _Pooler, spec: PoolerSpec) -> None:
        pooler.spec = spec
        async with pooler.knowledge.telling:
            try:
                await pooler.knowledge.begin()
                await asyncio.to_thread(self._prepare, pooler, spec)
                offset = logs.size(pooler.places.logs)
                # From here on in one go, so that a cancelled start leaves nothing, or a process that is watched.
                self._spawn(pooler, spec)
                await self._await_up(pooler, spec, offset)
            except BaseException as error:
                await asyncio.shield(self._give_up(pooler))
                if isinstance(error, OSError | ValueError) and not isinstance(error, ComputeError):
                    raise PoolerFailed(spec.compute_id, f"did not start: {error}") from error
                raise
        self._keep(pooler)

    def _prepare(self, pooler: _Pooler, spec: PoolerSpec) -> None:
        places = pooler.places
        if places.record.exists():
            # Of a process that ended without a word, or of one that was cut off in a start.
            survivors = pooler_files.running_below(self._run_dir).get(places.ini, [])
            if left := process.kill_all(survivors):
                raise StopFailed(spec.compute_id, left)
        if not places.home.is_dir():
            raise NotRunning(spec.compute_id)
        logs.rotate(places.logs)
        pooler.record = PoolerRecord(spec)
        self._write(pooler, spec)

    def _write(self, pooler: _Pooler, spec: PoolerSpec) -> None:
        """All that PgBouncer reads, and the record."""
        _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
        content = render_ini(
            spec,
            version=self._program.version,
            users_file=pooler.places.users,
            files=files if files != resource.RLIM_INFINITY else 1 << 20,
        )
        pooler_files.save_users(pooler.knowledge.users, pooler.places, self._owner)
        replace_file(pooler.places.ini, content, self._owner)
        if pooler.record is not None:
            pooler_files.save(pooler.record, pooler.places.record)

    def _spawn(self, pooler: _Pooler, spec: PoolerSpec) -> None:
        # Its words must not depend on the locale, and it must find no socket to take over.
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C"}
        argv = [*_WITH_FILES, *self._drop, str(self._program.path), str(pooler.places.ini)]
        pid = launcher.spawn(argv, env, pooler.places.log)
        identity = process.identify(pid, pooler.places.home)
        pooler.record = PoolerRecord(spec, identity, spawned_at=time.time())
        self._watch(pooler, pid)
        pooler_files.save(pooler.record, pooler.places.record)

    async def _await_up(self, pooler: _Pooler, spec: PoolerSpec, offset: int) -> None:
        up = await self._said(pooler, _UP, offset, self._patience.up)
        assert pooler.watch is not None
        assert pooler.record is not None
        if up and pooler.running:
            pooler.record, pooler.crashed = replace(pooler.record, up=True), False
            pooler_files.save(pooler.record, pooler.places.record)
            return
        tail = logs.read_end(pooler.places.logs, offset)
        if logs.port_taken(tail) or "Address in use" in tail:
            raise PoolerPortTaken(spec.compute_id, spec.port, tail)
        ended = pooler.watch.ended
        why = f"it {describe_status(ended.result())}" if ended.done() else "it gave no sign in time"
        raise PoolerFailed(spec.compute_id, f"did not start: {why}", tail)

    async def _said(self, pooler: _Pooler, word: bytes, offset: int, within: float) -> bool:
        """Whether PgBouncer writes a word into its log, after the offset, while it lives."""
        deadline = time.monotonic() + within
        while True:
            alive = pooler.running
            with contextlib.suppress(OSError), pooler.places.log.open("rb") as file:
                file.seek(offset)
                if word in file.read():
                    return True
            if not alive or time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_EVERY)

    async def _give_up(self, pooler: _Pooler) -> None:
        """After a start that failed: nothing of it is left but its log."""
        await self._end(pooler)
        pooler.spec = pooler.record = None
        for path in (pooler.places.record, pooler.places.ini, pooler.places.users):
            path.unlink(missing_ok=True)

    async def _resize(self, pooler: _Pooler, spec: PoolerSpec) -> None:
        if spec == pooler.spec or pooler.record is None or pooler.watch is None:
            return
        pooler.spec, pooler.record = spec, replace(pooler.record, spec=spec)
        async with pooler.knowledge.telling:
            await asyncio.to_thread(self._write, pooler, spec)
            await self._hang_up(pooler)

    async def _hang_up(self, pooler: _Pooler) -> None:
        offset = logs.size(pooler.places.logs)
        if pooler.watch is not None:
            pooler.watch.signal(signal.SIGHUP)
            if not await self._said(pooler, _RELOADED, offset, self._patience.answer) and pooler.running:
                log.warning("pooler.no_answer", compute_id=pooler.id)

    # What it is told of roles

    async def _tell(self, pooler: _Pooler) -> None:
        """Have PgBouncer told of the roles, if they are not what it knows."""
        async with pooler.knowledge.telling:
            if pooler.running:
                await self._update(pooler)

    async def _update(self, pooler: _Pooler) -> None:
        """As `_tell`, for whoever holds `telling`."""
        knowledge = pooler.knowledge
        await knowledge.refresh()
        if pooler.spec is None:
            # Stopped meanwhile, by somebody who closed the session before we had it.
            await knowledge.close()
        elif not knowledge.told:
            await asyncio.to_thread(self._write, pooler, pooler.spec)
            await self._hang_up(pooler)
            knowledge.told = True
        elif not pooler.places.record.exists():
            # A stop of the compute took all files with it, and it runs again.
            await asyncio.to_thread(self._write, pooler, pooler.spec)
        if knowledge.locks_too_many:
            self._renew_later(pooler)

    def _keep(self, pooler: _Pooler) -> None:
        if pooler.keeper is None or pooler.keeper.done():
            pooler.keeper = asyncio.get_running_loop().create_task(self._look_again(pooler))

    async def _look_again(self, pooler: _Pooler) -> None:
        while True:
            await asyncio.sleep(self._patience.poll)
            try:
                await asyncio.to_thread(logs.rotate, pooler.places.logs)
                await self._tell(pooler)
            except (psycopg.Error, ComputeError, OSError) as error:
                # Its compute is starting, stopping or stuck; what PgBouncer knows is as good as ever.
                log.debug("pooler.roles_unknown", compute_id=pooler.id, why=str(error))

    # Its end

    def _watch(self, pooler: _Pooler, pid: int) -> None:
        pooler.ending = False
        pooler.watch = watch = ExitWatch(pid)
        watch.ended.add_done_callback(lambda _ended: self._on_exit(pooler, watch))

    def _unwatch(self, pooler: _Pooler) -> None:
        if pooler.watch is not None:
            pooler.watch.close()
            pooler.watch = None

    def _on_exit(self, pooler: _Pooler, watch: ExitWatch) -> None:
        # Before it is up, `_launch` looks after it.
        if pooler.ending or pooler.watch is not watch or pooler.record is None or not pooler.record.up:
            return
        pooler.crashed = True
        steady = time.time() - pooler.record.spawned_at > self._patience.steady
        pooler.crashes = 0 if steady else pooler.crashes
        log.error("pooler.crashed", compute_id=pooler.id, reason=describe_status(watch.ended.result()))
        self._revive_later(pooler)

    def _renew_later(self, pooler: _Pooler) -> None:
        # A task of its own, as whoever found it out holds what an end waits for; and in that place, as a start and a
        # stop are to call it off.
        if pooler.restarting is None or pooler.restarting.done():
            pooler.restarting = asyncio.get_running_loop().create_task(self._renew(pooler))

    async def _renew(self, pooler: _Pooler) -> None:
        """End it and start it again, knowing nobody who is gone: there is no other way to have PgBouncer forget."""
        async with pooler.lock:
            if pooler.spec is None or not pooler.running:
                return
            log.warning("pooler.started_afresh", compute_id=pooler.id, locked=len(pooler.knowledge.users.locked))
            try:
                await self._end(pooler)
            except StopFailed as error:
                log.error("pooler.not_ended", compute_id=pooler.id, why=str(error))  # noqa: TRY400 - no surprise
                return
            pooler.crashes = 0
        await self._revive(pooler)

    def _revive_later(self, pooler: _Pooler) -> None:
        if pooler.restarting is None or pooler.restarting.done():
            pooler.restarting = asyncio.get_running_loop().create_task(self._revive(pooler))

    async def _revive(self, pooler: _Pooler) -> None:
        """Start it again, as often as it takes, with a longer pause each time, while its compute runs."""
        while (spec := pooler.spec) is not None and not pooler.running and self._compute_runs(pooler.id):
            patience = self._patience
            pause = min(patience.longest_pause, patience.first_pause * 2.0 ** min(pooler.crashes, 16))
            pooler.crashes += 1
            await asyncio.sleep(pause)
            async with pooler.lock:
                if pooler.spec is not spec or pooler.running or not self._compute_runs(pooler.id):
                    continue
                await self._leave(pooler)
                self._unwatch(pooler)
                try:
                    await self._launch(pooler, spec)
                except (psycopg.Error, ComputeError) as error:
                    pooler.spec, pooler.crashed = spec, True
                    log.warning("pooler.not_revived", compute_id=pooler.id, why=str(error))

    async def _leave(self, pooler: _Pooler) -> None:
        """End what we do beside the process."""
        await _cancel(pooler.keeper)
        pooler.keeper = None
        await pooler.knowledge.close()

    async def _end(self, pooler: _Pooler) -> None:
        pooler.ending = True
        await self._leave(pooler)
        watch = pooler.watch
        if watch is None:
            return
        quick = signal.SIGQUIT if self._program.version >= QUIT_SINCE else signal.SIGTERM
        patience = self._patience
        # The safe end before it takes a third of a second even if nobody is there; and the compute's own stop, which
        # comes next, waits for no transaction either.
        steps = ((quick, patience.quick), (signal.SIGKILL, patience.kill))
        for number, within in steps:
            if watch.ended.done():
                break
            watch.signal(number)
            await watch.wait(within)
        if not watch.ended.done():
            raise StopFailed(pooler.id, [watch.pid])
        self._unwatch(pooler)


async def _cancel(task: asyncio.Task[None] | None) -> None:
    """Cancel and await a task, unless that is the caller itself."""
    if task is not None and task is not asyncio.current_task():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
