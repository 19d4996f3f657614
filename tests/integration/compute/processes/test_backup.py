"""A running compute as the source of a clone."""

from __future__ import annotations

import os

import pytest

from lamplighter.compute.errors import ChangeFailed, NotRunning


@pytest.mark.parametrize("major", [14, 15, 17, 18])
async def test_a_clone_under_the_backup_has_all_that_was_committed_before_its_end(house, major):
    supervisor = house.supervisor()
    source = house.spec("ep-source", major=major)
    await supervisor.start(source)
    async with await supervisor.connect(source.id, "neondb") as connection:
        await connection.execute("CREATE TABLE public.t AS SELECT g AS a FROM generate_series(1, 1000) g")
        backup = await supervisor.backup(source.id)
        assert backup.visible_data_dir == source.data_dir
        await backup.checkpoint()
        await backup.start("a clone")
        clone = house.clone(backup.visible_data_dir, "data-clone")
        # A file-by-file clone has seen nothing of this; the WAL has.
        await connection.execute("INSERT INTO public.t VALUES (0)")
        await connection.execute("CHECKPOINT")
        end = await backup.stop()
        await backup.abort()
        await backup.abort()
    assert end.tablespace_map == b""
    assert b"LABEL: a clone" in end.label_file
    wal = clone / "pg_wal"
    for segment in (source.data_dir / "pg_wal").iterdir():
        if end.first_wal_file <= segment.name <= end.last_wal_file:
            (wal / segment.name).write_bytes(segment.read_bytes())
            os.chown(wal / segment.name, *house.owner)
    assert (wal / end.last_wal_file).exists()
    (clone / "backup_label").write_bytes(end.label_file)
    os.chown(clone / "backup_label", *house.owner)
    target = house.spec("ep-target", major=major, data_dir=clone)
    await supervisor.start(target)
    async with await supervisor.connect(target.id, "neondb") as connection:
        cursor = await connection.execute("SELECT count(*) FROM public.t")
        assert await cursor.fetchone() == (1001,)


async def test_a_backup_that_is_given_up_leaves_the_server_free_for_another(house):
    supervisor = house.supervisor()
    source = house.spec()
    with pytest.raises(NotRunning):
        await supervisor.backup(source.id)
    await supervisor.start(source)
    first = await supervisor.backup(source.id)
    with pytest.raises(ChangeFailed):
        await first.stop()
    await first.start("one")
    await first.abort()
    second = await supervisor.backup(source.id)
    await second.start("two")
    assert b"LABEL: two" in (await second.stop()).label_file
    await second.abort()
