"""Migrations: from empty, from each one before, two at once, and what is refused."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from lamplighter.control.catalog.migrate import Migration, ensure_database, load_migrations, migrate
from lamplighter.control.errors import CatalogTooNew, MigrationChanged

ALL = load_migrations()

#: Rows as they were written by the code of that number: what a later migration must carry over.
ROWS = {
    1: (
        "insert into operations (id, project_id, kind, action, status, group_id, created_at, updated_at)"
        " values (gen_random_uuid(), 'p', 'k', 'a', 'running', gen_random_uuid(), now(), now())"
    )
}


async def connect(conninfo: str) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True)


async def schema(conn: psycopg.AsyncConnection) -> list[tuple]:
    """Tables, columns, constraints and indexes, as text."""
    cursor = await conn.execute(
        "select table_name, column_name, data_type, is_nullable, column_default from information_schema.columns"
        " where table_schema = 'public'"
        " union all select conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' from pg_constraint"
        " where connamespace = 'public'::regnamespace"
        " union all select tablename, indexname, indexdef, '', '' from pg_indexes where schemaname = 'public'"
        " order by 1, 2, 3"
    )
    return await cursor.fetchall()


async def test_an_empty_database_gets_all_of_them_in_order_and_nothing_the_second_time(empty_database):
    async with await connect(empty_database) as conn:
        assert await migrate(conn) == [one.label for one in ALL]
        cursor = await conn.execute("select number, name, checksum from schema_migrations order by number")
        assert await cursor.fetchall() == [(one.number, one.name, one.checksum) for one in ALL]
        assert await migrate(conn) == []


@pytest.mark.parametrize("number", [one.number for one in ALL])
async def test_each_applies_to_a_catalog_in_use_that_has_the_one_before(empty_database, number):
    async with await connect(empty_database) as conn:
        assert await migrate(conn, number - 1) == [one.label for one in ALL[: number - 1]]
        for earlier in range(1, number):
            if earlier in ROWS:
                await conn.execute(ROWS[earlier])
        assert await migrate(conn, number) == [ALL[number - 1].label]
        if number > 1:
            cursor = await conn.execute("select count(*) from operations")
            assert await cursor.fetchone() == (1,)


async def test_step_by_step_leads_to_the_same_schema_as_all_at_once(cluster, template, empty_database):
    async with await connect(empty_database) as conn, await connect(f"{cluster} dbname={template}") as whole:
        for one in ALL:
            await migrate(conn, one.number)
        assert await schema(conn) == await schema(whole)


async def test_an_older_target_than_what_is_there_changes_nothing(empty_database):
    async with await connect(empty_database) as conn:
        await migrate(conn)
        assert await migrate(conn, 0) == []


async def test_migrators_that_start_at_once_apply_each_file_once(empty_database):
    connections = [await connect(empty_database) for _ in range(4)]
    done = await asyncio.gather(*(migrate(conn) for conn in connections))
    assert sorted(label for labels in done for label in labels) == [one.label for one in ALL]
    for conn in connections:
        await conn.close()


async def test_a_connection_that_is_not_in_autocommit_is_left_outside_any_transaction(empty_database):
    async with await psycopg.AsyncConnection.connect(empty_database) as conn:
        await migrate(conn)
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_a_changed_file_is_refused_and_changes_nothing(empty_database):
    changed = [Migration(ALL[0].number, ALL[0].name, ALL[0].sql + b"\n-- edited"), *ALL[1:]]
    async with await connect(empty_database) as conn:
        await migrate(conn, 1)
        with pytest.raises(MigrationChanged, match="0001_operations"):
            await migrate(conn, migrations=changed)
        cursor = await conn.execute("select max(number) from schema_migrations")
        assert await cursor.fetchone() == (1,)


async def test_a_catalog_of_a_later_version_is_refused(empty_database):
    later = Migration(len(ALL) + 1, "later", b"create table later ()")
    async with await connect(empty_database) as conn:
        await migrate(conn, migrations=[*ALL, later])
        with pytest.raises(CatalogTooNew):
            await migrate(conn)


async def test_a_file_that_fails_leaves_what_the_one_before_left(empty_database):
    broken = Migration(len(ALL) + 1, "broken", b"create table half (); select 1 / 0;")
    async with await connect(empty_database) as conn:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await migrate(conn, migrations=[*ALL, broken])
        cursor = await conn.execute("select to_regclass('half'), max(number) from schema_migrations")
        assert await cursor.fetchone() == (None, len(ALL))


async def test_the_database_is_made_once_even_by_several_at_once(cluster):
    name = f"made_{uuid4().hex[:8]}"
    conninfo = f"{cluster} dbname={name}"
    made = await asyncio.gather(*(ensure_database(conninfo) for _ in range(4)))
    assert sorted(made) == [False, False, False, True]
    assert await ensure_database(conninfo) is False
    async with await connect(f"{cluster} dbname=postgres") as conn:
        await conn.execute(f"drop database {name}")


async def test_a_cluster_that_does_not_answer_is_an_error_of_the_connection(tmp_path):
    with pytest.raises(psycopg.OperationalError):
        await ensure_database(f"host={tmp_path} user=cloud_admin dbname=lamplighter")
