"""The processes of gateways: what they are started with, how they are found again, and how they are ended.

A gateway is a front and its relay. A front that drains has left its socket, and a relay outlives its front, so neither
a socket nor a parent leads to them: they are known by a mark in their environment, which a relay inherits.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lamplighter.compute import process
from lamplighter.compute.user import current_or_system_user
from lamplighter.gateway.spawning import Paths

SOCKETS = "gateway-*.sock"
#: Names the run directory.
MARK = "LAMP_GATEWAY_OF"
KEPT = frozenset({"HOME", "LAMP_RELAY", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV"})
FRONT = "lamplighter.gateway"
END_SECONDS = 10.0
#: For a front that hangs: what it says last, it would have said long ago.
HUNG_SECONDS = 2.0
#: A relay whose computes are gone ends by itself when its clients have read what they were told last.
LAST_WORDS_SECONDS = 2.0
_CAP_SYS_PTRACE = 19


@dataclass(frozen=True, slots=True)
class Gateways:
    """Pids of what lives."""

    fronts: tuple[int, ...] = ()
    relays: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.fronts or self.relays)


def environment(run_dir: Path, ours: Mapping[str, str]) -> dict[str, str]:
    """Without what is set for us, such as the catalog's password: strangers speak to the gateway."""
    kept = {name: value for name, value in ours.items() if name in KEPT or name.startswith(("LC_", "PYTHON"))}
    if os.geteuid() == 0 and _sees_what_others_run():
        # It raises its limits as root, and needs nothing of root after that. In containers root may look into its own
        # processes alone: a relay of another user would not be found again.
        kept["LAMP_RELAY_USER"] = "{}:{}".format(*current_or_system_user())
    return {**kept, MARK: str(run_dir)}


def _sees_what_others_run() -> bool:
    status = (process.PROC / "self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split(maxsplit=1)[0], 16)
    return bool(capabilities >> _CAP_SYS_PTRACE & 1)


def find(run_dir: Path) -> Gateways:
    """All of a run directory, whether or not a platform lives. Costs some 20 us for each process of the host."""
    fronts: list[int] = []
    relays: list[int] = []
    for entry in os.scandir(process.PROC):
        if entry.name.isdecimal() and _is_ours(int(entry.name), run_dir):
            pid = int(entry.name)
            (fronts if FRONT in process.arguments(pid) else relays).append(pid)
    return Gateways(tuple(sorted(fronts)), tuple(sorted(relays)))


def _is_ours(pid: int, run_dir: Path) -> bool:
    path = process.PROC / str(pid)
    try:
        # Anybody may give a process of theirs such an environment. That of a relay which gave root up is root's still.
        if (path / "environ").stat().st_uid != os.geteuid():
            return False
        if os.fsencode(f"{MARK}={run_dir}") not in (path / "environ").read_bytes().split(b"\0"):
            return False
        return _means_ours(path, run_dir)
    except OSError:
        return False


def _means_ours(path: Path, run_dir: Path) -> bool:
    """Whether the run directory, which may be gone, has the same path where that process is. Raises OSError.

    In a container the same path is another directory, of another platform.
    """
    try:
        ours = run_dir.stat()
    except FileNotFoundError:
        # There is nothing to compare: who has our root and our mounts means what we mean.
        return all((path / name).samefile(process.PROC / "self" / name) for name in ("root", "ns/mnt"))
    return os.path.samestat(ours, _stat_below(path / "root", run_dir.resolve()))


def _stat_below(root: Path, path: Path) -> os.stat_result:
    """A directory in another root. A link on the way is an error, as it would lead back to ours. Raises OSError."""
    handle = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in path.parts[1:]:
            inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        return os.fstat(handle)
    finally:
        os.close(handle)


def _is_front(pid: int) -> bool:
    try:
        mine = (process.PROC / str(pid)).stat().st_uid == os.geteuid()
    except OSError:
        return False
    return mine and FRONT in process.arguments(pid)


async def end(run_dir: Path, *, also: Iterable[int] = (), after: Awaitable[object] | None = None) -> tuple[int, ...]:
    """End all fronts, those too that drain, and all relays. Returns who they were.

    `also` are fronts that are known otherwise; `after` is done when the computes are gone, which relays wait for. What
    it raises is raised when all have ended.
    """
    stopping = None if after is None else asyncio.ensure_future(after)

    async def relays() -> tuple[int, ...]:
        if stopping is not None:
            await asyncio.gather(stopping, return_exceptions=True)
        return await _end_relays(run_dir)

    # Side by side: a front ends with its last connection, which may be that of a client that does not read.
    fronts, first = await asyncio.gather(_end_fronts(run_dir, also), relays())
    # A front that has lost its relay starts another.
    again = await _end_relays(run_dir)
    if stopping is not None:
        await stopping
    return (*fronts, *first, *again)


async def end_hung(run_dir: Path, pid: int) -> bool:
    """End a front of ours that answers nobody. False, and nothing is done, if the process is no such front.

    Its relay goes on: connections that go by it live.
    """

    def known(pid: int) -> bool:
        return _is_front(pid) and _is_ours(pid, run_dir)

    return await _end(pid, (signal.SIGTERM, HUNG_SECONDS), (signal.SIGKILL, END_SECONDS), known=known)


async def _end_fronts(run_dir: Path, also: Iterable[int]) -> tuple[int, ...]:
    found = await asyncio.to_thread(find, run_dir)
    known: dict[int, Callable[[int], bool]] = dict.fromkeys(also, _is_front)
    known.update(dict.fromkeys(found.fronts, partial(_is_ours, run_dir=run_dir)))
    steps = ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS))
    ended = await asyncio.gather(*(_end(pid, *steps, known=known[pid]) for pid in sorted(known)))
    await asyncio.to_thread(sweep, run_dir)
    return tuple(pid for pid, done in zip(sorted(known), ended, strict=True) if done)


async def _end_relays(run_dir: Path) -> tuple[int, ...]:
    found = await asyncio.to_thread(find, run_dir)
    steps = ((None, LAST_WORDS_SECONDS), (signal.SIGKILL, END_SECONDS))
    known = partial(_is_ours, run_dir=run_dir)
    ended = await asyncio.gather(*(_end(pid, *steps, known=known) for pid in found.relays))
    return tuple(pid for pid, done in zip(found.relays, ended, strict=True) if done)


async def _end(pid: int, *steps: tuple[signal.Signals | None, float], known: Callable[[int], bool]) -> bool:
    """Return when it is gone, which may be no child of ours. Each step is a signal, and how long to wait after it.

    False, and nothing is done, if the pid is by now that of a process which is not `known`.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        # Only now is it certain that the handle is not that of a later process with its pid.
        if not known(pid):
            if any(process.arguments(pid)):
                return False
            # Of one that is just ending nothing can be read any more, and no signal is needed.
            steps = ((None, END_SECONDS),)
        for number, seconds in steps:
            if number is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await gone.wait()
                    break
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return True


def sweep(run_dir: Path) -> None:
    """Remove what gateways that are no more have left beside their sockets."""
    for lock in run_dir.glob(SOCKETS + ".lock"):
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            path = lock.with_suffix("")
            shutil.rmtree(Paths(path).doors, ignore_errors=True)
            path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(handle)
    for doors in run_dir.glob(SOCKETS + ".d"):
        # One that drains has let go of its lock, and closed these.
        if not Paths(doors.with_suffix("")).lock.exists():
            shutil.rmtree(doors, ignore_errors=True)
