"""What happens after `kill -9` of an engine in the middle of a step."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lamplighter.control.operations.recovery import release_leases

PROGRAM = Path(__file__).with_name("engine_process.py")


async def effects(bench, op) -> list[tuple[str, str]]:
    async with bench.catalog.connection() as conn:
        cursor = await conn.execute("select step, engine from effects where id = %s order by at", (op.id,))
        return [(row["step"], row["engine"]) for row in await cursor.fetchall()]


@asynccontextmanager
async def killed_in_step_two(bench, database: str, *, lease: float) -> AsyncIterator[list]:
    """Two operations of one request, the first of which was in its second step when its engine was killed."""
    await bench.execute(
        "create table effects (id uuid, step text, engine text, at timestamptz default clock_timestamp())"
    )
    ops = await bench.schedule("p", "k", "k")
    engine = await asyncio.create_subprocess_exec(sys.executable, PROGRAM, database, str(lease))

    async def in_step_two() -> bool:
        assert engine.returncode is None
        return len(await effects(bench, ops[0])) == 2

    try:
        await bench.until(in_step_two)
    finally:
        engine.kill()
        await engine.wait()
    yield ops


def survivor(bench, recipe):
    def step(name):
        async def run(op) -> None:
            await bench.execute("insert into effects values (%s, %s, 'survivor')", op.id, name)

        return run

    return recipe("k", one=step("one"), two=step("two"), three=step("three"))


FIRST = [("one", "killed"), ("two", "killed"), ("two", "survivor"), ("three", "survivor")]
SECOND = [("one", "survivor"), ("two", "survivor"), ("three", "survivor")]


async def test_when_its_lease_runs_out_another_engine_finishes_without_repeating_what_is_recorded(
    bench, recipe, database
):
    async with killed_in_step_two(bench, database, lease=2) as ops:
        await finish(bench, recipe)
    assert await effects(bench, ops[0]) == FIRST
    assert await effects(bench, ops[1]) == SECOND
    assert await bench.statuses(ops) == ["finished", "finished"]
    assert (await bench.row(ops[0]))["failures_count"] == 0


async def test_an_engine_that_was_there_all_the_time_notices_that_the_lease_ran_out(bench, recipe, database):
    async with killed_in_step_two(bench, database, lease=3600) as ops:
        await bench.execute("update operations set lease_until = now() + interval '1 s' where lease_owner is not null")
        async with bench.engine(survivor(bench, recipe), owner="host:survivor") as engine:
            # Told by nobody: it looked once, saw when the lease would end, and looks again then.
            assert await bench.statuses(ops) == ["running", "scheduling"]
            await engine.wait_idle()
    assert await effects(bench, ops[0]) == FIRST


async def finish(bench, recipe, *, owner: str = "host:survivor") -> None:
    async with bench.engine(survivor(bench, recipe), owner=owner) as engine:
        await engine.wait_idle()


async def test_a_lease_that_is_freed_at_start_need_not_run_out(bench, recipe, database):
    async with killed_in_step_two(bench, database, lease=3600) as ops:
        assert await release_leases(bench.catalog, "host:killed") == 1
        await finish(bench, recipe)
    assert await effects(bench, ops[0]) == FIRST


async def test_an_engine_that_comes_back_under_its_name_goes_on_at_once(bench, recipe, database):
    async with killed_in_step_two(bench, database, lease=3600) as ops:
        await finish(bench, recipe, owner="host:killed")
    assert await effects(bench, ops[0]) == FIRST
