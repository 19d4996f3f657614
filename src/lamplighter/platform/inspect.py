"""What can be told of a platform from beside it: who runs it, what its catalog says, what lies on disk.

Reads only; needs no API key. The catalog is asked over its private Unix socket, where Postgres knows us by our user id,
and computes are known by the records that their supervisor keeps in the run directory. Everything here blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, LiteralString

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from lamplighter.compute import process
from lamplighter.compute.config import SUPERUSER
from lamplighter.compute.places import places_of
from lamplighter.compute.record import Record, load
from lamplighter.compute.user import current_or_system_user
from lamplighter.control.catalog.migrate import load_migrations
from lamplighter.control.reconcile import WANTED_ENDPOINTS
from lamplighter.platform import gateway_processes
from lamplighter.platform.machine import CATALOG, CATALOG_DATABASE, storage_owner
from lamplighter.platform.plane import TEMPLATE_PREFIX
from lamplighter.platform.settings import run_dir_of
from lamplighter.platform.state import LOCK, STATE, read_running
from lamplighter.storage import linux, plan
from lamplighter.storage.errors import StorageError
from lamplighter.storage.factory import open_volumes, recorded_driver
from lamplighter.storage.pool import find_pool
from lamplighter.storage.ports import Usage, Volumes

CATALOG_SECONDS = 5
#: How many failed operations are shown, and how long after their end.
FAILING_SHOWN = 20
FAILING_DAYS = 1

_SESSION = (
    "-c TimeZone=UTC -c jit=off -c default_transaction_read_only=on -c statement_timeout=10s -c search_path=public"
)


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """Who runs the platform of a data directory. `since` is in seconds of the Unix epoch.

    `busy`: a process holds the directory and has not announced itself: it starts, stops, or makes a pool.
    """

    data_dir: str
    state: Literal["running", "busy", "stopped"]
    pid: int | None = None
    since: float | None = None
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class ComputeFacts:
    """A postmaster, by its record. `memory_bytes` splits shared pages among their users (PSS)."""

    id: str
    alive: bool
    pid: int | None
    port: int | None
    major: int
    data_dir: str
    memory_bytes: int | None = None
    crash: str = ""


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """`state` is the catalog's; `compute` None when no postmaster runs for it."""

    id: str
    type: str
    state: str
    pending_state: str | None
    port: int
    min_cu: float
    max_cu: float
    compute: ComputeFacts | None = None


@dataclass(frozen=True, slots=True)
class BranchFacts:
    """Sizes are in bytes, None where they are not known. `depth` is the number of its ancestors."""

    id: str
    name: str
    parent_id: str | None
    is_default: bool
    state: str
    pending_state: str | None
    depth: int
    logical_bytes: int | None
    own_bytes: int | None
    endpoints: tuple[EndpointFacts, ...]


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    id: str
    name: str
    pg_version: int
    branches: tuple[BranchFacts, ...]


@dataclass(frozen=True, slots=True)
class FailingOperation:
    """An operation that failed at least once and has not ended, or that ended badly a short time ago."""

    id: str
    project_id: str
    branch_id: str | None
    endpoint_id: str | None
    action: str
    status: str
    failures: int
    error: str
    updated_at: str
    retry_at: str | None


@dataclass(frozen=True, slots=True)
class CatalogFacts:
    """`where` never holds a password. `why` tells why the catalog could not be read."""

    where: str
    reachable: bool
    why: str = ""
    version: str | None = None
    size_bytes: int | None = None
    answer_ms: float | None = None
    migrations: int | None = None
    migrations_known: int | None = None


@dataclass(frozen=True, slots=True)
class PoolFacts:
    fs: str
    size_bytes: int
    mounted: bool
    image: str


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """`volumes` leaves out the platform's own; None where we may not look."""

    driver: str | None
    filesystem: str | None
    free_bytes: int | None
    total_bytes: int | None
    reserve_bytes: int | None
    pool: PoolFacts | None
    volumes: tuple[str, ...] | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What the catalog knows, for whoever looks for what it does not: ids, and whether an endpoint is to run."""

    endpoints: Mapping[str, bool]
    branches: frozenset[str]


@dataclass(frozen=True, slots=True)
class Status:
    """All of `lamp status`. `computes` are those that live, the catalog's included."""

    platform: PlatformFacts
    catalog: CatalogFacts | None
    storage: StorageFacts
    computes: tuple[ComputeFacts, ...]
    projects: tuple[ProjectFacts, ...] = ()
    failing: tuple[FailingOperation, ...] = ()


# --- Who runs -----------------------------------------------------------------------------------------------------


def flock_holders(locks: str, inode: int) -> list[int]:
    """Process ids that hold a flock on a file of this inode, as /proc/locks tells. Pure.

    Device numbers are left out: those of btrfs and overlayfs there are not those that stat gives.
    """
    found = re.findall(r"^\d+: FLOCK +\w+ +\w+ +(\d+) +[0-9a-f]+:[0-9a-f]+:(\d+) ", locks, re.MULTILINE)
    return [int(pid) for pid, number in found if int(number) == inode and int(pid) > 0]


def lock_holder(data_dir: Path) -> int | None:
    """The process that holds the directory's lock: a platform, perhaps one that starts or stops at the moment."""
    lock = data_dir / LOCK
    try:
        inode = lock.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    return next((pid for pid in flock_holders(locks, inode) if _has_open(pid, lock)), None)


def _has_open(pid: int, path: Path) -> bool:
    try:
        return any(handle.samefile(path) for handle in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False
    except PermissionError:
        # Another user's process: that the inode fits must do.
        return True


def find_platform(data_dir: Path) -> PlatformFacts:
    """Whether a platform runs on this directory, and which process it is."""
    running = read_running(data_dir)
    if running is not None:
        return PlatformFacts(str(data_dir), "running", running.pid, running.started_at, running.base_url)
    pid = lock_holder(data_dir)
    if pid is None:
        return PlatformFacts(str(data_dir), "stopped")
    since = None
    with contextlib.suppress(psutil.Error):
        since = psutil.Process(pid).create_time()
    return PlatformFacts(str(data_dir), "busy", pid, since)


def run_dirs(data_dir: Path) -> list[Path]:
    """Where computes of this platform may have records: where the last one kept them, and where the next one will.

    The two differ when the platform was started with another environment (XDG_RUNTIME_DIR).
    """
    places = [run_dir_of(data_dir)]
    try:
        noted = json.loads((data_dir / STATE).read_bytes())["run_dir"]
        places.insert(0, Path(noted))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return list(dict.fromkeys(places))


def records(run_dir: Path) -> list[Record]:
    """The computes that have records there; none where we may not look."""
    return [record for path in sorted(run_dir.glob("*/record.json")) if (record := load(path)) is not None]


def compute_of(record: Record, *, measure: bool = False) -> ComputeFacts:
    """What a record says, and whether its postmaster lives."""
    identity = record.identity
    alive = identity is not None and record.phase == "started" and process.is_alive(identity)
    pid = identity.pid if identity is not None and alive else None
    return ComputeFacts(
        id=record.spec.id,
        alive=alive,
        pid=pid,
        port=record.spec.port,
        major=record.spec.major,
        data_dir=str(record.spec.data_dir),
        memory_bytes=process.proportional_memory(pid) if measure and pid is not None else None,
        crash=record.reason if record.phase == "crashed" else "",
    )


def computes(data_dir: Path, *, measure: bool = False) -> list[ComputeFacts]:
    """The computes of this platform that have records, each once."""
    found = {}
    for run_dir in reversed(run_dirs(data_dir)):
        for record in records(run_dir):
            found[record.spec.id] = compute_of(record, measure=measure)
    return list(found.values())


def gateway_has(data_dir: Path, port: int) -> bool:
    """Whether a gateway of this platform, or one that a platform before it has left, listens on this port."""
    return any(_listens(pid, port) for run_dir in run_dirs(data_dir) for pid in gateway_processes.find(run_dir).fronts)


def _listens(pid: int, port: int) -> bool:
    # Asked by process: the platform has duplicates of the gateway's sockets, and of all processes one alone is told.
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port for one in found)


# --- The catalog --------------------------------------------------------------------------------------------------


def catalog_conninfo(data_dir: Path, catalog_url: str | None) -> tuple[str | None, str]:
    """How the catalog is reached, and a name of it without secrets. None when there is no way to it."""
    for run_dir in run_dirs(data_dir):
        sockets = places_of(run_dir, CATALOG).sockets
        port = _port_of(sockets)
        if port is not None:
            conninfo = make_conninfo(
                host=str(sockets), port=port, user=SUPERUSER, dbname=CATALOG_DATABASE, passfile="/nonexistent"
            )
            return conninfo, "its own Postgres"
    if catalog_url is None:
        return None, "unknown"
    parts = conninfo_to_dict(catalog_url)
    return catalog_url, f"database {parts.get('dbname', '')} at {parts.get('host', 'the local host')}"


def _port_of(sockets: Path) -> int | None:
    """The port in the name of the socket there, which libpq needs to find it; None if there is none, or not for us."""
    try:
        found = [path.name.rpartition(".")[2] for path in sockets.glob(".s.PGSQL.*")]
    except OSError:
        return None
    return next((int(port) for port in found if port.isdecimal()), None)


Connection = psycopg.Connection[dict[str, Any]]


def connect_catalog(conninfo: str) -> Connection:
    """A session that can only read. Raises psycopg.Error."""
    return psycopg.connect(
        conninfo,
        autocommit=True,
        row_factory=dict_row,
        connect_timeout=CATALOG_SECONDS,
        application_name="lamp status",
        options=_SESSION,
    )


def read_catalog(conn: Connection, where: str) -> CatalogFacts:
    """Health of the catalog. Raises psycopg.Error."""
    begin = time.perf_counter()
    row = _one(
        conn, "select current_setting('server_version') as version, pg_database_size(current_database()) as size"
    )
    took = (time.perf_counter() - begin) * 1000
    applied = _one(conn, "select count(*) as applied from schema_migrations")["applied"]
    return CatalogFacts(
        where,
        reachable=True,
        version=row["version"],
        size_bytes=row["size"],
        answer_ms=round(took, 2),
        migrations=applied,
        migrations_known=len(load_migrations()),
    )


def _one(conn: Connection, query: LiteralString) -> dict[str, Any]:
    row = conn.execute(query).fetchone()
    assert row is not None
    return row


def read_projects(conn: Connection, running: Mapping[str, ComputeFacts]) -> tuple[ProjectFacts, ...]:
    """Projects, their branches below their parents, their endpoints with the computes in `running`."""
    endpoints: dict[str, list[EndpointFacts]] = {}
    for row in conn.execute(
        "select id, branch_id, type, current_state, pending_state, port, autoscaling_limit_min_cu as min_cu,"
        " autoscaling_limit_max_cu as max_cu from endpoints where deleted_at is null order by type desc, id"
    ):
        compute = running.get(row["id"])
        endpoints.setdefault(row["branch_id"], []).append(
            EndpointFacts(
                id=row["id"],
                type=row["type"],
                state=row["current_state"],
                pending_state=row["pending_state"],
                port=row["port"],
                min_cu=row["min_cu"],
                max_cu=row["max_cu"],
                compute=compute if compute is not None and compute.alive else None,
            )
        )
    branches: dict[str, list[dict[str, Any]]] = {}
    for row in conn.execute(
        "select id, project_id, parent_id, name, is_default, current_state, pending_state, logical_size"
        " from branches where deleted_at is null order by created_at, id"
    ):
        branches.setdefault(row["project_id"], []).append(row)
    return tuple(
        ProjectFacts(row["id"], row["name"], row["pg_version"], in_family_order(branches.get(row["id"], []), endpoints))
        for row in conn.execute(
            "select id, name, pg_version from projects where deleted_at is null order by created_at, id"
        )
    )


def in_family_order(
    rows: Sequence[Mapping[str, Any]], endpoints: Mapping[str, Sequence[EndpointFacts]]
) -> tuple[BranchFacts, ...]:
    """Branches with their children right after them; one whose parent is not among them counts as a root. Pure."""
    children: dict[str | None, list[Mapping[str, Any]]] = {}
    present = {row["id"] for row in rows}
    for row in rows:
        parent = row["parent_id"] if row["parent_id"] in present else None
        children.setdefault(parent, []).append(row)
    ordered: list[BranchFacts] = []
    # A stack and not recursion: a chain of branches may be longer than Python's.
    left = [(row, 0) for row in reversed(children.get(None, []))]
    while left:
        row, depth = left.pop()
        ordered.append(
            BranchFacts(
                id=row["id"],
                name=row["name"],
                parent_id=row["parent_id"],
                is_default=row["is_default"],
                state=row["current_state"],
                pending_state=row["pending_state"],
                depth=depth,
                logical_bytes=row["logical_size"],
                own_bytes=None,
                endpoints=tuple(endpoints.get(row["id"], ())),
            )
        )
        left += [(child, depth + 1) for child in reversed(children.get(row["id"], []))]
    return tuple(ordered)


def read_failing(conn: Connection) -> tuple[FailingOperation, ...]:
    """Operations in trouble, newest first. Raises psycopg.Error."""
    cursor = conn.execute(
        "select id, project_id, branch_id, endpoint_id, action, status, failures_count, error, updated_at, retry_at"
        " from operations where (finished_at is null and failures_count > 0)"
        " or (status in ('failed', 'error') and finished_at > now() - make_interval(days => %s))"
        " order by updated_at desc limit %s",
        (FAILING_DAYS, FAILING_SHOWN),
    )
    return tuple(
        FailingOperation(
            id=str(row["id"]),
            project_id=row["project_id"],
            branch_id=row["branch_id"],
            endpoint_id=row["endpoint_id"],
            action=row["action"],
            status=row["status"],
            failures=row["failures_count"],
            error=row["error"] or "",
            updated_at=row["updated_at"].isoformat(),
            retry_at=row["retry_at"].isoformat() if row["retry_at"] else None,
        )
        for row in cursor
    )


def read_known(conn: Connection) -> Known:
    """What is known to the catalog, what is on its way out included. Raises psycopg.Error."""
    rows = conn.execute(WANTED_ENDPOINTS).fetchall()
    branches = conn.execute("select id from branches").fetchall()
    return Known({row["id"]: row["wanted"] for row in rows}, frozenset(row["id"] for row in branches))


# --- The storage --------------------------------------------------------------------------------------------------


def is_ours(path: Path) -> bool:
    """Whether this directory is there and belongs to the user that asks."""
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def read_storage(data_dir: Path, *, reserve_bytes: int | None = None) -> StorageFacts:
    """What can be told of the storage without opening it."""
    root = data_dir / "storage"
    nothing = StorageFacts(None, None, None, None, None, None, ())
    try:
        if not root.is_dir():
            return nothing
        pool = find_pool(root)
        home = root if pool is None else pool.mount_point
        free, total = linux.free_bytes(home)
        reserve = plan.default_reserve(total) if reserve_bytes is None else reserve_bytes
        facts = StorageFacts(recorded_driver(home), linux.filesystem(home), free, total, reserve, None, ())
        if pool is not None:
            mounted = linux.is_mounted(pool.mount_point)
            facts = replace(facts, pool=PoolFacts(pool.fs, pool.size_bytes, mounted, str(pool.image)))
        return replace(facts, volumes=tuple(own_volumes(home)))
    except PermissionError:
        return replace(nothing, volumes=None, why=f"{root} is another user's")
    except (OSError, StorageError) as error:
        return replace(nothing, volumes=None, why=str(error))


def own_volumes(home: Path) -> list[str]:
    """Ids of the volumes in `home` that are not the platform's own. Raises OSError."""
    volumes = home / "volumes"
    names = [path.name for path in volumes.iterdir()] if volumes.is_dir() else []
    return sorted(name for name in names if not name.startswith((".", TEMPLATE_PREFIX)) and name != CATALOG)


def measure_volumes(data_dir: Path, volume_ids: Iterable[str]) -> dict[str, Usage]:
    """Bytes of each volume; those that cannot be measured are left out.

    Some 10 to 30 ms each. Only for the data directory of the user who asks, and while a platform runs on it: the
    storage is opened just as that platform has it open.
    """
    if not is_ours(data_dir):
        return {}
    return asyncio.run(_measure(data_dir, list(volume_ids)))


async def _measure(data_dir: Path, volume_ids: Sequence[str]) -> dict[str, Usage]:
    owner = storage_owner(current_or_system_user())
    try:
        volumes = await asyncio.to_thread(open_volumes, data_dir / "storage", owner=owner)
    except (StorageError, OSError):
        return {}
    found = {}
    # Not `shutdown`, which would unmount what sleeps: nothing was begun in the background.
    for volume_id in volume_ids:
        usage = await _usage(volumes, volume_id)
        if usage is not None:
            found[volume_id] = usage
    return found


async def _usage(volumes: Volumes, volume_id: str) -> Usage | None:
    try:
        return await volumes.usage(volume_id)
    except (StorageError, OSError):
        # Deleted, or frozen for a branch, while we looked.
        return None


# --- All of it ----------------------------------------------------------------------------------------------------


def read_status(
    data_dir: Path, *, catalog_url: str | None = None, report: Callable[[str], None] = lambda _sentence: None
) -> Status:
    """What `lamp status` shows. Raises nothing but what the host does when it fails."""
    platform = find_platform(data_dir)
    living = [one for one in computes(data_dir, measure=True) if one.alive]
    status = Status(platform, None, read_storage(data_dir), tuple(living))
    if not living and platform.state == "stopped":
        return status
    conninfo, where = catalog_conninfo(data_dir, catalog_url)
    if conninfo is None:
        why = "its socket is not to be found: run this as the platform's user, or give --catalog-url"
        return replace(status, catalog=CatalogFacts(where, reachable=False, why=why))
    try:
        report("Reading the catalog")
        with connect_catalog(conninfo) as conn:
            status = replace(
                status,
                catalog=read_catalog(conn, where),
                projects=read_projects(conn, {one.id: one for one in living}),
                failing=read_failing(conn),
            )
    except psycopg.Error as error:
        why = str(error).strip() if is_ours(data_dir) else "run this as the platform's user"
        return replace(status, catalog=CatalogFacts(where, reachable=False, why=why))
    if platform.state != "running":
        return status
    report("Measuring branches")
    usage = measure_volumes(data_dir, (branch.id for project in status.projects for branch in project.branches))
    return replace(status, projects=tuple(with_usage(project, usage) for project in status.projects))


def with_usage(project: ProjectFacts, usage: Mapping[str, Usage]) -> ProjectFacts:
    """The project with its branches' own bytes, where they are known. Pure."""
    return replace(
        project,
        branches=tuple(
            replace(branch, own_bytes=usage[branch.id].own_bytes) if branch.id in usage else branch
            for branch in project.branches
        ),
    )
