"""The pool: its sessions, its transactions, and a catalog that restarts below it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from lamplighter.control.catalog.pool import open_pool

CUT_OTHERS = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)


async def test_each_statement_commits_by_itself_and_times_are_in_utc(catalog):
    async with catalog.connection() as conn:
        await conn.execute("create table t (at timestamptz)")
        await conn.execute("insert into t values (now())")
        async with catalog.connection() as other:
            row = await (await other.execute("select at from t")).fetchone()
    assert row is not None
    assert row["at"].utcoffset() == timedelta(0)


async def test_a_transaction_is_undone_as_a_whole(catalog):
    async with catalog.connection() as conn:
        await conn.execute("create table t (n int)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await insert_and_fail(catalog)
    async with catalog.transaction() as conn:
        await conn.execute("insert into t values (2)")
    async with catalog.connection() as conn:
        assert await (await conn.execute("select n from t")).fetchall() == [{"n": 2}]


async def insert_and_fail(catalog) -> None:
    async with catalog.transaction() as conn:
        await conn.execute("insert into t values (1)")
        await conn.execute("select 1 / 0")


async def test_the_callers_own_options_win(database):
    catalog = await open_pool(f"{database} options='-c lock_timeout=123ms'")
    async with catalog.connection() as conn:
        row = await (await conn.execute("select current_setting('lock_timeout') as t")).fetchone()
    await catalog.close()
    assert row == {"t": "123ms"}


async def test_connections_that_the_server_cut_are_replaced_before_anybody_gets_one(database):
    catalog = await open_pool(database, min_size=4, max_size=4)
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        cursor = await conn.execute(CUT_OTHERS)
        assert (await cursor.fetchone()) == (4,)
        # The farewells are on their way; they have arrived when no backend is left.
        count = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        async with asyncio.timeout(30):
            while (await (await conn.execute(count)).fetchone()) != (0,):  # noqa: ASYNC110 - only the server can tell
                await asyncio.sleep(0)
    for _ in range(8):
        async with catalog.connection() as conn:
            await conn.execute("select 1")
    await catalog.close()


async def test_what_is_notified_is_heard_until_the_connection_is_lost(catalog):
    async with catalog.listening("news") as payloads:
        async with catalog.connection() as conn:
            await conn.execute("select pg_notify('news', 'one'), pg_notify('news', 'two')")
        assert [await anext(payloads), await anext(payloads)] == ["one", "two"]
        async with catalog.connection() as conn:
            await conn.execute(CUT_OTHERS)
        with pytest.raises(psycopg.OperationalError):
            await anext(payloads)


async def test_a_catalog_that_does_not_answer_is_reported_in_time(tmp_path):
    with pytest.raises(PoolTimeout):
        await open_pool(f"host={tmp_path} user=cloud_admin dbname=lamplighter", timeout=0.2)
