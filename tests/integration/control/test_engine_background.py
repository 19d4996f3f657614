"""What must happen in the end: after its failure a persistent operation is tried again, and is in nobody's way."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lamplighter.control.errors import Permanent
from lamplighter.control.operations import store
from lamplighter.control.operations.engine import Engine
from lamplighter.control.operations.states import GiveUp, Retry


def give_up_after(attempts: int):
    return lambda failures, now: GiveUp() if failures >= attempts else Retry(at=now)


def at_once(failures: int, now: datetime) -> Retry:
    return Retry(at=now)


def much_later(failures: int, now: datetime) -> Retry:
    return Retry(at=now + timedelta(hours=1))


async def nothing(op) -> None: ...


async def background(bench, project: str) -> list:
    async with bench.catalog.connection() as conn:
        cursor = await conn.execute(
            "select * from operations where project_id = %s and not blocking order by seq", (project,)
        )
        return await cursor.fetchall()


async def require_idle(bench, project: str) -> None:
    async with bench.catalog.connection() as conn:
        await store.require_idle(conn, project)


async def until_done(bench, project: str) -> list:
    async def done() -> bool:
        rows = await background(bench, project)
        return bool(rows) and all(row["finished_at"] is not None for row in rows)

    await bench.until(done)
    return await background(bench, project)


async def test_a_persistent_operation_fails_for_its_client_and_is_tried_until_it_is_done(bench, recipe):
    tries = []

    async def remove(op) -> None:
        tries.append((op.visible, op.failures_count, dict(op.arguments)))
        if len(tries) < 8:
            raise OSError("device busy")

    persistent = replace(recipe("delete", stop=nothing, remove=remove), persistent=True)
    async with bench.engine(persistent, retry_policy=give_up_after(3), background_policy=at_once):
        (op,) = await bench.schedule("p", "delete", volume="v")
        (copy,) = await until_done(bench, "p")
    row = await bench.row(op)
    assert (row["status"], row["failures_count"], row["error"]) == ("failed", 3, "device busy")
    assert (copy["status"], copy["failures_count"], copy["visible"]) == ("finished", 7, False)
    assert tries == [(True, n, {"volume": "v"}) for n in range(3)] + [(False, n, {"volume": "v"}) for n in range(3, 8)]


async def test_between_tries_the_project_is_idle_and_its_other_operations_run(bench, recipe):
    async def fail(op) -> None:
        raise OSError("device busy")

    persistent = replace(recipe("delete", remove=fail), persistent=True)
    async with bench.engine(
        persistent, recipe("k", step=nothing), retry_policy=give_up_after(1), background_policy=much_later
    ) as engine:
        await bench.schedule("p", "delete")
        await engine.wait_idle("p")
        await require_idle(bench, "p")
        others = await bench.schedule("p", "k", "k")
        await engine.wait_idle("p")
    assert await bench.statuses(others) == ["finished", "finished"]
    (copy,) = await background(bench, "p")
    assert (copy["status"], copy["error"], copy["failures_count"]) == ("scheduling", "device busy", 1)
    assert copy["retry_at"] > datetime.now(UTC)


async def test_a_permanent_failure_of_what_is_persistent_is_a_failure_like_others(bench, recipe):
    async def fail(op) -> None:
        if op.failures_count < 4:
            raise Permanent("no such device")

    persistent = replace(recipe("delete", remove=fail), persistent=True)
    async with bench.engine(persistent, retry_policy=give_up_after(2), background_policy=at_once):
        (op,) = await bench.schedule("p", "delete")
        (copy,) = await until_done(bench, "p")
    assert (await bench.row(op))["failures_count"] == 2
    assert (copy["status"], copy["failures_count"]) == ("finished", 4)


async def test_what_is_persistent_is_done_although_the_operation_before_it_failed(bench, recipe):
    async def fail(op) -> None:
        raise Permanent("no")

    persistent = replace(recipe("delete", remove=nothing), persistent=True)
    async with bench.engine(recipe("suspend", step=fail), persistent, background_policy=at_once):
        ops = await bench.schedule("p", "suspend", "delete")
        (copy,) = await until_done(bench, "p")
    assert await bench.statuses(ops) == ["failed", "cancelled"]
    assert (copy["kind"], copy["status"]) == ("delete", "finished")


async def test_an_operation_that_is_not_persistent_leaves_nothing_behind(bench, recipe):
    async def fail(op) -> None:
        raise Permanent("no")

    async with bench.engine(recipe("k", step=fail)) as engine:
        await bench.schedule("p", "k", "k")
        await engine.wait_idle("p")
    assert await background(bench, "p") == []


async def test_another_engine_takes_up_the_background_of_one_that_is_gone(bench, recipe):
    async def fail(op) -> None:
        raise OSError("device busy")

    broken = replace(recipe("delete", remove=fail), persistent=True)
    async with bench.engine(broken, owner="one", retry_policy=give_up_after(1), background_policy=much_later) as engine:
        await bench.schedule("p", "delete")
        await engine.wait_idle("p")
    await bench.execute("update operations set retry_at = now() where not blocking")
    async with bench.engine(replace(recipe("delete", remove=nothing), persistent=True), owner="two"):
        (copy,) = await until_done(bench, "p")
    assert copy["status"] == "finished"


async def test_what_is_scheduled_while_the_background_works_waits_for_it(bench, recipe):
    begun, go_on, order = asyncio.Event(), asyncio.Event(), []

    async def remove(op) -> None:
        if op.blocking:
            raise Permanent("no")
        begun.set()
        await go_on.wait()
        order.append("background")

    async def step(op) -> None:
        order.append(op.project_id)

    persistent = replace(recipe("delete", remove=remove), persistent=True)
    async with bench.engine(
        persistent, recipe("k", step=step), retry_policy=give_up_after(1), background_policy=at_once
    ) as engine:
        await bench.schedule("p", "delete")
        await begun.wait()
        await require_idle(bench, "p")
        (op,) = await bench.schedule("p", "k")
        # Another project shows that the engine has looked since.
        await bench.schedule("q", "k")
        await engine.wait_idle("q")
        assert (await bench.row(op))["started_at"] is None
        go_on.set()
        await engine.wait_idle("p")
    assert order == ["q", "background", "p"]


async def test_several_engines_never_run_two_operations_of_a_project_the_background_included(bench, recipe):
    running: Counter[str] = Counter()
    together = []

    async def step(op) -> None:
        running[op.project_id] += 1
        if running[op.project_id] > 1:
            together.append(op.project_id)
        try:
            await bench.row(op)
            if op.kind == "delete" and op.failures_count < 3:
                raise OSError("device busy")
        finally:
            running[op.project_id] -= 1

    recipes = {"k": recipe("k", step=step), "delete": replace(recipe("delete", step=step), persistent=True)}

    def engine(name: str) -> Engine:
        return Engine(
            bench.catalog,
            recipes,
            owner=name,
            concurrency=3,
            retry_policy=give_up_after(1),
            background_policy=at_once,
        )

    engines = [engine("one"), engine("two"), engine("three")]
    async with bench.running(*engines):
        for n in range(24):
            await bench.schedule(f"p{n % 4}", "k" if n % 3 else "delete", "k")
        await engines[0].wait_idle()
        for project in range(4):
            await until_done(bench, f"p{project}")
    assert together == []
    copies = [row for n in range(4) for row in await background(bench, f"p{n}")]
    assert [row["failures_count"] for row in copies] == [3] * 8
