"""Which drivers work in a directory, found out by using them there, and what a clone costs. Leaves nothing behind.

Blocking: some milliseconds for a few files, about a second for as many as an empty cluster has.
"""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamplighter.storage import linux, plan, tree
from lamplighter.storage.errors import DriverUnavailable
from lamplighter.storage.ports import Owner
from lamplighter.storage.volumes import btrfs, overlay

#: About as many files as an empty cluster of Postgres 17 has.
CLUSTER_FILES = 970


@dataclass(frozen=True, slots=True)
class DriverProbe:
    """One driver. `clone_ms` is what a clone of `ProbeReport.files` files took; `why` tells what does not work."""

    driver: str
    usable: bool
    why: str = ""
    clone_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """All drivers, best first, and the one to use."""

    root: Path
    filesystem: str
    files: int
    drivers: tuple[DriverProbe, ...]
    chosen: str

    def __getitem__(self, driver: str) -> DriverProbe:
        return next(probe for probe in self.drivers if probe.driver == driver)


def probe(root: Path, owner: Owner | None, *, files: int = CLUSTER_FILES) -> ProbeReport:
    """Try every driver in `root`, which must exist. Raises OSError when nothing can be written there."""
    place = root / f".probe-{secrets.token_hex(4)}"
    place.mkdir(mode=0o700)
    try:
        results = tuple(_try(driver, place, owner, files) for driver in plan.DRIVERS)
    finally:
        if place.exists():
            tree.remove_tree(place, threading.Event())
    chosen = plan.choose_driver([result.driver for result in results if result.usable])
    return ProbeReport(root, linux.filesystem(root), files, results, chosen)


def probe_driver(root: Path, driver: str, owner: Owner | None) -> DriverProbe:
    """Try one driver in `root`, with a few files only."""
    place = root / f".probe-{secrets.token_hex(4)}"
    place.mkdir(mode=0o700)
    try:
        return _try(driver, place, owner, 4)
    finally:
        if place.exists():
            tree.remove_tree(place, threading.Event())


def _try(driver: str, place: Path, owner: Owner | None, files: int) -> DriverProbe:
    room = place / driver
    try:
        tree.make_directory(room, owner)
        return DriverProbe(driver, usable=True, clone_ms=round(_PROBES[driver](room, owner, files), 2))
    except DriverUnavailable as error:
        return DriverProbe(driver, usable=False, why=error.why)
    except OSError as error:
        return DriverProbe(driver, usable=False, why=_why(error, place))


def _why(error: OSError, place: Path) -> str:
    if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENODEV):
        return f"not supported on {linux.filesystem(place)}"
    return error.strerror or str(error)


def _seed(directory: Path, files: int) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(files):
        (directory / str(number)).write_bytes(b"\1" * 8192)


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def _btrfs(room: Path, _owner: Owner | None, files: int) -> float:
    if (found := linux.filesystem(room)) != "btrfs":
        raise DriverUnavailable("btrfs", f"the file system is {found}")
    for name in ("source", "clone"):
        (room / name).mkdir()
    source, clone = room / "source" / "data", room / "clone" / "data"
    linux.create_subvolume(source)
    try:
        _seed(source, files)
        linux.sync_filesystem(source)
        return _timed(lambda: btrfs.snapshot(source, clone))
    finally:
        for name in ("source", "clone"):
            btrfs.remove(room / name, threading.Event())


def _walk(room: Path, owner: Owner | None, files: int, copy_file: tree.CopyFile) -> float:
    source = room / "source"
    _seed(source, files)
    job = tree.Job(copy_file, owner)
    return _timed(lambda: tree.clone_tree(source, room / "clone", job, scope=plan.Scope.ASLEEP))


def _reflink(room: Path, owner: Owner | None, files: int) -> float:
    return _walk(room, owner, files, tree.reflink)


def _copy(room: Path, owner: Owner | None, files: int) -> float:
    def work() -> None:
        tree.clone_tree(room / "source", room / "clone", tree.Job(tree.copy, owner), scope=plan.Scope.ASLEEP)
        tree.settle(room)

    _seed(room / "source", files)
    return _timed(work)


def _overlay(room: Path, owner: Owner | None, files: int) -> float:
    stack = plan.Stack("up", ("low",))
    for layer in ("low", "up"):
        for directory in (room / layer, room / layer / "t", room / layer / "w"):
            tree.make_directory(directory, owner)
    _seed(room / "low" / "t", max(files, 1))
    data = room / "data"
    tree.make_directory(data, owner)
    (room / "options").write_text(plan.mount_options(stack))
    took = _overlay_as_root(room, stack, data) if os.geteuid() == 0 else _overlay_as_user(room, data)
    upper = room / "up" / "t"
    if (upper / "0").read_bytes() != b"changed\n" or (room / "low" / "t" / "0").read_bytes() == b"changed\n":
        raise DriverUnavailable("overlay", "a write did not go to the upper layer alone")
    return took


def _overlay_as_root(room: Path, stack: plan.Stack, data: Path) -> float:
    took = _timed(lambda: overlay.mount(room, stack, data))
    try:
        (data / "0").write_bytes(b"changed\n")
    finally:
        overlay.unmount(data, seconds=1)
    return took


def _overlay_as_user(room: Path, data: Path) -> float:
    enter = overlay.Tools.find().enter(room, room / "options", data)

    def run(*command: str) -> None:
        done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            why = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise DriverUnavailable("overlay", f"user namespaces do not allow it ({why[-1]})")

    took = _timed(lambda: run("true"))
    # Without any capability, as a postmaster would run.
    run("sh", "-c", 'grep -q "^CapEff:.0*$" /proc/self/status && echo changed > "$0/0"', str(data))
    return took


_PROBES: dict[str, Callable[[Path, Owner | None, int], float]] = {
    "btrfs": _btrfs,
    "reflink": _reflink,
    "overlay": _overlay,
    "copy": _copy,
}
