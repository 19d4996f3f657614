"""Pools in a loop file: made, mounted again, filled up, taken down."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from lamplighter.storage import init_pool, linux, mount_pool, open_volumes, pool_status, unmount_pool
from lamplighter.storage.errors import PoolError, StorageFull, ToolMissing
from lamplighter.storage.pool import find_program
from support.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.root]

SIZE = 400 * 2**20


def loop_devices(root: Path) -> str:
    command = ["losetup", "--associated", str(root / "pool.img")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def until_gone(root: Path) -> None:
    # The kernel lets a loop device go a moment after the unmount.
    await eventually(lambda: not loop_devices(root), what="the end of the loop device")


@pytest.mark.parametrize(("fs", "driver"), [("xfs", "reflink"), ("btrfs", "btrfs")])
async def test_a_pool_gives_its_data_directory_the_driver_of_its_file_system(root, seed, data_owner, fs, driver):
    pool = init_pool(root, SIZE, fs)
    status = pool_status(root)
    assert status is not None
    assert (status.pool, status.mounted) == (pool, True)
    assert status.image_bytes < SIZE / 2, "the file is sparse"
    assert status.used_bytes + status.free_bytes <= SIZE

    volumes = open_volumes(root, owner=data_owner, reserve_bytes=0)
    assert volumes.driver == driver
    await volumes.import_seed("main", seed)
    await volumes.clone("main", "dev", backup=None)
    assert (await volumes.open("dev")).data_dir.is_relative_to(pool.mount_point)
    await volumes.shutdown()

    assert unmount_pool(root)
    assert not unmount_pool(root), "it was not mounted"
    await until_gone(root)
    assert pool_status(root).mounted is False

    # As after a reboot.
    again = open_volumes(root, owner=data_owner, reserve_bytes=0)
    assert await again.list() == ["dev", "main"]
    unmount_pool(root)
    assert await again.recover() == []
    assert await again.list() == ["dev", "main"]
    await again.shutdown()
    assert mount_pool(root) == pool


async def test_a_full_pool_refuses_a_clone_and_keeps_what_it_has(root, seed, data_owner):
    init_pool(root, SIZE, "xfs")
    volumes = open_volumes(root, driver="copy", owner=data_owner, reserve_bytes=2**20)
    (seed / "base/5/2000").write_bytes(os.urandom(150 * 2**20))
    await volumes.import_seed("main", seed)
    await volumes.clone("main", "dev", backup=None)
    with pytest.raises(StorageFull) as told:
        await volumes.clone("main", "feature", backup=None)
    assert told.value.needed_bytes > 150 * 2**20
    assert await volumes.list() == ["dev", "main"]
    await volumes.shutdown()


async def test_a_disk_that_fills_up_in_the_middle_is_told_as_such_and_leaves_nothing(root, seed, data_owner):
    pool = init_pool(root, SIZE, "xfs")
    volumes = open_volumes(root, driver="copy", owner=data_owner, reserve_bytes=0)
    await volumes.import_seed("main", seed)
    # A file that says to take little and has much to read: no check before can see it.
    data = (await volumes.open("main")).data_dir
    with (data / "base/5/3000").open("wb") as hole:
        hole.truncate(2**30)
    with pytest.raises(StorageFull):
        await volumes.clone("main", "dev", backup=None)
    assert await volumes.list() == ["main"]
    assert not list(pool.mount_point.glob("volumes/.new-*"))
    await volumes.shutdown()


async def test_a_pool_in_use_stays_mounted_and_says_so(root):
    pool = init_pool(root, SIZE, "xfs")
    with (pool.mount_point / "open").open("w"), pytest.raises(PoolError, match="stop what uses it"):
        unmount_pool(root)
    assert pool_status(root).mounted


async def test_a_pool_is_made_once_of_a_sensible_size_and_before_there_are_volumes(root, seed, data_owner):
    with pytest.raises(PoolError, match="at least"):
        init_pool(root, 2**20)
    with pytest.raises(PoolError, match="xfs or btrfs"):
        init_pool(root, SIZE, "ext4")
    volumes = open_volumes(root, driver="copy", owner=data_owner, reserve_bytes=0)
    await volumes.import_seed("main", seed)
    with pytest.raises(PoolError, match="lie in no pool"):
        init_pool(root, SIZE)
    await volumes.delete("main")
    await volumes.shutdown()
    init_pool(root, SIZE)
    with pytest.raises(PoolError, match="already"):
        init_pool(root, SIZE)


async def test_a_pool_that_a_crash_left_half_made_is_made_anew(root):
    (root / "pool.img").write_bytes(b"x" * 4096)
    await asyncio.to_thread(subprocess.run, ["losetup", "--find", str(root / "pool.img")], check=True)
    assert pool_status(root) is None
    init_pool(root, SIZE)
    assert pool_status(root).mounted


def test_a_missing_program_is_told_with_its_package(monkeypatch, tmp_path):
    (tmp_path / "losetup").symlink_to("/usr/sbin/losetup")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("losetup", also="") == str(tmp_path / "losetup")
    with pytest.raises(ToolMissing, match="apt-get install xfsprogs"):
        find_program("mkfs.xfs", also="")


async def test_a_pool_that_cannot_be_made_leaves_nothing(root, monkeypatch, tmp_path):
    (tmp_path / "mkfs.xfs").write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    (tmp_path / "mkfs.xfs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(PoolError, match="no such luck"):
        init_pool(root, SIZE)
    assert not (root / "pool.img").exists()
    assert pool_status(root) is None


async def test_only_a_journal_written_in_order_spares_a_sync_of_everything(root):
    """On ext4 that depends on how it was made; for a pool it is known."""
    xfs = init_pool(root, SIZE, "xfs")
    assert linux.commits_in_order(xfs.mount_point)
    for journal in ("has_journal", "^has_journal"):
        image, place = root / "image", root / "ext4"
        script = f"truncate -s 64M {image}; mkfs.ext4 -q -O {journal} {image}; mkdir -p {place}; mount {image} {place}"
        await asyncio.to_thread(subprocess.run, ["sh", "-ec", script], check=True)
        try:
            assert linux.commits_in_order(place) == (journal == "has_journal")
        finally:
            await asyncio.to_thread(subprocess.run, ["sh", "-ec", f"umount {place}; rm {image}"], check=True)
