"""Start, stop, watch, adopt and talk to the Postgres of computes.

A postmaster is detached and known by its record in the run directory, so that this process may die and another go on
where it stopped. One `Supervisor` works on a run directory at a time. Calls for one compute wait for each other; those
for different ones do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import psycopg
import structlog

from lamplighter import faults
from lamplighter.compute import launcher, logs, process, programs, readiness, shm, sql
from lamplighter.compute import schema as schemas
from lamplighter.compute.backup import Backup
from lamplighter.compute.cgroup import CgroupHome, Cgroups, limits_of
from lamplighter.compute.config import (
    SOCKET_PORT,
    SUPERUSER,
    Facts,
    Floors,
    Tls,
    check_settings,
    render_hba,
    render_ident,
    render_postgresql_conf,
    size_of,
)
from lamplighter.compute.errors import (
    DataDirInUse,
    NotRunning,
    PortTaken,
    SettingsRefused,
    StartFailed,
    StillRunning,
    StopFailed,
    SystemUserError,
)
from lamplighter.compute.places import (
    Places,
    check_run_dir,
    make_home,
    make_run_dir,
    places_of,
    remove_home,
    remove_logs,
    replace_file,
)
from lamplighter.compute.ports import Changes, ComputeSpec, ComputeStatus, CrashListener, PostgresBuild
from lamplighter.compute.process import PostgresProcess, ProcessIdentity
from lamplighter.compute.readiness import Answer, Patience
from lamplighter.compute.record import Record, load, same_compute, save
from lamplighter.compute.sql import Connection
from lamplighter.compute.tls import TlsFiles
from lamplighter.compute.user import drop_prefix
from lamplighter.compute.watch import ExitWatch, describe_status

log = structlog.get_logger("lamplighter.compute")
_T = TypeVar("_T")

#: What users expect to find loaded, where the build has it.
_PRELOAD = ("pg_stat_statements",)
_ROTATE_EVERY = 10.0
#: Seconds after which a postmaster surely handles SIGHUP, which would end it before.
_GROWN_UP = 5.0


@dataclass(frozen=True, slots=True)
class StopPatience:
    """Seconds until a stop becomes harsher: fast (SIGINT), immediate (SIGQUIT), SIGKILL."""

    fast: float = 30.0
    immediate: float = 10.0
    kill: float = 10.0


@dataclass(slots=True)
class _Compute:
    """What this process knows of one compute. `record` None: nothing runs, and nothing is known to have crashed."""

    id: str
    places: Places
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    record: Record | None = None
    watch: ExitWatch | None = None
    #: Set while somebody ends the postmaster on purpose, so that its end is no crash.
    ending: bool = False

    @property
    def running(self) -> bool:
        return self.watch is not None and not self.watch.ended.done()


class Supervisor:
    """All computes of one host.

    `builds` gives the programs of a major and may block (it is called in a thread). `owner` (uid, gid) is who Postgres
    runs as. `tls` None leaves TLS out. `log_dir` None keeps logs in the run directory, to be removed at a clean stop.
    `copy_on_write`: the data lies on btrfs or the like, where recycling WAL files costs and gains nothing.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        builds: Callable[[int], PostgresBuild],
        owner: tuple[int, int],
        tls: TlsFiles | None = None,
        on_crash: CrashListener | None = None,
        log_dir: Path | None = None,
        copy_on_write: bool = False,
        cgroups: Cgroups | None = None,
        patience: Patience | None = None,
        stop_patience: StopPatience | None = None,
    ) -> None:
        """Raises `RunDirUnfit` if sockets below `run_dir` would have too long a path, or others may write to it."""
        check_run_dir(run_dir)
        self._run_dir = run_dir
        self._builds = builds
        self._owner = owner
        self._tls = tls
        self._on_crash = on_crash or (lambda _id, _why: None)
        self._log_dir = log_dir
        self._copy_on_write = copy_on_write
        self._cgroups = cgroups or Cgroups(CgroupHome(None, "limits were not asked for"))
        self._patience = patience or Patience()
        self._stop_patience = stop_patience or StopPatience()
        self._computes: dict[str, _Compute] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rotation: asyncio.Task[None] | None = None
        self._drop = drop_prefix(owner)
        self._os_users = _os_users(owner)

    # Life and death

    async def adopt(self) -> Sequence[ComputeStatus]:
        """Once, at the start: find what an earlier process left. Living postmasters are watched from now on.

        Dead ones are returned as `crashed` with a reason; what they left running is killed, their sockets removed.
        Raises `RunDirUnfit`: the records of others are not to be believed.
        """
        await asyncio.to_thread(self._make_directories)
        processes = await asyncio.to_thread(process.postgres_processes)
        statuses = []
        for path in sorted(self._run_dir.glob("*/record.json")):
            record = await asyncio.to_thread(load, path)
            if record is None:
                # Half a record: the host crashed while it was written, so nothing of it runs.
                continue
            async with self._locked(record.spec.id) as compute:
                statuses.append(await self._adopt_one(compute, record, processes))
        self._rotation = self._rotation or asyncio.create_task(self._rotate_logs())
        return statuses

    async def _adopt_one(
        self, compute: _Compute, record: Record, processes: Sequence[PostgresProcess]
    ) -> ComputeStatus:
        compute.record = record
        spec = record.spec
        if record.phase == "started":
            identity = record.identity
            if identity is None and (found := _our_postmaster(processes, compute.places)):
                identity = process.identify(found.pid, spec.data_dir)
            if identity is not None and self._take(compute, replace(record, identity=identity), identity):
                if _is_quiet(compute):
                    # It lets nobody in; the next start begins anew where this one was left.
                    await self._put_away(compute, "fast")
                return self.status(spec.id)
            await self._bury(compute, "ended while nobody watched", processes)
        return self.status(spec.id)

    def _take(self, compute: _Compute, record: Record, identity: ProcessIdentity) -> bool:
        """Watch a postmaster of an earlier process, if it lives."""
        if not process.is_alive(identity):
            return False
        try:
            watch = self._watch(compute, record, identity.pid)
        except ProcessLookupError:
            return False
        if not process.is_alive(identity):
            # It ended, and its pid was given away, before there was a handle that holds on to it.
            watch.close()
            compute.watch = None
            return False
        if time.time() - record.spawned_at > _GROWN_UP:
            # The certificate may have been renewed meanwhile.
            watch.signal(signal.SIGHUP)
        return True

    async def start(self, spec: ComputeSpec) -> ComputeStatus:
        """Make a postmaster run with this spec, and return when it has answered a query.

        Nothing happens if it does already. If it runs with another spec it is stopped first: clients are cut off.
        Raises `StartFailed`, `PortTaken`, `SettingsRefused`, `DataDirInUse`.
        """
        if problems := check_settings(spec.settings):
            raise SettingsRefused(problems)
        async with self._locked(spec.id) as compute:
            self._rotation = self._rotation or asyncio.create_task(self._rotate_logs())
            other = compute.record is not None and not same_compute(compute.record.spec, spec)
            if compute.running and (other or _is_quiet(compute)):
                await self._stop(compute, "fast")
            if compute.running:
                await self._await_ready(compute, launched=False)
            else:
                await self._open(compute, spec)
            return self.status(spec.id)

    async def _open(self, compute: _Compute, spec: ComputeSpec) -> None:
        """Launch; a clone's first start is a quiet one before, if it may have subscriptions (see `launcher.QUIET`)."""
        await self._launch(compute, spec)
        await self._await_ready(compute, launched=True)
        assert compute.watch is not None
        arguments = process.arguments(compute.watch.pid)
        if not (launcher.QUIET[1] in arguments or launcher.CHECK[1] in arguments):
            return
        try:
            async with sql.session(lambda name: self.connect(spec.id, name), "postgres") as connection:
                silenced = (await connection.execute(launcher.SILENCE)).rowcount
        except (psycopg.Error, NotRunning) as error:
            raise StartFailed(spec.id, f"its subscriptions could not be disabled: {error}") from error
        if silenced:
            log.warning("compute.subscriptions_disabled", compute_id=spec.id, count=silenced)
        if launcher.QUIET[1] in arguments:
            await self._stop(compute, "fast")
            await self._launch(compute, spec, silenced=True)
            await self._await_ready(compute, launched=True)

    async def stop(self, compute_id: str, *, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the postmaster and all its children, and return when they are gone. No error if none runs.

        `fast` writes a checkpoint, so that clones and the next start find a clean directory; `immediate` leaves that to
        the recovery of the next start. Becomes harsher when it takes too long. Raises `StopFailed`.
        """
        async with self._locked(compute_id) as compute:
            await self._put_away(compute, mode)

    async def settle(self, compute_id: str) -> None:
        """Return when no process works on the compute's data directory any more, or when it runs.

        For whoever is to copy or delete the data of a compute that does not run: of one that has just crashed, children
        may still write. Costs nothing unless there was a crash. Raises `StopFailed`, `DataDirInUse`.
        """
        if compute_id not in self._computes:
            return
        async with self._locked(compute_id) as compute:
            if compute.running and compute.record and compute.record.identity and compute.watch:
                if process.is_alive(compute.record.identity):
                    return
                # It ended a moment ago, and the event loop has not been told.
                await compute.watch.wait(self._stop_patience.kill)
            await self._clear(compute)

    async def forget(self, compute_id: str) -> None:
        """Remove all that is kept of a compute which is gone for good: log, crash record, sockets.

        No error if nothing is known. Raises `StillRunning`, and what `settle` raises.
        """
        async with self._locked(compute_id) as compute:
            if compute.running:
                raise StillRunning(compute_id)
            await self._clear(compute)
            compute.watch = compute.record = None
            await _in_thread(_remove_all, compute.places)
            self._cgroups.remove(compute.places.unique_name)
            del self._computes[compute_id]

    async def _clear(self, compute: _Compute) -> None:
        """Kill what a postmaster that crashed has left on the data directory."""
        if compute.record is not None and not compute.running:
            spec = compute.record.spec
            await _in_thread(lambda: self._end_survivors(compute.places, spec, process.postgres_processes()))

    async def _put_away(self, compute: _Compute, mode: Literal["fast", "immediate"]) -> None:
        await self._stop(compute, mode)
        compute.record = None
        await _in_thread(remove_home, compute.places)

    async def close(self) -> None:
        """Stop watching. The postmasters go on, to be adopted by the next process."""
        if self._rotation is not None:
            self._rotation.cancel()
            await asyncio.gather(self._rotation, return_exceptions=True)
            self._rotation = None
        for task in list(self._tasks):
            await asyncio.gather(task, return_exceptions=True)
        for compute in self._computes.values():
            if compute.watch is not None:
                compute.watch.close()
        # Not empty, or not there.
        with contextlib.suppress(OSError):
            self._run_dir.rmdir()

    async def reread_certificates(self) -> None:
        """Have every postmaster read certificate and key again; sessions that there are keep theirs."""
        for compute in list(self._computes.values()):
            if compute.running and compute.record is not None:
                await asyncio.sleep(max(0.0, compute.record.spawned_at + _GROWN_UP - time.time()))
                if compute.running and compute.watch is not None:
                    compute.watch.signal(signal.SIGHUP)

    async def reload(self, spec: ComputeSpec) -> tuple[str, ...]:
        """Give a running postmaster the settings of `spec`. Returns the names of those that only a restart brings.

        Raises `SettingsRefused` when Postgres does not take a value, and leaves the former ones; `NotRunning`.
        """
        build = await self._build(spec)
        if problems := await self.validate(spec.major, spec.settings):
            raise SettingsRefused(problems)
        async with self._locked(spec.id) as compute:
            record = self._require(compute)
            spec = replace(spec, enter=record.spec.enter, data_dir=record.spec.data_dir)
            async with sql.session(lambda name: self.connect(spec.id, name), "postgres") as connection:
                facts = self._facts(compute.places, spec, build, self._primary(spec))
                await _in_thread(_write_configuration, compute.places, spec, facts, self._owner)
                pending = await sql.reload(connection)
            if not pending:
                compute.record = replace(record, spec=spec)
                await _in_thread(save, compute.record, compute.places.record)
            return pending

    async def validate(self, major: int, settings: Mapping[str, str]) -> Sequence[str]:
        """Say what is wrong with settings, names and values, a sentence each. Asks the programs of that major.

        Raises `ChangeFailed` when these do not answer.
        """
        if problems := check_settings(settings):
            return problems
        build = await asyncio.to_thread(self._builds, major)
        return await asyncio.to_thread(programs.refused_settings, build, self._drop, settings)

    # What is known

    def status(self, compute_id: str) -> ComputeStatus:
        """What is known now; costs nothing. A compute that was never started here is `stopped`."""
        compute = self._computes.get(compute_id)
        record = compute.record if compute else None
        if compute is None or record is None:
            return ComputeStatus(compute_id, "stopped")
        if record.phase == "crashed":
            return ComputeStatus(compute_id, "crashed", port=record.spec.port, reason=record.reason)
        if not compute.running or record.identity is None:
            return ComputeStatus(compute_id, "stopped")
        return ComputeStatus(
            compute_id, "running", pid=record.identity.pid, started_at=record.spawned_at, port=record.spec.port
        )

    def list(self) -> Sequence[ComputeStatus]:
        """All that run or have crashed."""
        statuses = (self.status(compute_id) for compute_id in sorted(self._computes))
        return [status for status in statuses if status.state != "stopped"]

    def spec(self, compute_id: str) -> ComputeSpec:
        """What the running postmaster was started with. Raises `NotRunning`."""
        return self._require(self._compute(compute_id)).spec

    def socket(self, compute_id: str) -> tuple[Path, int]:
        """Directory of the Unix socket and the port in its name, for libpq's `host` and `port`. Raises `NotRunning`."""
        compute = self._compute(compute_id)
        self._require(compute)
        return compute.places.sockets, SOCKET_PORT

    def log_file(self, compute_id: str) -> Path:
        """Where the postmaster writes its log."""
        return self._compute(compute_id).places.log

    def log_tail(self, compute_id: str) -> str:
        """The last lines of the log."""
        return logs.read_end(self._compute(compute_id).places)

    async def memory(self, compute_id: str) -> int | None:
        """Bytes of memory with shared pages split among processes (PSS); None when it does not run."""
        compute = self._compute(compute_id)
        if not compute.running or compute.watch is None:
            return None
        return await asyncio.to_thread(process.proportional_memory, compute.watch.pid)

    # What goes on inside

    async def connect(self, compute_id: str, dbname: str = "postgres") -> Connection:
        """A session of the platform's superuser, with autocommit, by the Unix socket.

        Raises `NotRunning`, and psycopg.OperationalError when Postgres refuses. The caller closes it. `search_path` is
        `pg_catalog` alone, for users control what lies elsewhere.
        """
        directory, port = self.socket(compute_id)
        try:
            return await psycopg.AsyncConnection.connect(
                host=str(directory),
                port=port,
                user=SUPERUSER,
                dbname=dbname,
                application_name="lamplighter",
                options=sql.connect_options(),
                # Given, so that no PG* variable of our environment counts.
                sslmode="disable",
                gssencmode="disable",
                passfile="/nonexistent",
                connect_timeout=10,
                autocommit=True,
            )
        except psycopg.OperationalError as error:
            if not self._compute(compute_id).running:
                raise NotRunning(compute_id) from error
            raise

    async def apply(self, compute_id: str, changes: Changes) -> None:
        """Make, change and drop roles and databases. Raises `ChangeFailed`, `ReservedName`, `NotRunning`."""
        # One after the other: two that change one row of a catalog at once fail with "tuple concurrently updated".
        async with self._compute(compute_id).changing:
            await sql.apply(lambda dbname: self.connect(compute_id, dbname), changes)

    async def backup(self, compute_id: str) -> Backup:
        """This compute as the source of a clone. Raises `NotRunning`."""
        record = self._require(self._compute(compute_id))
        assert record.identity is not None
        data_dir = record.spec.data_dir
        if record.spec.enter:
            data_dir = Path(f"/proc/{record.identity.pid}/root", *data_dir.parts[1:])
        return Backup(lambda: self.connect(compute_id), data_dir)

    async def create_slot(self, compute_id: str, slot: str) -> None:
        """Make the physical slot that a standby is to use, before it is cloned. No error if it is there."""
        async with sql.session(lambda name: self.connect(compute_id, name), "postgres") as connection:
            await sql.create_slot(connection, slot)

    async def drop_slot(self, compute_id: str, slot: str) -> None:
        """Drop a standby's slot. No error if there is none."""
        async with sql.session(lambda name: self.connect(compute_id, name), "postgres") as connection:
            await sql.drop_slot(connection, slot)

    async def connections(self, compute_id: str) -> int:
        """How many sessions users have."""
        async with sql.session(lambda name: self.connect(compute_id, name), "postgres") as connection:
            return await sql.count_connections(connection)

    async def is_working(self, compute_id: str) -> bool:
        """Whether a user's query runs, or a logical replication subscriber is fed, right now."""
        async with sql.session(lambda name: self.connect(compute_id, name), "postgres") as connection:
            return await sql.is_working(connection)

    async def verifier(self, compute_id: str, role: str) -> str | None:
        """What a user's role is known by: `SCRAM-SHA-256$...`, None when it may not log in by password."""
        async with sql.session(lambda name: self.connect(compute_id, name), "postgres") as connection:
            return await sql.verifier(connection, role)

    async def database_sizes(self, compute_id: str) -> dict[str, int]:
        """Bytes of each database."""
        async with sql.session(lambda name: self.connect(compute_id, name), "postgres") as connection:
            return await sql.database_sizes(connection)

    async def list_databases(self, compute_id: str) -> Sequence[sql.DatabaseInfo]:
        """The databases of users."""
        async with sql.session(lambda name: self.connect(compute_id, name), "postgres") as connection:
            return await sql.list_databases(connection)

    async def list_roles(self, compute_id: str) -> Sequence[sql.RoleInfo]:
        """The roles of users."""
        async with sql.session(lambda name: self.connect(compute_id, name), "postgres") as connection:
            return await sql.list_roles(connection)

    async def copy_schema(self, source_id: str, target_id: str) -> None:
        """Bring roles, databases and what is in them, without rows, from one running compute to another.

        What the target has already of roles and databases is kept. Raises `ChangeFailed`, `NotRunning`.
        """
        build = await self._build(self._require(self._compute(target_id)).spec)
        await schemas.copy_schema(
            schemas.End(lambda name: self.connect(source_id, name), *self.socket(source_id)),
            schemas.End(lambda name: self.connect(target_id, name), *self.socket(target_id)),
            build,
            self._drop,
        )

    # Inside of the supervisor

    def _compute(self, compute_id: str) -> _Compute:
        found = self._computes.get(compute_id)
        if found is None:
            found = _Compute(compute_id, places_of(self._run_dir, compute_id, self._log_dir))
            self._computes[compute_id] = found
        return found

    @contextlib.asynccontextmanager
    async def _locked(self, compute_id: str) -> AsyncIterator[_Compute]:
        """The compute, for us alone."""
        while True:
            compute = self._compute(compute_id)
            async with compute.lock:
                # Else it was forgotten while we waited, and another may have been made for the id.
                if self._computes.get(compute_id) is compute:
                    yield compute
                    return

    def _require(self, compute: _Compute) -> Record:
        if compute.record is None or not compute.running:
            raise NotRunning(compute.id)
        return compute.record

    def _make_directories(self) -> None:
        make_run_dir(self._run_dir, self._owner)
        if self._log_dir is not None:
            self._log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def _build(self, spec: ComputeSpec) -> PostgresBuild:
        return await asyncio.to_thread(self._builds, spec.major)

    async def _launch(self, compute: _Compute, spec: ComputeSpec, *, silenced: bool = False) -> None:
        build = await self._build(spec)
        places = compute.places
        extra = await _in_thread(self._make_room, compute, spec, silenced)
        argv = [*launcher.command(spec, places, build.program("postgres"), self._drop, silenced=silenced), *extra]
        env = launcher.environment(build.environment())
        try:
            record = await _in_thread(self._note, places, spec, build, self._primary(spec))
            # From here on in one go, so that a cancelled start leaves nothing, or a postmaster that is watched.
            pid = launcher.spawn(argv, env, places.log)
        except BaseException as error:
            await _in_thread(remove_home, places)
            compute.record = None
            if isinstance(error, OSError):
                raise StartFailed(spec.id, str(error)) from error
            raise
        identity = process.identify(pid, spec.data_dir)
        self._watch(compute, replace(record, identity=identity), pid)
        if why := self._cgroups.confine(places.unique_name, pid, limits_of(spec.cu)):
            log.warning("compute.unconfined", compute_id=spec.id, why=why)
        if spec.port is not None:
            faults.point("endpoint.start.after_spawn")

    def _make_room(self, compute: _Compute, spec: ComputeSpec, silenced: bool) -> tuple[str, ...]:
        """See to it that nobody works on the data directory, then make directories and put the data in order.

        Returns what the postmaster's argv needs beside.
        """
        # No postmaster.pid: the last one ended cleanly, with all its children, or there never was one.
        if spec.enter or (spec.data_dir / "postmaster.pid").exists():
            self._end_survivors(compute.places, spec, process.postgres_processes())
        self._make_directories()
        make_home(compute.places, self._owner, spec.port)
        logs.rotate(compute.places)
        return () if spec.enter else launcher.tidy(spec, self._owner, silenced=silenced)

    def _note(self, places: Places, spec: ComputeSpec, build: PostgresBuild, primary: ComputeSpec | None) -> Record:
        """Write configuration and record."""
        facts = self._facts(places, spec, build, primary)
        if spec.standby:
            facts = replace(facts, floors=_with_primary(programs.floors(spec, build, self._drop), primary))
        record = Record(spec, spawned_at=time.time(), log_offset=logs.size(places))
        _write_configuration(places, spec, facts, self._owner)
        save(record, places.record)
        return record

    def _end_survivors(self, places: Places, spec: ComputeSpec, processes: Iterable[PostgresProcess]) -> None:
        """Kill backends that outlived their postmaster: a new one beside them would ruin the data.

        Raises `DataDirInUse` if a postmaster runs there that has another configuration than this compute's.
        """
        found = process.on_directory(processes, spec.data_dir)
        ours = _configured_by(places)
        for postmaster in process.postmasters(found):
            # With our configuration it is a child that was forked a moment ago and still has its parent's arguments.
            if ours not in postmaster.arguments and process.start_ticks(postmaster.pid) is not None:
                raise DataDirInUse(spec.data_dir, postmaster.pid)
        if left := process.kill_all(each.pid for each in found):
            raise StopFailed(spec.id, left)

    def _end_remains(self, places: Places, record: Record, processes: Iterable[PostgresProcess]) -> None:
        """After the death of a postmaster that could not clean up: its children, then the memory that they shared.

        Raises what `_end_survivors` raises.
        """
        self._end_survivors(places, record.spec, processes)
        # Of another boot nothing is left, and the pid is another process's.
        if record.identity is None or record.identity.boot_id != process.boot_id():
            return
        since, data_dir = record.spawned_at, record.spec.data_dir
        if found := shm.remove_left_by(record.identity.pid, uid=self._owner[0], since=since, data_dir=data_dir):
            log.info("compute.shared_memory_removed", compute_id=record.spec.id, shmids=found)

    def _primary(self, spec: ComputeSpec) -> ComputeSpec | None:
        """What the primary of a standby runs with, if it runs or has crashed here."""
        primary = self._computes.get(spec.standby.primary_id) if spec.standby else None
        return primary.record.spec if primary and primary.record else None

    def _facts(self, places: Places, spec: ComputeSpec, build: PostgresBuild, primary: ComputeSpec | None) -> Facts:
        tls = None
        if self._tls and spec.port and build.has_openssl:
            tls = Tls(self._tls.certificate, self._tls.key)
        primary_places = places_of(self._run_dir, spec.standby.primary_id) if spec.standby else None
        return Facts(
            major=build.major,
            socket_dir=places.sockets,
            os_users=self._os_users,
            tls=tls,
            preload=tuple(name for name in _PRELOAD if (build.lib_dir / f"{name}.so").is_file()),
            copy_on_write=self._copy_on_write,
            floors=_with_primary(Floors(), primary),
            primary_socket_dir=primary_places.sockets if primary_places else None,
        )

    def _watch(self, compute: _Compute, record: Record, pid: int) -> ExitWatch:
        """Begin to watch a postmaster that was spawned or found; it may end at any time."""
        compute.record = record
        save(record, compute.places.record)
        compute.ending = False
        compute.watch = watch = ExitWatch(pid)
        watch.ended.add_done_callback(lambda _ended: self._on_exit(compute, watch))
        return watch

    def _on_exit(self, compute: _Compute, watch: ExitWatch) -> None:
        if compute.ending or compute.watch is not watch:
            return
        task = asyncio.get_running_loop().create_task(self._crashed(compute, watch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _crashed(self, compute: _Compute, watch: ExitWatch) -> None:
        async with compute.lock:
            # Meanwhile a start may have found it dead, said so and begun anew, or a stop have cleaned up.
            if compute.watch is not watch or compute.record is None or compute.record.phase == "crashed":
                return
            compute_id = compute.record.spec.id
            reason = await self._bury(compute, describe_status(watch.ended.result()))
        log.error("compute.crashed", compute_id=compute_id, reason=reason)
        self._on_crash(compute_id, reason)

    async def _bury(self, compute: _Compute, how: str, processes: Sequence[PostgresProcess] | None = None) -> str:
        """After the death of a postmaster: end its children, remove its sockets, note the reason."""
        record = compute.record
        assert record is not None
        with contextlib.suppress(DataDirInUse):
            found = processes if processes is not None else await asyncio.to_thread(process.postgres_processes)
            await asyncio.to_thread(self._end_remains, compute.places, record, found)
        cause = logs.cause(logs.read_end(compute.places, record.log_offset))
        reason = f"the postmaster {how}" + (f": {cause}" if cause else "")
        if record.identity and record.identity.boot_id != process.boot_id():
            reason = "the host was started anew"
        compute.record = replace(record, phase="crashed", reason=reason)
        await asyncio.to_thread(make_home, compute.places, self._owner, None)
        await asyncio.to_thread(save, compute.record, compute.places.record)
        self._cgroups.remove(compute.places.unique_name)
        return reason

    async def _await_ready(self, compute: _Compute, *, launched: bool) -> None:
        record, watch = compute.record, compute.watch
        assert record is not None
        assert watch is not None
        verdict = await readiness.wait_ready(compute.places.socket, watch.ended, self._patience)
        if verdict.answer is Answer.READY and not watch.ended.done():
            return
        ended = watch.ended.done()
        if not launched and not ended:
            # Somebody works with it; that it refuses us is no reason to end it.
            raise StartFailed(record.spec.id, verdict.message or verdict.answer.value)
        compute.ending = True
        await self._end(compute, "immediate")
        tail = logs.read_end(compute.places, record.log_offset)
        compute.record = None
        await asyncio.to_thread(remove_home, compute.places)
        spec = record.spec
        if spec.port and logs.port_taken(tail):
            raise PortTaken(spec.id, spec.port, tail)
        if problems := logs.bad_settings(tail):
            raise SettingsRefused([f"Postgres does not take the settings of {spec.id}: {'; '.join(problems)}."])
        if ended:
            why = logs.cause(tail) or f"the postmaster {describe_status(watch.ended.result())}"
        else:
            why = verdict.message or f"it gave no answer in time ({verdict.answer.value})"
        raise StartFailed(spec.id, why, tail)

    async def _stop(self, compute: _Compute, mode: Literal["fast", "immediate"]) -> None:
        compute.ending = True
        await self._end(compute, mode)

    async def _end(self, compute: _Compute, mode: Literal["fast", "immediate"]) -> None:
        """SIGINT, SIGQUIT, SIGKILL, as far as it takes."""
        watch, record = compute.watch, compute.record
        if watch is None or record is None:
            return
        patience = self._stop_patience
        steps = [(signal.SIGINT, patience.fast), (signal.SIGQUIT, patience.immediate), (signal.SIGKILL, patience.kill)]
        used = []
        for number, within in steps if mode == "fast" else steps[1:]:
            if watch.ended.done():
                break
            used.append(number)
            watch.signal(number)
            await watch.wait(within)
        if not watch.ended.done():
            raise StopFailed(record.spec.id, [watch.pid])
        watch.close()
        compute.watch = None
        if used != [signal.SIGINT] or watch.ended.result() != 0:
            # Only a fast stop waits for all children; of others some may live a little longer. It may also have been
            # killed before our signal came: of what is no child of ours nobody can tell.
            processes = await asyncio.to_thread(process.postgres_processes)
            with contextlib.suppress(DataDirInUse):
                await asyncio.to_thread(self._end_remains, compute.places, record, processes)
        self._cgroups.remove(compute.places.unique_name)

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_EVERY)
            running = [compute.places for compute in self._computes.values() if compute.running]
            with contextlib.suppress(OSError):
                for places in running:
                    await asyncio.to_thread(logs.rotate, places)


async def _in_thread(function: Callable[..., _T], *arguments: Any) -> _T:
    """As `asyncio.to_thread`, but a cancelled caller waits for the thread: it holds the lock for what that does."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        task.exception()
        raise


def _is_quiet(compute: _Compute) -> bool:
    """Whether what runs is the first start of a clone, from before its subscriptions were silenced."""
    return compute.watch is not None and launcher.QUIET[1] in process.arguments(compute.watch.pid)


def _remove_all(places: Places) -> None:
    remove_home(places)
    remove_logs(places)


def _os_users(owner: tuple[int, int]) -> tuple[str, ...]:
    names = []
    for uid in {owner[0], os.geteuid()}:
        try:
            names.append(pwd.getpwuid(uid).pw_name)
        except KeyError:
            raise SystemUserError(f"The user {uid} has no name in /etc/passwd, and Postgres needs one.") from None
    return tuple(names)


def _our_postmaster(processes: Iterable[PostgresProcess], places: Places) -> PostgresProcess | None:
    """The one that was started with this compute's configuration."""
    wanted = _configured_by(places)
    return next((each for each in process.postmasters(processes) if wanted in each.arguments), None)


def _configured_by(places: Places) -> str:
    """The argument that tells this compute's postmaster from all others."""
    return f"config_file={places.conf}"


def _write_configuration(places: Places, spec: ComputeSpec, facts: Facts, owner: tuple[int, int]) -> None:
    replace_file(places.hba, render_hba(tls=facts.tls is not None), owner)
    replace_file(places.ident, render_ident(facts.os_users), owner)
    replace_file(places.conf, render_postgresql_conf(spec, facts), owner)


def _with_primary(floors: Floors, primary: ComputeSpec | None) -> Floors:
    if primary is None:
        return floors
    return replace(floors, max_connections=max(floors.max_connections, size_of(primary.cu).max_connections))
