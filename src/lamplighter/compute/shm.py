"""System V shared memory that a killed postmaster has left: 56 bytes each, but a host has some thousand places for it.

A postmaster makes one segment to keep a second one off its data directory, and removes it when it ends. Of one that was
killed, the next on the same directory does that; one of a directory that is gone would stay for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from lamplighter.compute.process import PROC

log = structlog.get_logger("lamplighter.compute")

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
    segments: Iterable[Segment], pid: int, *, uid: int, since: float, visible: bool, lock: tuple[int, int] | None = None
) -> list[Segment]:
    """Those that a dead postmaster has made and nobody uses. Pure.

    `uid` is who it ran as, `since` when it was spawned: an older segment is of another process that had its pid.
    `visible` tells whether its data directory can be seen, and `lock` is what `parse_lock_file` found there. Where it
    can, only the segment that this postmaster has noted is its: one of the same pid may be a later process's.
    """
    return [
        one
        for one in segments
        if (one.creator, one.uid, one.attached) == (pid, uid, 0)
        # Whole seconds of another clock of the kernel.
        and one.changed_at >= int(since) - 1
        and (not visible or lock == (pid, one.shmid))
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
    # Where only a mount namespace sees the data, there is an empty directory.
    visible = os.path.isfile(data_dir / "PG_VERSION")  # noqa: PTH113 - what may not be looked at is no error
    found = left_by(segments, pid, uid=uid, since=since, visible=visible, lock=lock)
    return [one.shmid for one in found if remove(one.shmid)]


def remove(shmid: int) -> bool:
    """Remove a segment, which those who are attached keep until they end. False, and logged, if that is refused."""
    # Not `ipcrm`: a slim host has none.
    done: bool = ctypes.CDLL(None, use_errno=True).shmctl(shmid, _IPC_RMID, None) == 0
    if not done:
        log.warning("compute.shared_memory_kept", shmid=shmid, error=os.strerror(ctypes.get_errno()))
    return done
