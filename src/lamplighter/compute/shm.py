"""System V shared memory that a killed postmaster has left: 56 bytes each, but a host has some thousand places for it.

A postmaster makes one segment to keep a second one off its data directory, and removes it when it ends. Of one that was
killed, the next on the same directory does that; one of a directory that is gone would stay for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.process import PROC

_IPC_RMID = 0
#: Lines of postmaster.pid, counted from one (PostgreSQL's utils/pidfile.h).
_PID_LINE, _KEY_LINE = 1, 7


@dataclass(frozen=True, slots=True)
class Segment:
    """A line of /proc/sysvipc/shm. `changed_at`: when it was made, in seconds of the Unix epoch."""

    shmid: int
    creator: int
    attached: int
    uid: int
    changed_at: int


def parse_segments(text: str) -> list[Segment]:
    """What /proc/sysvipc/shm holds: a line of names, then a line a segment. Others are passed over. Pure."""
    head, *lines = text.splitlines() or [""]
    column = {name: number for number, name in enumerate(head.split())}
    found = []
    for line in lines:
        words = line.split()
        # Older kernels have fewer columns.
        with contextlib.suppress(KeyError, IndexError, ValueError):
            shmid, creator, attached, uid, changed_at = (
                int(words[column[name]]) for name in ("shmid", "cpid", "nattch", "uid", "ctime")
            )
            found.append(Segment(shmid, creator, attached, uid, changed_at))
    return found


def parse_lock_file(text: str) -> tuple[int, int] | None:
    """Pid and shmid that a postmaster.pid names; None if it has no shmid (yet). Pure."""
    lines = text.splitlines()
    try:
        return int(lines[_PID_LINE - 1]), int(lines[_KEY_LINE - 1].split()[1])
    except (IndexError, ValueError):
        return None


def left_by(
    segments: Iterable[Segment], pid: int, *, uid: int, since: float, lock: tuple[int, int] | None = None
) -> list[Segment]:
    """Those that a dead postmaster has made and nobody uses. Pure.

    `uid` is who it ran as, `since` when it was spawned: an older segment is of another process that had its pid.
    `lock` is what `parse_lock_file` found: if that is of this postmaster, nothing but the segment named there is its.
    """
    named = lock[1] if lock is not None and lock[0] == pid else None
    return [
        one
        for one in segments
        if (one.creator, one.uid, one.attached) == (pid, uid, 0)
        # Whole seconds of another clock of the kernel.
        and one.changed_at >= int(since) - 1
        and named in (None, one.shmid)
    ]


def remove_left_by(pid: int, *, uid: int, since: float, data_dir: Path) -> list[int]:
    """Remove what `left_by` finds on this host, and return the shmids. The postmaster and its children must be dead."""
    try:
        segments = parse_segments((PROC / "sysvipc/shm").read_text())
    except OSError:
        # A kernel without System V shared memory.
        return []
    lock = None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lock = parse_lock_file((data_dir / "postmaster.pid").read_text(encoding="utf-8"))
    return [one.shmid for one in left_by(segments, pid, uid=uid, since=since, lock=lock) if _remove(one.shmid)]


def _remove(shmid: int) -> bool:
    # Not `ipcrm`: a slim host has none. Who attaches just now keeps it until the end.
    return bool(ctypes.CDLL(None).shmctl(shmid, _IPC_RMID, None) == 0)
