"""What all drivers share: the layout of a pool, half-made volumes, the trash, the reserve, threads and locks.

    ROOT/driver.json     which driver made the volumes
    ROOT/volumes/ID/     one volume; its data directory is ID/data
    ROOT/volumes/.new-ID a volume in the making: removed by `recover`, and by the next attempt
    ROOT/trash/          what is being removed

A volume exists from the rename of `.new-ID` to `ID` on, and what it holds is on disk before that.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import errno
import logging
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

from lamplighter.files import sync_directory
from lamplighter.storage import linux, plan, tree
from lamplighter.storage.errors import StorageFull, VolumeNotFound
from lamplighter.storage.ports import Backup, BackupEnd, Owner, Usage, Volume

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_NEW = ".new-"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Enough that long copies do not hold up the short work of other volumes.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Site:
    """Where volumes are kept. `host` is the directory of a pool's loop file, whose file system must not fill either."""

    root: Path
    owner: Owner | None = None
    reserve_bytes: int | None = None
    host: Path | None = None
    #: Makes the pool visible again after somebody unmounted it; None when the volumes lie in no pool.
    remount: Callable[[], object] | None = field(default=None, repr=False)

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    def make_room(self, path: Path) -> None:
        """A directory on the way to data directories.

        It stays ours, so that whoever runs as the owner cannot move or replace what root works on; passing through
        must do.
        """
        tree.make_directory(path, None, mode=0o700 if self.owner is None else 0o711)


class BaseVolumes(ABC):
    """The part of `ports.Volumes` that does not depend on the driver."""

    driver: str
    atomic: bool = False
    #: Bytes that a clone takes at once, as a share of its source: all of it or nothing worth counting.
    copies: ClassVar[bool] = False

    def __init__(self, site: Site) -> None:
        self.site = site
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lamp-storage")
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._stop = threading.Event()
        self._background: set[asyncio.Task[object]] = set()
        self._emptying = False
        self._more_trash = False
        self._prepare()

    def _prepare(self) -> None:
        for directory in (self.site.root, self.site.volumes):
            self.site.make_room(directory)
        tree.make_directory(self.site.trash, None)

    # --- what a driver does

    @abstractmethod
    def _seed(self, new: Path, seed: Path, job: tree.Job) -> None:
        """Fill `new` from a stopped data directory elsewhere; on disk when it returns."""

    @abstractmethod
    async def _clone_asleep(self, source_id: str, new: Path) -> None:
        """Fill `new` from a volume that no postmaster uses; on disk when it returns."""

    @abstractmethod
    async def _clone_running(self, source_id: str, new: Path, backup: Backup) -> None:
        """Fill `new` from a volume whose postmaster runs; on disk when it returns."""

    @abstractmethod
    def _measure(self, volume_id: str) -> Usage:
        """Blocking."""

    def _open(self, volume_id: str) -> Volume:
        return Volume(volume_id, self._path(volume_id) / "data")

    def _close(self, volume_id: str) -> None:  # noqa: B027 - most drivers have nothing to close
        """Blocking; raises VolumeBusy."""

    def _remove(self, entry: Path) -> None:
        """Remove one entry of the trash; blocking."""
        tree.remove_tree(entry, self._stop)

    def _mend(self) -> builtins.list[str]:
        """What else a crash may have left; blocking."""
        return []

    def _copy_file(self, source: int, target: int) -> None:
        tree.reflink_or_copy(source, target)

    # --- ports.Volumes

    async def import_seed(self, volume_id: str, seed: Path) -> None:
        async def fill(new: Path) -> None:
            if not (seed / "PG_VERSION").is_file():
                message = f"{seed} is no data directory of Postgres: it has no file PG_VERSION."
                raise FileNotFoundError(message)
            await self._call(self._require, await self._call(tree.allocated_bytes, seed))
            await self._run(lambda stop: self._seed(new, seed, self._job(stop)))

        async with self._lock(volume_id):
            await self._make(volume_id, fill)

    async def clone(self, source_id: str, target_id: str, *, backup: Backup | None) -> None:
        async def fill(new: Path) -> None:
            data = self._path(source_id) / "data"
            await self._call(self._require, await self._call(tree.allocated_bytes, data) if self.copies else 0)
            if backup is None:
                await self._clone_asleep(source_id, new)
            else:
                await self._clone_running(source_id, new, backup)

        try:
            async with self._lock(target_id):
                if not self._path(target_id).is_dir():
                    self._require_volume(source_id)
                await self._make(target_id, fill)
        finally:
            # Also after success: the session holds back the source's WAL for as long as it lives.
            if backup is not None:
                await backup.abort()

    async def open(self, volume_id: str) -> Volume:
        async with self._lock(volume_id):
            self._require_volume(volume_id)
            return await self._call(self._open, volume_id)

    async def close(self, volume_id: str) -> None:
        async with self._lock(volume_id):
            if self._path(volume_id).is_dir():
                await self._call(self._close, volume_id)

    async def delete(self, volume_id: str) -> None:
        async with self._lock(volume_id):
            if self._path(volume_id).is_dir():
                await self._call(self._close, volume_id)
                await self._call(self._drop, self._path(volume_id))
            # Also when it is gone: an earlier attempt may have died between the rename and this.
            self._empty_trash()

    async def exists(self, volume_id: str) -> bool:
        return self._path(volume_id).is_dir()

    async def list(self) -> builtins.list[str]:
        return await self._call(self._ids)

    async def usage(self, volume_id: str) -> Usage:
        self._require_volume(volume_id)
        return await self._call(self._measure, volume_id)

    async def require_space(self) -> None:
        await self._call(self._require, 0)

    async def recover(self) -> builtins.list[str]:
        mended = await self._call(self._recover)
        self._empty_trash()
        return mended

    async def shutdown(self) -> None:
        self._stop.set()
        for task in self._background:
            task.cancel()
        while self._background:
            await asyncio.wait(self._background)
        await asyncio.to_thread(self._close_all)
        self._threads.shutdown(wait=True)

    # --- the making of a volume

    async def _make(self, volume_id: str, fill: Callable[[Path], Awaitable[None]]) -> None:
        target = self._path(volume_id)
        if target.is_dir():
            return
        new = self.site.volumes / f"{_NEW}{volume_id}"
        await self._call(self._begin, new)
        try:
            with self._full_disk_told():
                await fill(new)
                await self._call(self._commit, new, target)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._drop, new))
            self._empty_trash()
            raise

    def _begin(self, new: Path) -> None:
        self._drop(new)
        # Closed until it is complete: nobody else may put links where root is going to write.
        tree.make_directory(new, None)

    def _commit(self, new: Path, target: Path) -> None:
        self.site.make_room(new)
        new.rename(target)
        sync_directory(target.parent)

    def _drop(self, path: Path) -> None:
        tree.discard(path, self.site.trash)
        sync_directory(path.parent)

    @contextlib.contextmanager
    def _full_disk_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            free, total = linux.free_bytes(self.site.root)
            raise StorageFull(path=self.site.root, free_bytes=free, reserve_bytes=self._reserve(total)) from error

    # --- a clone under the backup API, for drivers whose clones are not atomic

    async def _under_backup(self, new: Path, backup: Backup, copy: Callable[[threading.Event], None]) -> BackupEnd:
        """Run `copy` between pg_backup_start and pg_backup_stop, and return what the latter left."""
        await backup.start(f"lamplighter {new.name.removeprefix(_NEW)}")
        await self._run(copy)
        return await backup.stop()

    def _finish_backup(self, source: Path, data: Path, end: BackupEnd, job: tree.Job) -> None:
        """Give the clone its WAL and its label. `source` is where the running data directory can be read."""
        clone_wal(source / plan.WAL_DIR, data / plan.WAL_DIR, end, job)
        if end.tablespace_map:
            tree.write_file(data / "tablespace_map", end.tablespace_map, self.site.owner)
        # Last: without a label Postgres would start from pg_control and believe that nothing is torn.
        tree.write_file(data / "backup_label", end.label_file, self.site.owner)

    # --- helpers

    def _job(self, stop: threading.Event) -> tree.Job:
        return tree.Job(self._copy_file, self.site.owner, stop)

    def _path(self, volume_id: str) -> Path:
        return self.site.volumes / plan.check_volume_id(volume_id)

    def _require_volume(self, volume_id: str) -> None:
        if not self._path(volume_id).is_dir():
            raise VolumeNotFound(volume_id)

    def _ids(self) -> builtins.list[str]:
        return sorted(path.name for path in self.site.volumes.iterdir() if not path.name.startswith("."))

    def _reserve(self, total: int) -> int:
        return plan.default_reserve(total) if self.site.reserve_bytes is None else self.site.reserve_bytes

    def _require(self, needed: int) -> None:
        free, total = linux.free_bytes(self.site.root)
        reserve = self._reserve(total)
        if free - needed < reserve:
            raise StorageFull(path=self.site.root, free_bytes=free, reserve_bytes=reserve, needed_bytes=needed)
        if self.site.host is not None:
            # A sparse loop file may have room inside and none outside; then writes fail as I/O errors in every branch.
            free, total = linux.free_bytes(self.site.host)
            if free - needed < plan.default_reserve(total):
                raise StorageFull(
                    path=self.site.host, free_bytes=free, reserve_bytes=plan.default_reserve(total), needed_bytes=needed
                )

    @contextlib.asynccontextmanager
    async def _lock(self, volume_id: str) -> AsyncIterator[None]:
        lock = self._locks.get(plan.check_volume_id(volume_id))
        if lock is None:
            lock = self._locks[volume_id] = asyncio.Lock()
        async with lock:
            yield

    async def _call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run short blocking work in a thread; it is not interrupted."""
        return await self._run(lambda _stop: work(*args, **kwargs))

    async def _run(self, work: Callable[[threading.Event], T]) -> T:
        """Run blocking work in a thread. When the caller is cancelled the work is told so, and waited for.

        What a thread still writes must not be cleaned away under it.
        """
        stop = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, stop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    # --- the trash

    def _empty_trash(self) -> None:
        self._more_trash = True
        if not self._emptying:
            self._emptying = True
            self._later(self._emptying_trash(), name="lamp-trash")

    async def _emptying_trash(self) -> None:
        try:
            while self._more_trash and not self._stop.is_set():
                self._more_trash = False
                await self._call(self._sweep)
        finally:
            self._emptying = False

    def _sweep(self) -> None:
        for entry in list(self.site.trash.iterdir()):
            try:
                self._remove(entry)
            except OSError as error:
                # Tried again at the next delete or start; it must not stop the others.
                _log.warning("%s cannot be removed now: %s", entry, error)
            except tree.Stopped:
                return

    def _later(self, work: Coroutine[object, object, object], *, name: str) -> None:
        """Work that nobody waits for; `shutdown` ends it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("%s ended early: %s", task.get_name(), error)

    def _recover(self) -> builtins.list[str]:
        mended: builtins.list[str] = []
        if self.site.remount is not None:
            self.site.remount()
        self._prepare()
        for path in sorted(self.site.volumes.glob(f"{_NEW}*")):
            self._drop(path)
            mended.append(f"Removed the half-made volume {path.name.removeprefix(_NEW)}.")
        mended += self._mend()
        if count := sum(1 for _ in self.site.trash.iterdir()):
            mended.append(f"The trash has {count} entries; it empties in the background.")
        return mended

    def _close_all(self) -> None:  # noqa: B027 - most drivers have nothing to close
        """Unmount what no postmaster uses; blocking."""


def clone_wal(source: Path, target: Path, end: BackupEnd, job: tree.Job) -> None:
    """Clone the WAL of a backup from one `pg_wal` to another, which exists. Raises WalMissing."""
    first = source / end.first_wal_file
    present = {entry.name for entry in source.iterdir()}
    segment_bytes = first.stat().st_size if end.first_wal_file in present else 2**24
    needed = plan.needed_wal(present, end.first_wal_file, end.last_wal_file, segment_bytes=segment_bytes)
    recycled = []
    for name in needed:
        try:
            found = tree.clone_one(source / name, target / name, job)
            # A checkpoint renames old segments and writes over them: then what was copied is not this segment.
            same = (source / name).stat().st_ino == found.st_ino
        except FileNotFoundError:
            same = False
        if not same:
            recycled.append(name)
    plan.needed_wal(present.difference(recycled), end.first_wal_file, end.last_wal_file, segment_bytes=segment_bytes)
