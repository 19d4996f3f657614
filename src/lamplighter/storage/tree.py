"""Copying, measuring and removing directory trees. Blocking: run it in a thread, and end it through `stop`.

Nothing here decides what belongs to a clone; that is `plan`.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lamplighter.storage import linux, plan
from lamplighter.storage.errors import ForeignLink
from lamplighter.storage.ports import Owner

CopyFile = Callable[[int, int], None]

OPAQUE = "user.overlay.opaque"
_CHUNK = 2**20
_NO_REFLINK = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})


class Stopped(Exception):
    """The work was told to stop: no error, somebody asked for it."""


@dataclass(frozen=True, slots=True)
class Job:
    """How files are copied, whom the copies belong to (None: whoever runs this), and who may end the work."""

    copy_file: CopyFile
    owner: Owner | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.stop.is_set():
            raise Stopped


# --- one file -----------------------------------------------------------------------------------------------------


def reflink(source: int, target: int) -> None:
    """Share the bytes. OSError where the file system cannot."""
    linux.clone_file(source, target)


def copy(source: int, target: int) -> None:
    """Copy the bytes to the end, wherever that is by then.

    Not by copy_file_range: it may share them, and who asks for a copy wants one that cannot run out of space later.
    """
    position = 0
    while sent := os.sendfile(target, source, position, 2**30):
        position += sent


def reflink_or_copy(source: int, target: int) -> None:
    """Share the bytes if the file system can, else copy them."""
    try:
        linux.clone_file(source, target)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        copy(source, target)


def _copy_control(source: int, target: int) -> None:
    # Postgres rewrites this file in place; what was read twice the same is no mixture of two writes.
    content = os.pread(source, _CHUNK, 0)
    while (again := os.pread(source, _CHUNK, 0)) != content:
        content = again
    _write_all(target, content)


def _write_all(target: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(target, view) :]


def clone_one(
    source: str | Path,
    target: str | Path,
    job: Job,
    *,
    copy_file: CopyFile | None = None,
    source_dir: int | None = None,
) -> os.stat_result:
    """Make the regular file `target` from `source`, with its mode. Returns what the source was when it was opened.

    With `source_dir`, a descriptor, `source` is a name in this directory.
    """
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_dir)
    try:
        found = os.fstat(reader)
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            mode = stat.S_IMODE(found.st_mode)
            # Each of these is a transaction of the file system, and almost every file of Postgres is 0600.
            if mode != 0o600:
                os.fchmod(writer, mode)
            if job.owner is not None:
                os.fchown(writer, job.owner.uid, job.owner.gid)
            # A third of a cluster's files are empty. One that grows just now is WAL's to fill, as any change is.
            if found.st_size:
                (copy_file or job.copy_file)(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    return found


def write_file(path: Path, content: bytes, owner: Owner | None) -> None:
    """A new file of the data directory, on disk when this returns."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if owner is not None:
            os.fchown(handle, owner.uid, owner.gid)
        _write_all(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


# --- a tree -------------------------------------------------------------------------------------------------------


def make_directory(path: Path, owner: Owner | None, *, mode: int = 0o700) -> None:
    """A directory of exactly this mode and owner; no error if it is there."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)


def clone_tree(source: Path, target: Path, job: Job, *, scope: plan.Scope) -> None:
    """Clone the data directory `source` to `target`, which may exist empty, without what `scope` leaves out.

    Overlay's whiteouts and opaque directories are cloned as such. Files that vanish meanwhile are no error while a
    backup runs. Raises ForeignLink, Stopped, OSError.
    """
    _clone_directory(_Place(str(source), str(target), "", source, None), job, scope)
    if scope is plan.Scope.BACKUP:
        clone_one(source / plan.CONTROL_FILE, target / plan.CONTROL_FILE, job, copy_file=_copy_control)


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory to clone. It is opened by its name in `parent`, a descriptor.

    So whoever may write in the source cannot lead root elsewhere by putting a symbolic link on the way. Strings, since
    to build Path objects takes a sixth of the time of a clone.
    """

    source: str
    target: str
    relative: str
    name: str | Path
    parent: int | None

    def open(self) -> int:
        return os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.parent)

    def child(self, name: str, handle: int) -> _Place:
        relative = f"{self.relative}/{name}" if self.relative else name
        return _Place(f"{self.source}/{name}", f"{self.target}/{name}", relative, name, handle)


def _clone_directory(place: _Place, job: Job, scope: plan.Scope) -> None:
    job.check()
    try:
        handle = place.open()
    except FileNotFoundError:
        if scope is plan.Scope.BACKUP and place.relative:
            return
        raise
    try:
        # The top must be what Postgres accepts, whatever a seed's directory was.
        mode = stat.S_IMODE(os.fstat(handle).st_mode) if place.relative else 0o700
        make_directory(Path(place.target), job.owner, mode=mode)
        if is_opaque(handle):
            set_opaque(Path(place.target))
        if not plan.is_emptied(place.relative, scope):
            _clone_entries(place, handle, job, scope)
    finally:
        os.close(handle)


def _clone_entries(place: _Place, handle: int, job: Job, scope: plan.Scope) -> None:
    with os.scandir(handle) as found:
        entries = list(found)
    skipped: frozenset[str] = frozenset()
    if scope is plan.Scope.BACKUP:
        skipped = plan.unlogged_files(place.relative, [entry.name for entry in entries])
    for entry in entries:
        if entry.name in skipped:
            continue
        child = place.child(entry.name, handle)
        if entry.is_symlink():
            raise ForeignLink(Path(child.source))
        if entry.is_dir(follow_symlinks=False):
            _clone_directory(child, job, scope)
        else:
            _clone_leaf(entry, child, job, scope)


def _clone_leaf(entry: os.DirEntry[str], place: _Place, job: Job, scope: plan.Scope) -> None:
    try:
        if entry.is_file(follow_symlinks=False):
            if not plan.is_left_out(place.relative, scope):
                clone_one(place.name, place.target, job, source_dir=place.parent)
        elif is_whiteout(entry):
            make_whiteout(Path(place.target))
    except FileNotFoundError:
        if scope is not plan.Scope.BACKUP:
            raise


def check_links(data: Path) -> None:
    """Raise ForeignLink for what an atomic snapshot would share with its source unseen."""
    places = [data / plan.WAL_DIR]
    tablespaces = data / "pg_tblspc"
    if tablespaces.is_dir():
        places.extend(tablespaces.iterdir())
    for place in places:
        if place.is_symlink():
            raise ForeignLink(place)


# --- overlay's marks ----------------------------------------------------------------------------------------------


def is_whiteout(entry: os.DirEntry[str]) -> bool:
    """Whether overlay hides what layers below have under this name."""
    found = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def make_whiteout(path: Path) -> None:
    # Device 0/0 is the one that the kernel lets an ordinary user make (since 5.8).
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def is_opaque(directory: Path | int) -> bool:
    """Whether overlay shows nothing of the layers below this directory."""
    try:
        return os.getxattr(directory, OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def set_opaque(directory: Path) -> None:
    os.setxattr(directory, OPAQUE, b"y")


# --- durability ---------------------------------------------------------------------------------------------------


def settle(path: Path) -> None:
    """Put all files below `path` on disk, together with the sync of a directory that has to follow.

    A clone of a cleanly stopped source starts without recovery, so Postgres never syncs its files: we must. For the 970
    files of a new cluster, 1600 to 2300 ms were measured with an fsync each, and 60 to 200 ms by a sync of the file
    system, which however writes out what others have dirtied too: seconds' worth of it on a busy host. Where the
    journal keeps the order it is enough to write these files (40 to 160 ms): the sync of the directory then commits
    what was done before.
    """
    if not linux.commits_in_order(path):
        linux.sync_filesystem(path)
        return
    for wait in (False, True):
        for entry in files(path):
            handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                linux.write_out(handle, wait=wait)
            finally:
                os.close(handle)


# --- removing -----------------------------------------------------------------------------------------------------


def discard(path: Path, trash: Path) -> None:
    """Move `path` to the trash at once; emptying it takes its time. No error if there is nothing."""
    try:
        path.rename(trash / f"{path.name.lstrip('.')}.{secrets.token_hex(4)}")
    except FileNotFoundError:
        return


def remove_tree(path: Path, stop: threading.Event) -> None:
    """Remove a directory with all that it holds, also where its mode forbids looking. Raises Stopped between files."""
    if stop.is_set():
        raise Stopped
    try:
        with os.scandir(path) as found:
            entries = list(found)
    except PermissionError:
        # The kernel leaves overlay's work directory with mode 000.
        path.chmod(0o700)
        with os.scandir(path) as found:
            entries = list(found)
    except NotADirectoryError:
        path.unlink()
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(Path(entry.path), stop)
        else:
            Path(entry.path).unlink()
    path.rmdir()


# --- measuring ----------------------------------------------------------------------------------------------------


def files(path: Path) -> Iterator[os.DirEntry[str]]:
    """Every regular file below `path`. What vanishes meanwhile is left out."""
    try:
        with os.scandir(path) as found:
            entries = list(found)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield entry


def apparent_bytes(path: Path) -> int:
    """Sum of the files' lengths."""
    return sum(found.st_size for found in _stats(path))


def allocated_bytes(path: Path) -> int:
    """Sum of the files' blocks."""
    return sum(found.st_blocks * 512 for found in _stats(path))


def _stats(path: Path) -> Iterator[os.stat_result]:
    for entry in files(path):
        try:
            yield entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue


def exclusive_bytes(path: Path) -> int | None:
    """Bytes below `path` that no other file shares; None where the file system keeps no such record."""
    total = 0
    for entry in files(path):
        try:
            handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            total += linux.exclusive_bytes(handle)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
                return None
            raise
        finally:
            os.close(handle)
    return total
