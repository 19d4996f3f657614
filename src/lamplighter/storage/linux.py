"""The few system calls that Python lacks: clone files and subvolumes, mount, sync a file system, ask for extents.

All of them block; call them from a thread. Numbers and layouts are those of the kernel's headers linux/fs.h,
linux/btrfs.h, linux/fiemap.h and linux/mount.h for 64-bit machines.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_libc = ctypes.CDLL(None, use_errno=True)

_FICLONE = 0x40049409
_FIEMAP = 0xC020660B
_SUBVOL_CREATE_V2 = 0x50009418
_SNAP_CREATE_V2 = 0x50009417
_SNAP_DESTROY = 0x5000940F
_EXTENT_LAST = 0x1
_EXTENT_INLINE = 0x200
_EXTENT_SHARED = 0x2000
_CLONE_FS = 0x200
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
#: The inode number of every btrfs subvolume's root.
_SUBVOLUME_INODE = 256

_MAGIC = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0x2FC12FC1: "zfs",
    0x6969: "nfs",
    0xCA451A4E: "bcachefs",
    0xF2F52010: "f2fs",
    0x65735546: "fuse",
}

T = TypeVar("T")


def _check(result: int, path: object) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def filesystem(path: Path) -> str:
    """The name of the file system that `path` lies on, or its magic number in hexadecimal."""
    # struct statfs begins with the type, as a C long; the rest is below 256 bytes on every architecture.
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.statfs(os.fsencode(path), buffer), path)
    magic = int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], "little") & 0xFFFFFFFF
    return _MAGIC.get(magic, hex(magic))


def free_bytes(path: Path) -> tuple[int, int]:
    """Free bytes that an ordinary user may take, and the size of the file system."""
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize


def sync_filesystem(path: Path) -> None:
    """Write out all that is dirty on the file system of `path`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        _check(_libc.syncfs(handle), path)
    finally:
        os.close(handle)


def commits_in_order(path: Path) -> bool:
    """Whether the sync of a directory also makes every earlier change of the file system's metadata durable.

    So it is where one journal is written in order: XFS, and ext4 if it has a journal.
    """
    name = filesystem(path)
    if name != "ext4":
        return name == "xfs"
    number = path.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
    return any(Path("/proc/fs/jbd2").glob(f"{device}-*"))


def write_out(handle: int, *, wait: bool) -> None:
    """Begin to write the dirty pages of an open file, or wait until they are written. Its metadata is left alone."""
    flags = _WAIT_BEFORE | _WRITE | _WAIT_AFTER if wait else _WRITE
    _check(_libc.sync_file_range(handle, ctypes.c_int64(0), ctypes.c_int64(0), flags), handle)


def clone_file(source: int, target: int) -> None:
    """Share the bytes of file `source` with the new file `target` (both descriptors). Raises OSError."""
    fcntl.ioctl(target, _FICLONE, source)


# --- btrfs --------------------------------------------------------------------------------------------------------


def is_subvolume(path: Path) -> bool:
    """Whether `path` is the root of a btrfs subvolume."""
    return path.lstat().st_ino == _SUBVOLUME_INODE and filesystem(path) == "btrfs"


def create_subvolume(path: Path) -> None:
    _subvolume_call(path, _SUBVOL_CREATE_V2, source=0)


def snapshot_subvolume(source: Path, target: Path) -> None:
    """Make `target` a writable snapshot of the subvolume `source`; on disk when this returns."""
    handle = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _subvolume_call(target, _SNAP_CREATE_V2, source=handle)
    finally:
        os.close(handle)


def destroy_subvolume(path: Path) -> None:
    """Delete a subvolume with its content. PermissionError: the mount lacks `user_subvol_rm_allowed`."""
    _with_parent(path, lambda parent: fcntl.ioctl(parent, _SNAP_DESTROY, _named(struct.pack("=q", 0), path)))


def _subvolume_call(target: Path, request: int, *, source: int) -> None:
    _with_parent(
        target, lambda parent: fcntl.ioctl(parent, request, _named(struct.pack("=qQQ32x", source, 0, 0), target))
    )


def _named(head: bytes, path: Path) -> bytearray:
    # A bytearray, since fcntl.ioctl takes at most 1024 bytes when they are immutable.
    name = os.fsencode(path.name)
    return bytearray(head + name + bytes(4096 - len(head) - len(name)))


def _with_parent(path: Path, call: Callable[[int], int]) -> None:
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        call(parent)
    finally:
        os.close(parent)


# --- mounts -------------------------------------------------------------------------------------------------------


def mount(source: str, target: Path, fstype: str, *, options: str = "", cwd: Path | None = None) -> None:
    """Mount for this mount namespace. With `cwd`, relative paths in `options` are seen from there."""
    arguments = (source.encode(), os.fsencode(target), fstype.encode(), 0, options.encode())

    def call() -> None:
        _check(_libc.mount(*arguments), target)

    call() if cwd is None else _in_directory(cwd, call)


def unmount(target: Path) -> None:
    """Unmount what is mounted there. OSError with EBUSY while a process uses it."""
    _check(_libc.umount2(os.fsencode(target), 0), target)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted exactly at `path`."""
    return path.is_mount()


def is_busy(error: OSError) -> bool:
    return error.errno == errno.EBUSY


def _in_directory(cwd: Path, call: Callable[[], T]) -> T:
    # A thread may have a current directory of its own (CLONE_FS); a fresh one, because it cannot go back.
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _check(_libc.unshare(_CLONE_FS), cwd)
            os.chdir(cwd)
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits
            failures.append(error)

    thread = threading.Thread(target=run, name="lamp-chdir")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


# --- extents ------------------------------------------------------------------------------------------------------

_EXTENTS_PER_CALL = 256
_HEAD = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")


def exclusive_bytes(handle: int) -> int:
    """Bytes of an open file that no other file shares. OSError where the file system keeps no such record."""
    position, own = 0, 0
    while True:
        request = _HEAD.pack(position, 2**64 - 1 - position, 0, 0, _EXTENTS_PER_CALL, 0)
        buffer = bytearray(request + bytes(_EXTENT.size * _EXTENTS_PER_CALL))
        fcntl.ioctl(handle, _FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        flags = _EXTENT_LAST
        for index in range(count):
            logical, _, length, flags = _EXTENT.unpack_from(buffer, _HEAD.size + index * _EXTENT.size)
            position = logical + length
            if not flags & (_EXTENT_SHARED | _EXTENT_INLINE):
                own += length
        if flags & _EXTENT_LAST:
            return own
