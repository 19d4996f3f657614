"""Ends a platform from beside it, and what one that crashed has left running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.cgroup import Cgroups, find_home, probe
from lamplighter.compute.errors import ComputeError
from lamplighter.compute.pooler_files import running_below
from lamplighter.compute.ports import PostgresBuild
from lamplighter.compute.process import kill_all
from lamplighter.compute.supervisor import Supervisor
from lamplighter.compute.user import current_or_system_user
from lamplighter.platform import gateway_processes
from lamplighter.platform.errors import NotOurs, RedirectFailed, StillStopping
from lamplighter.platform.inspect import computes, find_platform, is_ours, run_dirs
from lamplighter.platform.machine import CATALOG, STOPS_AT_ONCE, storage_owner, volume_of
from lamplighter.platform.redirect import Redirects
from lamplighter.platform.state import sole_platform
from lamplighter.storage.errors import StorageError
from lamplighter.storage.factory import open_volumes
from lamplighter.storage.ports import Volumes

_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Orphans:
    """What a crashed platform had left and was ended: ids of computes, pids of gateways and relays.

    `problems` are sentences about what could not be.
    """

    computes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    gateways: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.computes or self.problems or self.gateways)


@dataclass(frozen=True, slots=True)
class Halted:
    """What was ended: the platform's process, if there was one, and what it or an earlier one had left running."""

    pid: int | None
    seconds: float
    left: Orphans = Orphans()


def halt(data_dir: Path, *, seconds: float, tick: Callable[[float, int], None]) -> Halted:
    """End what runs on this directory, and return when it has ended.

    `tick` is called every quarter of a second with the seconds passed and the number of computes that live.
    Raises StillStopping, NotOurs, and AlreadyRunning when another one begins meanwhile.
    """
    begin = time.monotonic()
    pid = _end_platform(data_dir, seconds, tick)
    left = [one.id for one in computes(data_dir) if one.alive]
    orphans = Orphans()
    if left or any(gateway_processes.find(run_dir) for run_dir in run_dirs(data_dir)):
        tick(time.monotonic() - begin, len(left))
        orphans = asyncio.run(stop_orphans(data_dir))
    return Halted(pid, time.monotonic() - begin, orphans)


def _end_platform(data_dir: Path, seconds: float, tick: Callable[[float, int], None]) -> int | None:
    pid = find_platform(data_dir).pid
    if pid is None:
        return None
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        # Only now is it certain that the handle is the platform's and not that of a later process with its pid.
        if find_platform(data_dir).pid != pid:
            return None
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        except ProcessLookupError:
            return pid
        except PermissionError:
            raise NotOurs(data_dir) from None
        _await_end(handle, pid, data_dir, seconds, tick)
    finally:
        os.close(handle)
    return pid


def _await_end(handle: int, pid: int, data_dir: Path, seconds: float, tick: Callable[[float, int], None]) -> None:
    begin = time.monotonic()
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    while True:
        passed = time.monotonic() - begin
        left = max(0.0, min(_LOOK_SECONDS, seconds - passed))
        if poller.poll(left * 1000):
            return
        if passed >= seconds:
            raise StillStopping(pid, seconds)
        tick(time.monotonic() - begin, sum(one.alive for one in computes(data_dir)))


async def stop_orphans(data_dir: Path) -> Orphans:
    """End gateway and computes of a platform that crashed, the catalog last.

    Nothing else is mended: the next `lamp up` takes up unfinished operations. Raises NotOurs, AlreadyRunning.
    """
    if not is_ours(data_dir):
        raise NotOurs(data_dir)
    ended: list[str] = []
    gateways: list[int] = []
    problems: list[str] = []
    owner = current_or_system_user()
    with sole_platform(data_dir):
        volumes = await asyncio.to_thread(_open, data_dir, owner, problems)
        for run_dir in run_dirs(data_dir):
            stopping = None
            if run_dir.is_dir():
                supervisor = _supervisor(run_dir, owner, log_dir=data_dir / "logs")
                stopping = asyncio.ensure_future(_stop_all(supervisor, run_dir, volumes, problems))
            # Side by side: who comes from now on is not to wait for a compute, and those who are connected are told by
            # theirs. Gateways outlive their directory.
            gateways += await gateway_processes.end(run_dir, after=stopping)
            if stopping is not None:
                ended += await stopping
                # Unless something is left in it.
                with contextlib.suppress(OSError):
                    run_dir.rmdir()
        if volumes is not None:
            await volumes.shutdown()
        try:
            await Redirects(data_dir).clear()
        except RedirectFailed as error:
            problems.append(str(error))
    return Orphans(tuple(ended), tuple(problems), tuple(gateways))


def _open(data_dir: Path, owner: tuple[int, int], problems: list[str]) -> Volumes | None:
    try:
        return open_volumes(data_dir / "storage", owner=storage_owner(owner))
    except (StorageError, OSError) as error:
        problems.append(f"the storage cannot be opened, so nothing was unmounted: {error}")
        return None


def _supervisor(run_dir: Path, owner: tuple[int, int], *, log_dir: Path) -> Supervisor:
    cgroups = Cgroups(find_home(probe(), "lamplighter"))
    return Supervisor(run_dir, builds=_no_build, owner=owner, log_dir=log_dir, cgroups=cgroups)


def _no_build(_major: int) -> PostgresBuild:
    raise NotImplementedError("nothing is started here")


def _end_poolers(run_dir: Path) -> list[int]:
    """They keep nothing, so they need no time to end. Returns those that did not."""
    return kill_all(pid for pids in running_below(run_dir).values() for pid in pids)


async def _stop_all(supervisor: Supervisor, run_dir: Path, volumes: Volumes | None, problems: list[str]) -> list[str]:
    gate = asyncio.Semaphore(STOPS_AT_ONCE)

    async def stop(compute_id: str) -> str | None:
        volume_id = volume_of(supervisor.spec(compute_id).data_dir)
        async with gate:
            try:
                await supervisor.stop(compute_id)
                if volumes is not None:
                    await volumes.close(volume_id)
            except (ComputeError, StorageError, OSError) as error:
                problems.append(f"{compute_id}: {error}")
                return None
        return compute_id

    running = [one.id for one in await supervisor.adopt() if one.state == "running"]
    try:
        # Each PgBouncer before its compute.
        if left := await asyncio.to_thread(_end_poolers, run_dir):
            problems.append(f"PgBouncer did not end: processes {', '.join(map(str, left))}")
        stopped = list(await asyncio.gather(*(stop(one) for one in running if one != CATALOG)))
        # What ends before still writes to it.
        stopped += [await stop(one) for one in running if one == CATALOG]
    finally:
        await supervisor.close()
    return [one for one in stopped if one is not None]
