"""A pool: one sparse file with an XFS or btrfs in it, so that a host on ext4 gets instant branches. Root only.

    ROOT/pool.img    the file system         ROOT/pool.json   written last: without it there is no pool
    ROOT/pool/       where it is mounted; the volumes lie in here

Blocking. No line of /etc/fstab is touched: `open_volumes` and `recover` mount the pool again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lamplighter.files import write_atomic
from lamplighter.storage import linux
from lamplighter.storage.errors import PoolError, ToolMissing

PoolFs = Literal["xfs", "btrfs"]

#: mkfs.xfs refuses less than this; btrfs would do with less.
MIN_POOL_BYTES = 320 * 2**20

_MAKE: dict[str, tuple[str, ...]] = {
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
#: An ordinary login's PATH lacks these.
_SBIN = "/usr/sbin:/sbin"
_PACKAGE = {"mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "losetup": "mount", "mount": "mount"}
#: discard: what is deleted inside becomes free outside. noatime: a read must not copy metadata that clones share.
_OPTIONS = {"xfs": "noatime,discard", "btrfs": "noatime,discard=async,user_subvol_rm_allowed"}


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as it was made. `size_bytes` is what it may grow to; the file takes what is used."""

    root: Path
    fs: PoolFs
    size_bytes: int

    @property
    def image(self) -> Path:
        return self.root / "pool.img"

    @property
    def mount_point(self) -> Path:
        return self.root / "pool"


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What a pool takes now. `used_bytes` and `free_bytes` are None while it is not mounted."""

    pool: Pool
    mounted: bool
    image_bytes: int
    used_bytes: int | None
    free_bytes: int | None


def find_pool(root: Path) -> Pool | None:
    """The pool of this data directory, mounted or not. Raises PoolError when its record cannot be read."""
    try:
        content = json.loads((root / "pool.json").read_bytes())
        return Pool(root, content["fs"], int(content["size_bytes"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        message = f"{root / 'pool.json'} cannot be read: {error}"
        raise PoolError(message) from error


def init_pool(root: Path, size_bytes: int, fs: PoolFs = "xfs") -> Pool:
    """Make a pool and mount it. Raises PoolError: not root, there is one already, volumes lie outside of it."""
    _require_root()
    _check_new(root, size_bytes, fs)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    pool = Pool(root, fs, size_bytes)
    # One that a crash left half-made has no pool.json.
    for device in _devices(pool):
        _run("losetup", "--detach", device)
    pool.image.unlink(missing_ok=True)
    try:
        with pool.image.open("xb") as image:
            os.fchmod(image.fileno(), 0o600)
            image.truncate(size_bytes)
        _run(*_MAKE[fs], str(pool.image))
        _mount(pool)
    except BaseException:
        pool.image.unlink(missing_ok=True)
        raise
    record = {"fs": fs, "size_bytes": size_bytes}
    write_atomic(root / "pool.json", json.dumps(record).encode())
    return pool


def mount_pool(root: Path) -> Pool | None:
    """Mount the pool if there is one and it is not mounted. Raises PoolError."""
    pool = find_pool(root)
    if pool is not None and not linux.is_mounted(pool.mount_point):
        _require_root()
        _mount(pool)
    return pool


def unmount_pool(root: Path) -> bool:
    """Unmount the pool; whether it was mounted. Raises PoolError while something uses it."""
    pool = find_pool(root)
    if pool is None or not linux.is_mounted(pool.mount_point):
        return False
    _require_root()
    try:
        linux.unmount(pool.mount_point)
    except OSError as error:
        message = f"The pool at {pool.mount_point} cannot be unmounted ({error.strerror}): stop what uses it first."
        raise PoolError(message) from error
    return True


def pool_status(root: Path) -> PoolStatus | None:
    """None when there is no pool."""
    pool = find_pool(root)
    if pool is None:
        return None
    mounted = linux.is_mounted(pool.mount_point)
    free, total = linux.free_bytes(pool.mount_point) if mounted else (None, None)
    used = None if free is None or total is None else total - free
    image_bytes = pool.image.stat().st_blocks * 512 if pool.image.exists() else 0
    return PoolStatus(pool, mounted, image_bytes, used, free)


def _check_new(root: Path, size_bytes: int, fs: str) -> None:
    if fs not in get_args(PoolFs):
        message = f"A pool is xfs or btrfs, not {fs!r}."
        raise PoolError(message)
    if size_bytes < MIN_POOL_BYTES:
        message = f"A pool takes at least {MIN_POOL_BYTES // 2**20} MiB."
        raise PoolError(message)
    if find_pool(root) is not None:
        message = f"There is a pool in {root} already."
        raise PoolError(message)
    volumes = root / "volumes"
    if volumes.is_dir() and any(volumes.iterdir()):
        message = f"{root} has volumes that lie in no pool. Delete all projects first, or use another data directory."
        raise PoolError(message)


def _require_root() -> None:
    if os.geteuid() != 0:
        message = "Only root can make, mount or unmount a pool. Run this as root."
        raise PoolError(message)


def _mount(pool: Pool) -> None:
    pool.mount_point.mkdir(mode=0o700, exist_ok=True)
    with _loop_device(pool) as device:
        _run("mount", "-t", pool.fs, "-o", _OPTIONS[pool.fs], device, str(pool.mount_point))


@contextlib.contextmanager
def _loop_device(pool: Pool) -> Iterator[str]:
    """A loop device of the image, which goes by itself when what is mounted from it is unmounted."""
    if not pool.image.exists():
        message = f"The pool's file {pool.image} is gone."
        raise PoolError(message)
    device = next(iter(_devices(pool)), None)
    if device is None:
        attach = ("losetup", "--find", "--show")
        try:
            # Else everything is cached twice, inside and outside.
            device = _run(*attach, "--direct-io=on", str(pool.image)).strip()
        except PoolError:
            device = _run(*attach, str(pool.image)).strip()
    try:
        yield device
    finally:
        # Of a device in use this only says that it is not wanted after.
        _run("losetup", "--detach", device)


def _devices(pool: Pool) -> list[str]:
    if not pool.image.exists():
        return []
    return _run("losetup", "--noheadings", "--output", "NAME", "--associated", str(pool.image)).split()


def find_program(program: str, *, also: str = _SBIN) -> str:
    """Its path by PATH, then by `also`. Raises ToolMissing, which names the package."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{also}")
    if found is None:
        raise ToolMissing(program, package=_PACKAGE.get(program, "util-linux"))
    return found


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run([find_program(program), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"{program} failed: {done.stderr.strip() or done.stdout.strip() or done.returncode}"
        raise PoolError(message)
    return done.stdout
