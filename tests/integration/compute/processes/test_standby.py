"""Hot standbys: read-only endpoints of a branch."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import psycopg
import pytest

from lamplighter.compute.ports import Standby


async def value(supervisor, compute_id, query, dbname="neondb"):
    async with await supervisor.connect(compute_id, dbname) as connection:
        return (await (await connection.execute(query)).fetchone())[0]


async def pair(house, major, **standby_values):
    """A primary, and a standby on a clone of it that was taken while it ran."""
    supervisor = house.supervisor()
    primary = house.spec("ep-primary", major=major, cu=0.5)
    await supervisor.start(primary)
    await supervisor.create_slot(primary.id, "lamp_ro")
    await supervisor.create_slot(primary.id, "lamp_ro")
    backup = await supervisor.backup(primary.id)
    await backup.start("standby")
    data = house.clone(backup.visible_data_dir, "data-standby")
    end = await backup.stop()
    await backup.abort()
    (data / "backup_label").write_bytes(end.label_file)
    os.chown(data / "backup_label", *house.owner)
    standby = replace(primary, id="ep-standby", data_dir=data, standby=Standby(primary.id, "lamp_ro"), **standby_values)
    await supervisor.start(standby)
    return supervisor, primary, standby


@pytest.mark.parametrize("major", [14, 17, 18])
async def test_a_standby_follows_and_refuses_writes(house, until, major):
    # Smaller than its primary: Postgres would refuse fewer connections than that has.
    supervisor, primary, standby = await pair(house, major, cu=0.25)
    assert await value(supervisor, standby.id, "SELECT pg_is_in_recovery()")
    async with await supervisor.connect(primary.id, "neondb") as connection:
        await connection.execute("CREATE TABLE public.t AS SELECT 42 AS a")

    async def arrived():
        return await value(supervisor, standby.id, "SELECT to_regclass('public.t') IS NOT NULL")

    await until(arrived)
    assert await value(supervisor, standby.id, "SELECT a FROM public.t") == 42
    async with await supervisor.connect(standby.id, "neondb") as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute("INSERT INTO public.t VALUES (1)")
    assert await value(supervisor, primary.id, "SELECT active FROM pg_replication_slots") is True
    await supervisor.stop(standby.id)
    await supervisor.drop_slot(primary.id, "lamp_ro")
    await supervisor.drop_slot(primary.id, "lamp_ro")
    assert await value(supervisor, primary.id, "SELECT count(*) FROM pg_replication_slots") == 0


async def test_a_standby_finds_its_primary_again_after_a_crash(house, until):
    supervisor, primary, standby = await pair(house, 17)
    os.kill(supervisor.status(primary.id).pid, signal.SIGKILL)
    await until(lambda: house.crashes)
    assert supervisor.status(standby.id).state == "running"
    await supervisor.start(primary)
    async with await supervisor.connect(primary.id, "neondb") as connection:
        await connection.execute("CREATE TABLE public.t AS SELECT 42 AS a")

    async def arrived():
        return await value(supervisor, standby.id, "SELECT to_regclass('public.t') IS NOT NULL")

    await until(arrived)


async def test_a_clone_of_a_standby_with_slots_starts_as_a_primary_without_them(house):
    supervisor, primary, standby = await pair(house, 17)
    await supervisor.stop(standby.id)
    await supervisor.stop(primary.id)
    clone = replace(primary, id="ep-clone", data_dir=house.clone(primary.data_dir, "data-clone"))
    (clone.data_dir / "standby.signal").write_bytes(b"")
    await supervisor.start(clone)
    assert await value(supervisor, clone.id, "SELECT pg_is_in_recovery()") is False
    assert await value(supervisor, clone.id, "SELECT count(*) FROM pg_replication_slots") == 0
    # The primary itself keeps what its standby needs.
    await supervisor.start(primary)
    assert await value(supervisor, primary.id, "SELECT count(*) FROM pg_replication_slots") == 1
