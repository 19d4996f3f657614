"""Know a postmaster again: by pid, start time, boot and data directory.

A pid alone is not an identity, as numbers are used again; the start time of the process (clock ticks since boot) with
the boot's own id makes it one. Reads /proc; assumes Linux 5.4 or later and that the caller is root or the processes'
user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_POSTGRES = b"postgres"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for ever. `started_at` is in clock ticks since boot."""

    pid: int
    started_at: int
    boot_id: str
    data_dir: str


def boot_id() -> str:
    """The id that the kernel drew at this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot; None if it has ended (a zombie has)."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold blanks and parentheses itself.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZX" else int(fields[19])


def identify(pid: int, data_dir: Path) -> ProcessIdentity | None:
    """The identity of a living process; None if it has ended."""
    started_at = start_ticks(pid)
    return None if started_at is None else ProcessIdentity(pid, started_at, boot_id(), str(data_dir))


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process runs, and not another one with its pid."""
    return identity.boot_id == boot_id() and start_ticks(identity.pid) == identity.started_at


@dataclass(frozen=True, slots=True)
class PostgresProcess:
    """A living process whose program is `postgres`. `arguments` are telling for a postmaster only.

    `cwd` is (device, inode) of its working directory, `cwd_path` the path of that in the process's mount namespace.
    """

    pid: int
    cwd: tuple[int, int]
    cwd_path: str
    arguments: tuple[str, ...]


def postgres_processes() -> list[PostgresProcess]:
    """All processes named `postgres` that this user may look into. Costs some 15 us for each process of the host."""
    return list(_scan())


def _scan() -> Iterator[PostgresProcess]:
    for entry in os.scandir(PROC):
        if not entry.name.isdecimal():
            continue
        path = PROC / entry.name
        try:
            if (path / "comm").read_bytes().rstrip() != _POSTGRES or start_ticks(int(entry.name)) is None:
                continue
            found = (path / "cwd").stat()
            cwd_path = str((path / "cwd").readlink())
            arguments = (path / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:
            continue
        yield PostgresProcess(
            int(entry.name),
            (found.st_dev, found.st_ino),
            cwd_path,
            tuple(argument.decode(errors="replace") for argument in arguments),
        )


def on_directory(processes: Iterable[PostgresProcess], data_dir: Path) -> list[PostgresProcess]:
    """Those of `processes` that work in the data directory, as a postmaster and all its children do.

    Known by the directory itself where it is visible here, and by its path where only their mount namespace sees it.
    Never by an inode that was noted earlier: of a directory that is gone the number is soon another one's.
    """
    key = _directory_key(data_dir)
    resolved = str(data_dir.resolve())
    paths = {str(data_dir), resolved, f"{resolved} (deleted)"}
    return [process for process in processes if process.cwd == key or process.cwd_path in paths]


def _directory_key(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def postmasters(processes: Iterable[PostgresProcess]) -> list[PostgresProcess]:
    """Those that still have a postmaster's arguments; its children overwrite theirs with a title."""
    return [process for process in processes if len(process.arguments) > 2 and "-D" in process.arguments]


def arguments(pid: int) -> tuple[str, ...]:
    """The arguments that a process was started with; none if it has ended."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ()
    return tuple(word.decode(errors="replace") for word in words)


def children(pid: int) -> list[int]:
    """Pids of a process's children; empty if it has ended."""
    try:
        return [int(child) for child in (PROC / f"{pid}/task/{pid}/children").read_bytes().split()]
    except OSError:
        return []


def proportional_memory(pid: int) -> int | None:
    """Memory of a postmaster and its children in bytes, with shared pages split among their users (PSS).

    A sum of resident sizes would count the shared buffers once for each process: 5 to 8 times too much.
    """
    total = 0
    for each in (pid, *children(pid)):
        with contextlib.suppress(OSError):
            for line in (PROC / str(each) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total or None


def kill_all(pids: Iterable[int], *, within: float = 5.0) -> list[int]:
    """SIGKILL the processes and wait until they are gone. Returns those that are not, `within` seconds later."""
    started = {pid: start_ticks(pid) for pid in pids}
    left = {pid: ticks for pid, ticks in started.items() if ticks is not None}
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + within
    while left := {pid: ticks for pid, ticks in left.items() if start_ticks(pid) == ticks}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.002)
    return sorted(left)


def to_json(identity: ProcessIdentity) -> dict[str, object]:
    """For the record that outlives the control plane."""
    return {name: getattr(identity, name) for name in ProcessIdentity.__slots__}


def from_json(value: Mapping[str, object]) -> ProcessIdentity:
    """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
    return ProcessIdentity(
        pid=_int(value["pid"]),
        started_at=_int(value["started_at"]),
        boot_id=str(value["boot_id"]),
        data_dir=str(value["data_dir"]),
    )


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return value
