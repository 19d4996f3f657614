"""What every driver promises of a clone of real Postgres, asleep or running."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from lamplighter.storage.errors import VolumeBusy, WalMissing
from support.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

ACCOUNTS = "CREATE TABLE accounts AS SELECT g AS id, 100 AS balance FROM generate_series(1, 2000) g"


@pytest.fixture
async def main(volumes, seed):
    """A volume with an empty cluster."""
    await volumes.import_seed("main", seed)
    return "main"


async def test_a_branch_of_a_sleeping_parent_has_its_rows_and_both_go_their_way(volumes, main, serve):
    async with serve(main) as server:
        await server.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 100) g")
    await volumes.clone(main, "dev", backup=None)
    async with serve("dev") as dev, serve(main) as parent:
        assert await dev.sql("SELECT count(*) FROM t") == [(100,)]
        await dev.sql("DELETE FROM t WHERE g > 10; CREATE TABLE only_dev (x int)")
        await parent.sql("INSERT INTO t VALUES (0)")
        assert await parent.sql("SELECT count(*) FROM t") == [(101,)]
        assert await parent.sql("SELECT to_regclass('only_dev')") == [(None,)]
    await volumes.clone("dev", "feature", backup=None)
    async with serve("feature") as feature:
        assert await feature.sql("SELECT count(*) FROM t") == [(10,)]
        assert await feature.sql("SELECT to_regclass('only_dev')::text") == [("only_dev",)]


async def test_a_branch_of_a_crashed_parent_recovers(volumes, main, serve):
    async with serve(main) as server:
        await server.sql("CHECKPOINT")
        await server.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 100) g")
        await server.end(signal.SIGQUIT)
    await volumes.clone(main, "dev", backup=None)
    async with serve("dev") as dev, serve(main) as parent:
        for server in (dev, parent):
            assert await server.sql("SELECT count(*) FROM t") == [(100,)]


async def test_a_branch_of_a_running_parent_has_what_was_committed_and_cuts_nobody(volumes, main, serve, backup_of):
    async with serve(main) as server:
        await server.sql("CREATE TABLE t (g int); INSERT INTO t VALUES (1)")
        open_transaction = await server.connect(autocommit=False)
        await open_transaction.execute("INSERT INTO t VALUES (2)")
        backup = backup_of(server)
        await volumes.clone(main, "dev", backup=backup)
        assert backup.calls == (["checkpoint", "abort"] if volumes.atomic else ["start", "stop", "abort"])
        async with serve("dev") as dev:
            assert await dev.sql("SELECT g FROM t") == [(1,)]
            await open_transaction.commit()
            await open_transaction.close()
            assert await server.sql("SELECT g FROM t ORDER BY g") == [(1,), (2,)]
            assert await dev.sql("SELECT g FROM t") == [(1,)]
            await dev.sql("INSERT INTO t VALUES (7)")
            # A child of a running child, and one of it when it sleeps.
            await volumes.clone("dev", "running-child", backup=backup_of(dev))
        await volumes.clone("dev", "sleeping-child", backup=None)
    for volume_id in ("running-child", "sleeping-child"):
        async with serve(volume_id) as child:
            assert await child.sql("SELECT g FROM t ORDER BY g") == [(1,), (7,)]


async def test_a_branch_that_never_started_can_be_branched(volumes, main, serve, backup_of):
    async with serve(main) as server:
        await server.sql("CREATE TABLE t AS SELECT 1 AS g")
        await volumes.clone(main, "dev", backup=backup_of(server))
        await volumes.clone("dev", "feature", backup=None)
    async with serve("feature") as feature:
        assert await feature.sql("SELECT g FROM t") == [(1,)]


async def test_a_change_and_a_checkpoint_in_the_middle_of_a_clone_are_not_lost(volumes, main, serve, backup_of):
    """Committed before the clone ended, written to files that the clone had copied before: only the WAL has it."""
    async with serve(main) as server:
        await server.sql("CREATE TABLE t AS SELECT 'before' AS v")
        await server.sql("CHECKPOINT")

        async def change():
            await server.sql("UPDATE t SET v = 'after'")
            await server.sql("CHECKPOINT")

        backup = backup_of(server, before_stop=change)
        if volumes.atomic:
            # One instant has no middle; what comes before it is all there.
            await change()
        await volumes.clone(main, "dev", backup=backup)
    async with serve("dev") as dev:
        assert await dev.sql("SELECT v FROM t") == [("after",)]


@pytest.mark.parametrize("driver", ["copy"], indirect=True)
async def test_a_bare_walk_over_a_running_parent_silently_loses_what_was_committed(volumes, main, serve, owner, root):
    """Why there is a backup in every clone that is no instant: this branch starts without any error, and is wrong."""
    async with serve(main) as server:
        await server.sql("CREATE TABLE t AS SELECT 'before' AS v")
        await server.sql("CHECKPOINT")
        source, data = server.visible_data_dir, root / "volumes" / "bare" / "data"
        shutil.copytree(source / "base", data / "base")
        await server.sql("UPDATE t SET v = 'after'")
        await server.sql("CHECKPOINT")
        left_out = shutil.ignore_patterns("base", "postmaster.*")
        shutil.copytree(source, data, dirs_exist_ok=True, ignore=left_out)
    data.parent.chmod(0o711)
    data.chmod(0o700)
    if owner is not None:
        for path in (data, *data.rglob("*")):
            os.chown(path, owner.uid, owner.gid)
    async with serve("bare") as bare:
        assert await bare.sql("SELECT v FROM t") == [("before",)]
        assert "ERROR" not in bare.log.read_text()


async def transfer_for_ever(server, done: asyncio.Event, count: list[int]) -> None:
    connection = await server.connect(autocommit=False)
    # Not for secrets, and the same at each run.
    choice = random.Random(len(count))
    try:
        while not done.is_set():
            a, b = choice.sample(range(1, 2001), 2)
            async with connection.transaction():
                await connection.execute("UPDATE accounts SET balance = balance - 1 WHERE id = %s", (a,))
                await connection.execute("UPDATE accounts SET balance = balance + 1 WHERE id = %s", (b,))
                await connection.execute("INSERT INTO log VALUES (%s, %s)", (a, b))
            count[0] += 1
    except psycopg.errors.DeadlockDetected:
        await connection.close()
        await transfer_for_ever(server, done, count)
    finally:
        await connection.close()


async def test_branches_of_a_parent_under_load_are_consistent(volumes, main, serve, backup_of):
    async with serve(main) as server:
        await server.sql(ACCOUNTS)
        await server.sql("CREATE TABLE log (a int, b int); CREATE INDEX ON accounts (id)")
        done, count = asyncio.Event(), [0]
        writers = [asyncio.create_task(transfer_for_ever(server, done, count)) for _ in range(3)]
        try:
            marks = []
            for number in range(3):
                wanted = count[0] + 50
                await eventually(lambda wanted=wanted: count[0] >= wanted or any(writer.done() for writer in writers))
                assert not any(writer.done() for writer in writers)
                marks.append(count[0])
                await volumes.clone(main, f"b{number}", backup=backup_of(server))
        finally:
            done.set()
            await asyncio.gather(*writers)
    for number, mark in enumerate(marks):
        async with serve(f"b{number}") as branch:
            [(total, logged)] = await branch.sql(
                "SELECT (SELECT sum(balance) FROM accounts), (SELECT count(*) FROM log)"
            )
            assert total == 200_000
            assert mark <= logged <= count[0]
            spent = await branch.sql(
                "SELECT count(*) FROM accounts x WHERE balance <> 100"
                " - (SELECT count(*) FROM log WHERE a = x.id) + (SELECT count(*) FROM log WHERE b = x.id)"
            )
            assert spent == [(0,)]


@pytest.mark.parametrize("driver", [pytest.param("reflink", marks=pytest.mark.root), "overlay", "copy"], indirect=True)
async def test_a_clone_without_its_wal_is_refused_and_leaves_nothing(volumes, serve, backup_of, main, root):
    """A snapshot takes its WAL in the same instant; the others copy it after."""
    async with serve(main) as server:

        class Late(type(backup_of(server))):
            async def stop(self):
                return replace(await super().stop(), first_wal_file="000000010000000000000000")

        with pytest.raises(WalMissing, match="000000010000000000000000"):
            await volumes.clone(main, "dev", backup=Late(server))
        assert await volumes.list() == ["main"]
        assert not list((root / "volumes").glob(".new-*"))
        assert await server.sql("SELECT 1") == [(1,)]


async def test_files_that_come_and_go_during_a_clone_do_no_harm(volumes, main, serve, backup_of):
    async with serve(main) as server:
        done = asyncio.Event()

        async def churn():
            number = 0
            connection = await server.connect()
            while not done.is_set():
                number += 1
                await connection.execute("CREATE TABLE gone AS SELECT g FROM generate_series(1, 1000) g")
                await connection.execute("CREATE DATABASE brief STRATEGY file_copy" if number % 5 == 0 else "SELECT 1")
                await connection.execute("DROP TABLE gone")
                await connection.execute("DROP DATABASE IF EXISTS brief")
            await connection.close()

        churning = asyncio.create_task(churn())
        try:
            for number in range(3):
                await volumes.clone(main, f"b{number}", backup=backup_of(server))
        finally:
            done.set()
            await churning
    for number in range(3):
        async with serve(f"b{number}") as branch:
            assert await branch.sql("SELECT count(*) FROM pg_class WHERE relname = 'pg_class'") == [(1,)]


async def test_slots_stay_with_the_parent_which_can_drop_them_after_a_branch(volumes, main, serve, backup_of):
    async with serve(main) as server:
        await server.sql("SELECT pg_create_physical_replication_slot('standby', true)")
        await volumes.clone(main, "of-running", backup=backup_of(server))
    await volumes.clone(main, "of-sleeping", backup=None)
    for volume_id in ("of-running", "of-sleeping"):
        async with serve(volume_id) as branch:
            assert await branch.sql("SELECT slot_name FROM pg_replication_slots") == []
    async with serve(main) as server:
        assert await server.sql("SELECT slot_name FROM pg_replication_slots") == [("standby",)]
        await server.sql("SELECT pg_drop_replication_slot('standby')")
        assert await server.sql("SELECT slot_name FROM pg_replication_slots") == []


async def test_unlogged_tables_are_kept_by_a_clean_sleep_and_emptied_by_recovery(volumes, main, serve, backup_of):
    async with serve(main) as server:
        await server.sql("CREATE UNLOGGED TABLE u AS SELECT g FROM generate_series(1, 10) g")
        await volumes.clone(main, "of-running", backup=backup_of(server))
    await volumes.clone(main, "of-sleeping", backup=None)
    for volume_id, rows in (("of-running", 0), ("of-sleeping", 10)):
        async with serve(volume_id) as branch:
            assert await branch.sql("SELECT count(*) FROM u") == [(rows,)]


async def test_the_postmaster_is_the_process_that_was_started(main, serve):
    """No wrapper is left between, and none of what it took to see the volume."""
    async with serve(main) as server:
        pid_file = server.visible_data_dir / "postmaster.pid"
        assert int(pid_file.read_text().splitlines()[0]) == server.process.pid
        status = await asyncio.to_thread(Path(f"/proc/{server.process.pid}/status").read_text)
        assert "\nCapEff:\t0000000000000000\n" in status


async def test_a_restart_of_the_platform_finds_running_postmasters_unharmed(opened, volumes, main, serve, backup_of):
    async with serve(main, close=False) as server:
        connection = await server.connect()
        await connection.execute("CREATE TABLE t AS SELECT 1 AS g")
        await volumes.shutdown()
        again = await opened()
        await again.open(main)
        assert await (await connection.execute("SELECT g FROM t")).fetchall() == [(1,)]
        await again.clone(main, "dev", backup=backup_of(server))
        await connection.close()
        await server.end()
        await again.close(main)
        assert await again.list() == ["dev", "main"]


@pytest.mark.root
@pytest.mark.parametrize("driver", ["overlay"], indirect=True)
async def test_a_mounted_volume_in_use_is_not_frozen_nor_deleted(volumes, main, serve):
    """Only root's mounts: an ordinary user's are in the postmasters' namespaces, where nobody else sees them."""
    async with serve(main) as server:
        for refused in (volumes.close(main), volumes.delete(main), volumes.clone(main, "dev", backup=None)):
            with pytest.raises(VolumeBusy):
                await refused
        assert await server.sql("SELECT 1") == [(1,)]
        assert await volumes.list() == ["main"]
    mounts = await asyncio.to_thread(subprocess.run, ["mount"], capture_output=True, text=True, check=True)
    assert str(server.volume.data_dir) not in mounts.stdout
