"""What is on the host and belongs to nothing: processes, volumes, records, mounts, loop devices.

Gathering and judging are apart: `judge` is pure. What the catalog is needed for is only judged while that can be read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from lamplighter.compute import process
from lamplighter.platform import gateway_processes
from lamplighter.platform.inspect import (
    ComputeFacts,
    Known,
    catalog_conninfo,
    computes,
    connect_catalog,
    find_platform,
    own_volumes,
    read_known,
    records,
    run_dirs,
)
from lamplighter.platform.machine import CATALOG
from lamplighter.storage.errors import StorageError
from lamplighter.storage.pool import find_pool

UP = "`lamp up` mends this when it starts"


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing, in a sentence, and who takes it away."""

    kind: str
    what: str
    do: str


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A postmaster whose data lies in the data directory."""

    pid: int
    data_dir: str


@dataclass(frozen=True, slots=True)
class Found:
    """What lies about. `mounts` are those below the data directory, `loops` pairs of a device and its file.

    `gone` are run directories of platforms whose data is no more, with the postmasters that still run from them.
    """

    running: bool
    computes: tuple[ComputeFacts, ...] = ()
    postmasters: tuple[Postmaster, ...] = ()
    gateways: tuple[int, ...] = ()
    volumes: tuple[str, ...] = ()
    half_made: tuple[str, ...] = ()
    trash: int = 0
    mounts: tuple[str, ...] = ()
    pool_mount: str | None = None
    loops: tuple[tuple[str, str], ...] = ()
    known: Known | None = None
    gone: tuple[tuple[str, tuple[int, ...]], ...] = field(default=())


def judge(found: Found) -> list[Leftover]:
    """What of it belongs to nothing. Pure."""
    return [
        *_computes(found),
        *_volumes(found),
        *_mounts(found),
        *(
            Leftover(
                "run directory",
                f"{path} is of a platform whose data is gone" + (f"; processes {list(pids)} still run" if pids else ""),
                f"end them (kill -INT {' '.join(map(str, pids))}) and remove it" if pids else f"rm -r {path}",
            )
            for path, pids in found.gone
        ),
    ]


def _computes(found: Found) -> Iterable[Leftover]:
    living = {one.pid for one in found.computes if one.alive}
    for postmaster in found.postmasters:
        if postmaster.pid not in living:
            what = f"process {postmaster.pid} runs Postgres on {postmaster.data_dir}, and no record tells of it"
            yield Leftover("process", what, f"stop it: kill -INT {postmaster.pid}")
    if not found.running:
        for pid in found.gateways:
            what = f"process {pid} passes connections on without a platform"
            yield Leftover("gateway", what, "`lamp down` ends it")
    for one in found.computes:
        if not found.running:
            state = f"runs on (process {one.pid}) without a platform" if one.alive else "has a record and no process"
            yield Leftover("compute", f"{one.id} {state}", UP + ("; `lamp down` stops it" if one.alive else ""))
        elif one.alive and not _wanted(one.id, found.known):
            yield Leftover("compute", f"{one.id} runs (process {one.pid}), and nobody asked for it", UP)


def _wanted(compute_id: str, known: Known | None) -> bool:
    # A compute on a sleeping branch carries the branch's id, for as long as an operation needs it.
    return (
        known is None or compute_id == CATALOG or compute_id in known.branches or known.endpoints.get(compute_id, False)
    )


def _volumes(found: Found) -> Iterable[Leftover]:
    if found.known is not None:
        for volume_id in found.volumes:
            if volume_id not in found.known.branches and volume_id not in found.known.endpoints:
                yield Leftover("volume", f"{volume_id} belongs to no branch", UP)
    if not found.running:
        for volume_id in found.half_made:
            yield Leftover("volume", f"{volume_id} is half-made", UP)
        if found.trash:
            yield Leftover("trash", f"{found.trash} deleted entries are not removed yet", UP)


def _mounts(found: Found) -> Iterable[Leftover]:
    if not found.running and not any(one.alive for one in found.computes):
        for mount in found.mounts:
            if mount != found.pool_mount:
                yield Leftover("mount", f"{mount} is mounted and nothing runs on it", f"umount {mount}")
    pool_in_use = found.pool_mount is not None and found.pool_mount in found.mounts
    for device, backing in found.loops:
        if not pool_in_use:
            yield Leftover("loop device", f"{device} is of {backing}, which is not mounted", f"losetup -d {device}")


# --- Gathering ----------------------------------------------------------------------------------------------------


def find_leftovers(data_dir: Path, catalog_url: str | None = None) -> list[Leftover]:
    """What this platform, and others whose data is gone, have left. As an ordinary user: as far as it can be seen."""
    return judge(gather(data_dir, catalog_url))


def gather(data_dir: Path, catalog_url: str | None = None) -> Found:
    """Look about. The catalog comes last: what it knows by then is no leftover."""
    home, pool_mount, loops = _home(data_dir)
    volumes, half_made, trash = _on_disk(home)
    recorded = tuple(computes(data_dir))
    postmasters = tuple(_postmasters(data_dir))
    passing = [gateway_processes.find(run_dir) for run_dir in run_dirs(data_dir)]
    running = find_platform(data_dir).state != "stopped"
    known = _known(data_dir, catalog_url) if running else None
    return Found(
        running=running,
        computes=recorded,
        postmasters=postmasters,
        gateways=tuple(pid for each in passing for pid in (*each.fronts, *each.relays)),
        volumes=tuple(one for one in volumes if (home / "volumes" / one).is_dir()),
        half_made=half_made,
        trash=trash,
        mounts=tuple(mounts_below(_mountinfo(), data_dir)),
        pool_mount=pool_mount,
        loops=loops,
        known=known,
        gone=tuple(_gone(data_dir)),
    )


def _home(data_dir: Path) -> tuple[Path, str | None, tuple[tuple[str, str], ...]]:
    root = data_dir / "storage"
    loops = tuple((device, backing) for device, backing in _loops() if backing.startswith(f"{root}/"))
    try:
        pool = find_pool(root)
    except (OSError, StorageError):
        return root, None, loops
    return (root, None, loops) if pool is None else (pool.mount_point, str(pool.mount_point), loops)


def _on_disk(home: Path) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    try:
        volumes = tuple(own_volumes(home))
        half_made = tuple(path.name.removeprefix(".new-") for path in (home / "volumes").glob(".new-*"))
        trash = home / "trash"
        return volumes, half_made, sum(1 for _ in trash.iterdir()) if trash.is_dir() else 0
    except OSError:
        return (), (), 0


def _postmasters(data_dir: Path) -> Iterable[Postmaster]:
    prefix = f"{data_dir}/"
    for one in process.postmasters(process.postgres_processes()):
        named = one.arguments[one.arguments.index("-D") + 1 :][:1]
        if named and named[0].startswith(prefix):
            yield Postmaster(one.pid, named[0])


def _known(data_dir: Path, catalog_url: str | None) -> Known | None:
    conninfo, _ = catalog_conninfo(data_dir, catalog_url)
    if conninfo is None:
        return None
    try:
        with connect_catalog(conninfo) as conn:
            return read_known(conn)
    except psycopg.Error:
        return None


def _mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ""


def mounts_below(mountinfo: str, directory: Path) -> list[str]:
    """Where something is mounted below the directory. Pure."""
    points = (line.split()[4] for line in mountinfo.splitlines() if len(line.split()) > 4)
    # Blanks and the like are written as octal numbers.
    names = (re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point) for point in points)
    return sorted(name for name in names if name.startswith(f"{directory}/"))


def _loops() -> Iterable[tuple[str, str]]:
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            yield f"/dev/{path.parent.parent.name}", path.read_text().strip()
        except OSError:
            continue


def _gone(data_dir: Path) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Run directories beside ours whose records tell of data that is no more."""
    mine = set(run_dirs(data_dir))
    for parent in {path.parent for path in mine}:
        try:
            others = [path for path in parent.iterdir() if path not in mine and path.is_dir()]
        except OSError:
            continue
        for path in sorted(others):
            found = [record for record in records(path) if not os.path.lexists(record.spec.data_dir)]
            if found and len(found) == len(records(path)):
                alive = [r.identity.pid for r in found if r.identity is not None and process.is_alive(r.identity)]
                yield str(path), tuple(alive)
