"""Limits of memory and CPU by cgroup v2, where the host lets us have them.

`find_home` decides from facts; `Cgroups` reads and writes the few files. A cgroup with controllers for its children may
hold no process itself, so computes get a tree of their own beside or below us, never our own cgroup.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "cpu")
_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class CgroupFacts:
    """What the probe saw. `controllers` are those that a cgroup made in `parent` could use."""

    mount: Path | None
    parent: Path | None = None
    controllers: tuple[str, ...] = ()
    writable: bool = False


@dataclass(frozen=True, slots=True)
class CgroupHome:
    """Where the cgroups of computes go; `directory` None means no limits, and `why` says so to people."""

    directory: Path | None
    why: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The contents of `memory.max`, `memory.high` and `cpu.max`."""

    memory_max: str
    memory_high: str
    cpu_max: str


def limits_of(cu: float) -> Limits:
    """1 CU is 1 CPU and 4 GB. From nine tenths on the kernel reclaims page cache before anything is killed."""
    memory = int(cu * 4 * 1024**3)
    return Limits(str(memory), str(memory * 9 // 10), f"{max(1000, int(cu * _PERIOD))} {_PERIOD}")


def find_home(facts: CgroupFacts, name: str) -> CgroupHome:
    """Decide where the computes' cgroups go, or why there are none."""
    if facts.mount is None:
        return CgroupHome(None, "no limits of memory and CPU: this host has no cgroup v2")
    missing = [controller for controller in CONTROLLERS if controller not in facts.controllers]
    if missing:
        return CgroupHome(
            None, f"no limits of memory and CPU: cgroup v2 lacks the controllers {', '.join(missing)} here"
        )
    if facts.parent is None or not facts.writable:
        return CgroupHome(None, f"no limits of memory and CPU: {facts.parent or facts.mount} is not ours to write")
    return CgroupHome(facts.parent / name, f"limits of memory and CPU by cgroup v2 in {facts.parent / name}")


def parse_mount(mountinfo: str) -> Path | None:
    """Where /proc/self/mountinfo says that cgroup v2 is."""
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        if separator and right.split()[:1] == ["cgroup2"]:
            return Path(left.split()[4])
    return None


def parse_own(cgroup: str) -> str | None:
    """Our own cgroup in v2, as /proc/self/cgroup tells."""
    for line in cgroup.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return None


def probe(proc: Path = Path("/proc/self")) -> CgroupFacts:
    """Look at this host. As root computes go beside everything else, else below a cgroup that was delegated to us."""
    mount = parse_mount((proc / "mountinfo").read_text())
    if mount is None:
        return CgroupFacts(None)
    own = parse_own((proc / "cgroup").read_text())
    # Not our own: it holds this process, and then it may hand controllers to no child.
    parent = mount if os.geteuid() == 0 else (mount / (own or "/").lstrip("/")).parent
    try:
        controllers = tuple((parent / "cgroup.controllers").read_text().split())
    except OSError:
        controllers = ()
    return CgroupFacts(mount, parent, controllers, os.access(parent, os.W_OK))


class Cgroups:
    """Cgroups of computes below one home. Nothing is done, and nothing fails, where there is no home."""

    def __init__(self, home: CgroupHome) -> None:
        self.home = home

    def prepare(self) -> CgroupHome:
        """Make the home and hand it controllers; what the kernel refuses turns limits off, with the reason."""
        directory = self.home.directory
        if directory is not None:
            try:
                self._enable(directory.parent)
                directory.mkdir(exist_ok=True)
                self._enable(directory)
            except OSError as error:
                self.home = CgroupHome(None, f"no limits of memory and CPU: {directory}: {error.strerror}")
        return self.home

    def confine(self, name: str, pid: int, limits: Limits) -> str | None:
        """Put a postmaster, before it has children, into a cgroup with these limits. Returns what went wrong."""
        if self.home.directory is None:
            return None
        directory = self.home.directory / name
        try:
            directory.mkdir(exist_ok=True)
            (directory / "memory.max").write_text(limits.memory_max)
            (directory / "memory.high").write_text(limits.memory_high)
            (directory / "cpu.max").write_text(limits.cpu_max)
            (directory / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            return f"no limits for {name}: {error}"
        return None

    def remove(self, name: str) -> None:
        """Remove the cgroup of a compute that has ended. No error if there is none."""
        if self.home.directory is not None:
            with contextlib.suppress(OSError):
                (self.home.directory / name).rmdir()

    @staticmethod
    def _enable(directory: Path) -> None:
        wanted = " ".join(f"+{controller}" for controller in CONTROLLERS)
        (directory / "cgroup.subtree_control").write_text(wanted)
