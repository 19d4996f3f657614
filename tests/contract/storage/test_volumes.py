"""What every driver promises of volumes, on small files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lamplighter.storage import BackupEnd, open_volumes
from lamplighter.storage.errors import (
    DriverMismatch,
    ForeignLink,
    InvalidVolumeId,
    StorageError,
    StorageFull,
    VolumeNotFound,
)
from support.waiting import eventually

pytestmark = pytest.mark.anyio


async def content(volumes, shell, volume_id, script="find . -type f | sort | xargs md5sum"):
    """What a postmaster on the volume would see."""
    volume = await volumes.open(volume_id)
    try:
        return await shell(volume, script)
    finally:
        await volumes.close(volume_id)


async def test_an_imported_volume_has_the_files_of_its_seed_but_not_its_process_file(volumes, shell, tiny_seed):
    await volumes.import_seed("main", tiny_seed)
    seen = await content(volumes, shell, "main", "find . -type f -printf '%P %s\\n' | sort")
    assert seen.splitlines() == [
        "PG_VERSION 3",
        "base/5/1259 1048576",
        "base/5/1260 0",
        "global/pg_control 8192",
        "pg_wal/000000010000000000000001 1048576",
    ]
    assert (tiny_seed / "postmaster.pid").exists(), "the seed is left alone"


async def test_the_data_directory_is_closed_to_all_but_its_owner(volumes, shell, tiny_seed, owner):
    await volumes.import_seed("main", tiny_seed)
    await volumes.clone("main", "dev", backup=None)
    uid = os.geteuid() if owner is None else owner.uid
    for volume_id in ("main", "dev"):
        assert await content(volumes, shell, volume_id, "stat -c '%a %u' .") == f"700 {uid}\n"
        owners = await content(volumes, shell, volume_id, "find . -printf '%U\\n' | sort -u")
        assert owners == f"{uid}\n"


async def test_a_clone_has_what_its_source_has(volumes, shell, tiny_seed):
    await volumes.import_seed("main", tiny_seed)
    await content(volumes, shell, "main", "echo new > base/5/2000; rm base/5/1260; echo other > PG_VERSION")
    before = await content(volumes, shell, "main")
    await volumes.clone("main", "dev", backup=None)
    assert await content(volumes, shell, "dev") == before
    assert await content(volumes, shell, "main") == before


async def test_neither_sees_what_the_other_writes(volumes, shell, tiny_seed):
    await volumes.import_seed("main", tiny_seed)
    await volumes.clone("main", "dev", backup=None)
    await content(volumes, shell, "main", "echo main > base/5/1259; rm global/pg_control; mkdir base/7")
    await content(volumes, shell, "dev", "echo dev > base/5/1260; rm -r pg_wal; echo dev > base/8")
    assert await content(volumes, shell, "main", "cat base/5/1259; ls base; ls -d pg_wal; ls global") == (
        "main\n5\n7\npg_wal\n"
    )
    assert await content(volumes, shell, "dev", "head -c3 base/5/1259; cat base/5/1260; ls base; ls global") == (
        "aaadev\n5\n8\npg_control\n"
    )


async def test_generations_of_clones_keep_their_own_state(volumes, shell, tiny_seed):
    await volumes.import_seed("g0", tiny_seed)
    for number in range(1, 6):
        await volumes.clone(f"g{number - 1}", f"g{number}", backup=None)
        script = f"echo {number} > base/last; echo {number} > base/f{number}; rm -f base/f{number - 2}"
        await content(volumes, shell, f"g{number}", script)
    for number in range(1, 6):
        seen = await content(volumes, shell, f"g{number}", "cat base/last; cd base; ls -d f*")
        assert seen.split() == [str(number), *(f"f{kept}" for kept in (number - 1, number) if kept)]


async def test_clones_of_one_source_may_be_made_at_the_same_time(volumes, shell, tiny_seed):
    await volumes.import_seed("main", tiny_seed)
    await content(volumes, shell, "main", "echo x > base/x")
    before = await content(volumes, shell, "main")
    ids = [f"c{number}" for number in range(8)]
    await asyncio.gather(*(volumes.clone("main", volume_id, backup=None) for volume_id in ids))
    assert await volumes.list() == [*ids, "main"]
    for volume_id in ids:
        assert await content(volumes, shell, volume_id) == before


async def test_a_clone_has_no_replication_slots_and_its_source_keeps_and_may_rename_them(volumes, shell, tiny_seed):
    await volumes.import_seed("main", tiny_seed)
    await content(volumes, shell, "main", "mkdir pg_replslot/s1; echo state > pg_replslot/s1/state")
    await volumes.clone("main", "dev", backup=None)
    assert await content(volumes, shell, "dev", "ls pg_replslot") == ""
    # As Postgres does when it drops a slot; overlay refuses this for directories of lower layers, and mv would copy.
    rename = "perl -e 'rename(q(pg_replslot/s1), q(pg_replslot/s1.tmp)) or die $!'"
    seen = await content(volumes, shell, "main", f"cat pg_replslot/s1/state; {rename}; ls pg_replslot")
    assert seen == "state\ns1.tmp\n"


async def test_a_stale_process_file_is_not_cloned(volumes, shell, tiny_seed):
    await volumes.import_seed("main", tiny_seed)
    await content(volumes, shell, "main", "echo 1 > postmaster.pid; echo x > postmaster.opts")
    await volumes.clone("main", "dev", backup=None)
    await volumes.clone("dev", "feature", backup=None)
    for volume_id in ("dev", "feature"):
        assert await content(volumes, shell, volume_id, "ls | grep postmaster || true") == ""


async def test_doing_it_twice_is_doing_it_once(volumes, shell, tiny_seed):
    await volumes.import_seed("main", tiny_seed)
    await volumes.clone("main", "dev", backup=None)
    await content(volumes, shell, "main", "echo later > base/later")
    await content(volumes, shell, "dev", "echo mine > base/mine")
    await volumes.import_seed("main", tiny_seed)
    await volumes.clone("main", "dev", backup=None)
    assert await content(volumes, shell, "main", "cat base/later") == "later\n"
    assert await content(volumes, shell, "dev", "ls base") == "5\nmine\n"
    await volumes.open("dev")
    await volumes.open("dev")
    await volumes.close("dev")
    await volumes.close("dev")
    await volumes.close("never-made")
    await volumes.delete("dev")
    await volumes.delete("dev")
    await volumes.delete("never-made")
    assert await volumes.list() == ["main"]


async def test_what_is_not_there_is_said_to_be_missing(volumes, tiny_seed):
    assert not await volumes.exists("main")
    for missing in (volumes.open("main"), volumes.usage("main"), volumes.clone("main", "dev", backup=None)):
        with pytest.raises(VolumeNotFound):
            await missing
    assert await volumes.list() == []
    await volumes.import_seed("main", tiny_seed)
    assert await volumes.exists("main")


@pytest.mark.parametrize("volume_id", ["", "..", ".new-x", "a/b", "../../etc", "a\0b", "x" * 129, "å"])
async def test_an_id_cannot_lead_elsewhere(volumes, tiny_seed, volume_id):
    with pytest.raises(InvalidVolumeId):
        await volumes.import_seed(volume_id, tiny_seed)
    with pytest.raises(InvalidVolumeId):
        await volumes.delete(volume_id)


async def test_a_seed_must_be_a_data_directory(volumes, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="PG_VERSION"):
        await volumes.import_seed("main", tmp_path / "empty")
    assert await volumes.list() == []


async def test_a_deleted_source_takes_nothing_from_its_clones_and_all_space_comes_back(volumes, shell, tiny_seed, root):
    await volumes.import_seed("main", tiny_seed)
    await content(volumes, shell, "main", "echo x > base/x")
    await volumes.clone("main", "dev", backup=None)
    before = await content(volumes, shell, "dev")
    await volumes.delete("main")
    assert await volumes.list() == ["dev"]
    await eventually(lambda: not list((root / "trash").iterdir()), what="an empty trash")
    assert await content(volumes, shell, "dev") == before
    await volumes.delete("dev")
    left = [root / "trash", root / "volumes", root / "layers"]
    await eventually(lambda: not any(list(place.iterdir()) for place in left if place.exists()), what="the end of all")


async def test_a_tablespace_elsewhere_is_refused_since_the_clone_would_share_it(volumes, shell, tiny_seed, root):
    await volumes.import_seed("main", tiny_seed)
    await content(volumes, shell, "main", "mkdir -p pg_tblspc; ln -s /var/tmp pg_tblspc/16400")
    with pytest.raises(ForeignLink, match="16400"):
        await volumes.clone("main", "dev", backup=None)
    assert await volumes.list() == ["main"]
    assert not list((root / "volumes").glob(".new-*"))


async def test_what_a_crash_left_half_made_is_removed_at_the_next_start(opened, shell, tiny_seed, root):
    volumes = await opened()
    await volumes.import_seed("main", tiny_seed)
    half = root / "volumes" / ".new-dev"
    (half / "data").mkdir(parents=True)
    (half / "data" / "PG_VERSION").write_text("17")
    (root / "trash" / "old").mkdir()
    (root / "trash" / "old" / "file").write_text("x")
    (root / "trash" / "closed").mkdir(mode=0o000)
    if (root / "layers").exists():
        (root / "layers" / "deadbeef" / "t").mkdir(parents=True)
    await volumes.shutdown()

    again = await opened()
    assert await again.list() == ["main"]
    places = [root / "trash", *root.glob("volumes/.new-*"), *root.glob("layers/deadbeef")]
    await eventually(lambda: not any(list(p.iterdir()) for p in places if p.exists()), what="the end of leftovers")
    await again.clone("main", "dev", backup=None)
    assert "PG_VERSION" in await content(again, shell, "dev", "ls")


async def test_recover_says_what_it_mended(opened, root, driver, owner):
    await opened()
    (root / "volumes" / ".new-dev").mkdir()
    again = open_volumes(root, driver=driver, owner=owner, reserve_bytes=0)
    try:
        assert any("half-made volume dev" in sentence for sentence in await again.recover())
    finally:
        await again.shutdown()


async def test_below_the_reserve_nothing_new_is_made_and_what_is_there_goes_on(opened, shell, tiny_seed):
    volumes = await opened()
    await volumes.import_seed("main", tiny_seed)
    tight = await opened(reserve_bytes=2**60)
    for refused in (
        tight.require_space(),
        tight.clone("main", "dev", backup=None),
        tight.import_seed("other", tiny_seed),
    ):
        with pytest.raises(StorageFull) as told:
            await refused
        assert told.value.reserve_bytes == 2**60
        assert 0 < told.value.free_bytes < 2**60
    assert await tight.list() == ["main"]
    assert await content(tight, shell, "main", "echo x > base/x; cat base/x") == "x\n"
    await tight.delete("main")


async def test_own_bytes_are_what_is_not_shared(volumes, shell, tiny_seed, driver):
    # 8 MiB that do not compress, in one file.
    await asyncio.to_thread((tiny_seed / "base/5/2000").write_bytes, os.urandom(2**23))
    await volumes.import_seed("main", tiny_seed)
    await volumes.clone("main", "dev", backup=None)
    usage = await volumes.usage("dev")
    assert usage.apparent_bytes == 10 * 2**20 + 8192 + 3
    if driver == "copy":
        assert usage.own_bytes >= usage.apparent_bytes
    else:
        assert usage.own_bytes < 2**20
    await content(volumes, shell, "dev", "head -c 4194304 /dev/urandom > base/5/3000; sync")
    grown = await volumes.usage("dev")
    assert grown.apparent_bytes == usage.apparent_bytes + 2**22
    assert 2**22 <= grown.own_bytes - usage.own_bytes < 2**22 + 2**20


class StuckBackup:
    """A postmaster that does not answer `pg_backup_start`, or `CHECKPOINT`."""

    def __init__(self, visible_data_dir: Path) -> None:
        self.visible_data_dir = visible_data_dir
        self.reached = asyncio.Event()
        self.aborted = 0

    async def checkpoint(self) -> None:
        await self.start("")

    async def start(self, label: str) -> None:
        self.reached.set()
        await asyncio.Event().wait()

    async def stop(self) -> BackupEnd:
        raise AssertionError

    async def abort(self) -> None:
        self.aborted += 1


async def test_a_cancelled_clone_leaves_nothing_and_ends_its_backup(volumes, tiny_seed, root):
    await volumes.import_seed("main", tiny_seed)
    backup = StuckBackup(root / "volumes/main/data")
    task = asyncio.create_task(volumes.clone("main", "dev", backup=backup))
    await asyncio.wait_for(backup.reached.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backup.aborted == 1
    assert await volumes.list() == ["main"]
    assert not list((root / "volumes").glob(".new-*"))
    await volumes.clone("main", "dev", backup=None)
    assert await volumes.exists("dev")


async def test_a_backup_that_fails_is_given_up_and_leaves_nothing(volumes, tiny_seed, root):
    class Refusing(StuckBackup):
        async def start(self, label: str) -> None:
            raise RuntimeError(label)

    await volumes.import_seed("main", tiny_seed)
    backup = Refusing(root / "volumes/main/data")
    with pytest.raises(RuntimeError):
        await volumes.clone("main", "dev", backup=backup)
    assert backup.aborted == 1
    assert not list((root / "volumes").glob(".new-*"))


async def test_volumes_of_one_driver_are_not_opened_with_another(opened, tiny_seed, root, driver, owner):
    volumes = await opened()
    await volumes.import_seed("main", tiny_seed)
    other = "copy" if driver != "copy" else "overlay"
    with pytest.raises(DriverMismatch, match=driver):
        open_volumes(root, driver=other, owner=owner)
    same = open_volumes(root, owner=owner)
    assert same.driver == driver
    await same.shutdown()


async def test_an_unreadable_record_of_the_driver_is_not_overwritten(opened, root, owner):
    await opened()
    (root / "driver.json").write_text("{")
    with pytest.raises(StorageError, match=r"driver\.json"):
        open_volumes(root, owner=owner)
    assert (root / "driver.json").read_text() == "{"
