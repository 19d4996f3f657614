"""What a recipe writes together with the end of its operation: all of it or nothing, and once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lamplighter.control.errors import Permanent, Skip
from lamplighter.control.operations import store
from lamplighter.control.operations.states import Event, GiveUp, Retry
from lamplighter.control.operations.store import Ending, Lease


async def nothing(op) -> None: ...


@pytest.fixture
async def notes(bench):
    """Reads what `note` wrote."""
    await bench.execute("create table notes (operation uuid, xid xid8 default pg_current_xact_id())")

    async def read() -> list:
        async with bench.catalog.connection() as conn:
            return await (await conn.execute("select * from notes")).fetchall()

    return read


async def note(op, conn) -> None:
    await conn.execute("insert into notes values (%s)", (op.id,))


async def test_it_is_committed_with_the_end_and_the_next_operation_follows(bench, recipe, notes):
    finishing = replace(recipe("k", step=nothing), on_finish=note)
    async with bench.engine(finishing) as engine:
        ops = await bench.schedule("p", "k", "k")
        await engine.wait_idle()
    assert await bench.statuses(ops) == ["finished", "finished"]
    written = await notes()
    assert [row["operation"] for row in written] == [op.id for op in ops]
    async with bench.catalog.connection() as conn:
        cursor = await conn.execute("select xmin::text::bigint as xid from operations order by seq")
        ends = [row["xid"] for row in await cursor.fetchall()]
    # The end of the first is also the claim of the second; only the last version of a row can be seen.
    assert ends == [int(row["xid"]) for row in written]


async def test_it_is_not_called_without_the_lease(bench, catalog, notes):
    await bench.schedule("p", "k")
    async with catalog.connection() as conn:
        (op,), _ = await store.claim(conn, Lease("me", 60), limit=1, busy=[])
        ending = Ending(Event.FINISHED, ())
        for owner, held in [("other", False), ("me", True), ("me", False)]:
            ended = await store.end(conn, Lease(owner, 60), op, ending, claim_next=True, on_finish=note)
            assert ended == (held, None)
    assert [row["operation"] for row in await notes()] == [op.id]


@pytest.mark.parametrize("error", [Skip, Permanent])
async def test_it_is_not_called_when_the_operation_ends_otherwise(bench, recipe, notes, error):
    async def fail(op) -> None:
        raise error

    async with bench.engine(replace(recipe("k", step=fail), on_finish=note)) as engine:
        await bench.schedule("p", "k")
        await engine.wait_idle()
    assert await notes() == []


async def test_what_it_raises_is_a_failure_undoes_its_writes_and_repeats_the_last_step(bench, recipe, notes):
    ran = []

    async def step(op) -> None:
        ran.append("step")

    async def finish(op, conn) -> None:
        ran.append("finish")
        await note(op, conn)
        if op.failures_count == 0:
            raise OSError("not yet")
        if op.failures_count == 1:
            # psycopg takes this for an OperationalError, as it does the loss of a connection.
            await conn.execute("set local statement_timeout = 1")
            await conn.execute("select pg_sleep(60)")

    async with bench.engine(replace(recipe("k", step=step), on_finish=finish)) as engine:
        (op,) = await bench.schedule("p", "k")
        await engine.wait_idle()
    assert ran == ["step", "finish"] * 3
    row = await bench.row(op)
    assert (row["status"], row["failures_count"], row["steps_done"]) == ("finished", 2, ["step"])
    assert [row["operation"] for row in await notes()] == [op.id]


async def test_it_can_fail_for_good(bench, recipe, notes):
    given_up = []

    async def finish(op, conn) -> None:
        await note(op, conn)
        raise Permanent("the branch is gone")

    async def tidy(op, error) -> None:
        given_up.append(error)

    failing = replace(recipe("k", on_give_up=tidy, step=nothing), on_finish=finish)
    async with bench.engine(failing) as engine:
        ops = await bench.schedule("p", "k", "k")
        await engine.wait_idle()
    assert await bench.statuses(ops) == ["failed", "cancelled"]
    assert (given_up, await notes()) == (["the branch is gone"], [])


@pytest.mark.parametrize("failing", ["for a while", "for ever"])
async def test_its_failures_are_tried_again_as_often_as_those_of_a_step(bench, recipe, failing):
    async def finish(op, conn) -> None:
        if failing == "for ever" or op.failures_count < 2:
            await conn.execute("select 1 / 0")

    async with bench.engine(
        replace(recipe("k", step=nothing), on_finish=finish),
        retry_policy=lambda failures, now: GiveUp() if failures >= 3 else Retry(now),
    ) as engine:
        (op,) = await bench.schedule("p", "k")
        await engine.wait_idle()
    row = await bench.row(op)
    expected = ("failed", 3) if failing == "for ever" else ("finished", 2)
    assert (row["status"], row["failures_count"]) == expected


async def test_a_connection_cut_in_the_middle_of_it_is_no_failure_and_leaves_nothing_behind(bench, recipe, notes):
    calls = []

    async def finish(op, conn) -> None:
        calls.append(op.id)
        await note(op, conn)
        if len(calls) == 1:
            await conn.execute("select pg_terminate_backend(pg_backend_pid())")

    async with bench.engine(replace(recipe("k", step=nothing), on_finish=finish)) as engine:
        (op,) = await bench.schedule("p", "k")
        await engine.wait_idle()
    assert calls == [op.id, op.id]
    row = await bench.row(op)
    assert (row["status"], row["failures_count"]) == ("finished", 0)
    assert [row["operation"] for row in await notes()] == [op.id]
