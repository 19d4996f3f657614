"""What a running platform leaves in its data directory for others to find: who runs, and where it answers."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lamplighter.compute.process import boot_id, start_ticks
from lamplighter.files import write_atomic
from lamplighter.platform.errors import AlreadyRunning

STATE = "platform.json"
LOCK = "platform.lock"


@dataclass(frozen=True, slots=True)
class Running:
    """A platform that is up. `started_at` is in seconds of the Unix epoch, and for showing.

    `birth`, the boot and the clock tick at which the process began, tells it from a later one with the same id: unlike
    the time it stays as it is when the host's clock is set.
    """

    pid: int
    started_at: float
    base_url: str
    run_dir: str
    birth: str


def read_running(data_dir: Path) -> Running | None:
    """The platform that runs on this directory now; None when none does."""
    try:
        state = Running(**json.loads((data_dir / STATE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    birth = _birth(state.pid)
    return state if birth is not None and birth == state.birth else None


def _birth(pid: int) -> str | None:
    ticks = start_ticks(pid)
    return None if ticks is None else f"{boot_id()}:{ticks}"


def write_running(data_dir: Path, *, base_url: str, run_dir: Path) -> None:
    """Announce this process as the platform of the directory."""
    birth = _birth(os.getpid())
    assert birth is not None
    state = Running(os.getpid(), psutil.Process().create_time(), base_url, str(run_dir), birth)
    # Others on the host may ask where the API is; no secret is in it.
    write_atomic(data_dir / STATE, json.dumps(asdict(state)).encode(), mode=0o644)


def clear_running(data_dir: Path) -> None:
    (data_dir / STATE).unlink(missing_ok=True)


@contextmanager
def sole_platform(data_dir: Path) -> Iterator[None]:
    """Hold the directory's lock. The kernel frees it however the process ends. Raises AlreadyRunning."""
    handle = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(data_dir, read_running(data_dir)) from None
        yield
    finally:
        os.close(handle)
