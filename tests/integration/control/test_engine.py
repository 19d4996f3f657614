"""The engine on a real catalog: order, retries, groups, leases, and how it stops.

The engines here never look at the catalog by themselves (see `Bench.engine`): what happens, happens because they were
told, by a notification, by `wake()`, or by a time that falls due.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from lamplighter.control.catalog.pool import open_pool
from lamplighter.control.errors import Permanent, Skip
from lamplighter.control.operations import store
from lamplighter.control.operations.engine import Engine, Recipe, Step
from lamplighter.control.operations.model import NewOperation
from lamplighter.control.operations.recovery import release_leases
from lamplighter.control.operations.states import GiveUp, Retry

CUT_OTHERS = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)


def give_up_after(attempts: int):
    return lambda failures, now: GiveUp() if failures >= attempts else Retry(at=now)


async def nothing(op) -> None: ...


async def test_what_is_scheduled_is_run_and_its_end_recorded(bench, recipe):
    seen = []

    async def look(op) -> None:
        seen.append((op.id, op.arguments, op.status))

    async with bench.engine(recipe("k", look=look)) as engine:
        (op,) = await bench.schedule("p", "k", name="dev")
        await engine.wait_idle("p")
    assert seen == [(op.id, {"name": "dev"}, "running")]
    row = await bench.row(op)
    assert (row["status"], row["steps_done"], row["error"], row["failures_count"]) == ("finished", ["look"], None, 0)
    assert row["created_at"] <= row["started_at"] <= row["finished_at"] == row["updated_at"]
    assert (row["lease_owner"], row["lease_until"], row["retry_at"]) == (None, None, None)


async def test_work_that_was_there_before_the_engine_is_found(bench, recipe):
    (op,) = await bench.schedule("p", "k")
    async with bench.engine(recipe("k", step=nothing)) as engine:
        await engine.wait_idle()
    assert await bench.statuses([op]) == ["finished"]


async def test_a_wake_finds_what_nobody_notified(bench, recipe):
    (op,) = await bench.schedule("p", "k")
    await bench.execute("update operations set retry_at = now() + interval '1 h', status = 'scheduling'")
    async with bench.engine(recipe("k", step=nothing)) as engine:
        (other,) = await bench.schedule("q", "k")
        await engine.wait_idle("q")
        assert await bench.statuses([op, other]) == ["scheduling", "finished"]
        await bench.execute("update operations set retry_at = null")
        engine.wake()
        await engine.wait_idle("p")


async def test_one_projects_operations_run_one_at_a_time_in_order_and_projects_side_by_side(bench, recipe):
    running: dict[str, int] = {}
    order: dict[str, list[int]] = {}
    together = asyncio.Barrier(3)

    async def step(op) -> None:
        running[op.project_id] = running.get(op.project_id, 0) + 1
        assert running[op.project_id] == 1
        # Three projects must be at work at once to get past here.
        await together.wait()
        order.setdefault(op.project_id, []).append(op.seq)
        running[op.project_id] -= 1

    expected = {}
    for project in "pqr":
        ops = [*await bench.schedule(project, "k", "k"), *await bench.schedule(project, "k", "k")]
        expected[project] = [op.seq for op in ops]
    async with bench.engine(recipe("k", step=step)) as engine:
        await engine.wait_idle()
    assert order == expected


async def test_no_more_run_at_once_than_allowed_and_all_get_their_turn(bench, recipe):
    now, most = 0, 0

    async def step(op) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await bench.row(op)
        now -= 1

    for number in range(12):
        await bench.schedule(f"p{number}", "k")
    async with bench.engine(recipe("k", step=step), concurrency=2) as engine:
        await engine.wait_idle()
    assert most == 2


async def test_several_engines_never_run_the_same_operation(bench, recipe):
    runs: list[tuple[str, object]] = []

    def engine(name: str) -> Engine:
        async def step(op) -> None:
            runs.append((name, op.id))
            await bench.row(op)

        return Engine(bench.catalog, {"k": recipe("k", step=step)}, owner=name, concurrency=3)

    engines = [engine("one"), engine("two"), engine("three")]
    async with bench.running(*engines):
        ops = [op for n in range(60) for op in await bench.schedule(f"p{n % 12}", "k")]
        await engines[0].wait_idle()
    assert sorted(op for _, op in runs) == sorted(op.id for op in ops)


async def test_a_step_can_schedule_for_its_own_project_and_it_runs_next(bench, recipe):
    ran = []

    async def first(op) -> None:
        ran.append("first")
        await bench.schedule("p", NewOperation("second", "apply_config", visible=False))

    async def second(op) -> None:
        ran.append("second")

    async with bench.engine(recipe("first", step=first), recipe("second", step=second)) as engine:
        await bench.schedule("p", "first")
        await engine.wait_idle()
    assert ran == ["first", "second"]


async def test_a_failure_is_tried_again_without_repeating_the_steps_that_were_done(bench, recipe):
    ran = []

    async def clone(op) -> None:
        ran.append("clone")

    async def start(op) -> None:
        ran.append("start")
        if op.failures_count < 2:
            raise OSError("no space left\x00")

    (op,) = await bench.schedule("p", "k")
    async with bench.engine(recipe("k", clone=clone, start=start)) as engine:
        await engine.wait_idle()
    assert ran == ["clone", "start", "start", "start"]
    row = await bench.row(op)
    assert (row["status"], row["failures_count"], row["error"], row["retry_at"]) == ("finished", 2, None, None)


async def test_between_tries_the_row_tells_why_and_when(bench, recipe):
    at = datetime(2100, 1, 1, tzinfo=UTC)

    async def fail(op) -> None:
        raise OSError("no space left\x00")

    async with bench.engine(recipe("k", fail=fail), retry_policy=lambda failures, now: Retry(at)):
        op, following = await bench.schedule("p", "k", "k")
        await bench.until_row(op, lambda row: row["retry_at"] is not None)
    row = await bench.row(op)
    assert (row["status"], row["failures_count"], row["error"]) == ("scheduling", 1, "no space left")
    assert (row["retry_at"], row["finished_at"], row["lease_owner"]) == (at, None, None)
    assert await bench.statuses([following]) == ["scheduling"]


async def test_a_retry_begins_when_it_falls_due_without_being_told(bench, recipe):
    tries = []

    async def fail_once(op) -> None:
        tries.append(datetime.now(UTC))
        if len(tries) == 1:
            raise OSError

    pause = timedelta(milliseconds=300)
    async with bench.engine(
        recipe("k", step=fail_once), retry_policy=lambda failures, now: Retry(now + pause)
    ) as engine:
        await bench.schedule("p", "k")
        await engine.wait_idle()
    assert len(tries) == 2
    assert tries[1] - tries[0] >= pause


async def test_giving_up_cancels_the_rest_of_the_request_and_nothing_else(bench, recipe):
    given_up = []

    async def fail(op) -> None:
        raise OSError("no space left")

    async def tidy(op, error) -> None:
        row = await bench.row(op)
        given_up.append((op.id, error, row["status"]))

    bad = recipe("bad", on_give_up=tidy, fail=fail)
    async with bench.engine(bad, recipe("good", step=nothing), retry_policy=give_up_after(3)) as engine:
        async with engine._catalog.transaction():
            failing = await bench.schedule("p", "bad", "good", "good")
            other = await bench.schedule("p", "good")
        await engine.wait_idle()
    assert await bench.statuses(failing) == ["failed", "cancelled", "cancelled"]
    assert await bench.statuses(other) == ["finished"]
    # Called before the failure is on record, so that a crash in between cannot lose the call.
    assert given_up == [(failing[0].id, "no space left", "running")]
    failed, cancelled = await bench.row(failing[0]), await bench.row(failing[1])
    assert (failed["failures_count"], failed["error"]) == (3, "no space left")
    assert str(failing[0].id) in cancelled["error"]
    assert cancelled["started_at"] is None


async def test_a_permanent_failure_is_given_up_at_once(bench, recipe):
    async def fail(op) -> None:
        raise Permanent("the parent is gone")

    async with bench.engine(recipe("k", fail=fail)) as engine:
        (op,) = await bench.schedule("p", "k")
        await engine.wait_idle()
    row = await bench.row(op)
    assert (row["status"], row["failures_count"], row["error"]) == ("failed", 1, "the parent is gone")


async def test_a_step_that_finds_nothing_to_do_ends_the_operation_as_skipped_and_the_next_one_runs(bench, recipe):
    async def skip(op) -> None:
        raise Skip

    async with bench.engine(recipe("a", skip=skip, never=nothing), recipe("b", step=nothing)) as engine:
        ops = await bench.schedule("p", "a", "b")
        await engine.wait_idle()
    assert await bench.statuses(ops) == ["skipped", "finished"]
    assert (await bench.row(ops[0]))["steps_done"] == []


async def test_an_operation_that_nobody_can_run_ends_in_error_and_frees_the_project(bench, recipe):
    async with bench.engine(recipe("known", step=nothing)) as engine:
        unknown = await bench.schedule("p", "unknown", "known")
        known = await bench.schedule("p", "known")
        await engine.wait_idle()
    assert await bench.statuses([*unknown, *known]) == ["error", "cancelled", "finished"]
    assert "unknown" in (await bench.row(unknown[0]))["error"]


async def test_what_tidies_up_may_fail_without_locking_the_project(bench, recipe):
    calls = []

    async def fail(op) -> None:
        raise Permanent("no")

    async def tidy(op, error) -> None:
        calls.append(error)
        raise OSError("not that either")

    async with bench.engine(recipe("k", on_give_up=tidy, fail=fail)) as engine:
        (op,) = await bench.schedule("p", "k")
        await engine.wait_idle()
    assert calls == ["no"] * 3
    assert (await bench.row(op))["error"] == "no"


async def test_a_step_that_is_cancelled_from_within_has_failed_and_the_engine_goes_on(bench, recipe):
    async def cancel_itself(op) -> None:
        if op.failures_count == 0:
            raise asyncio.CancelledError

    async with bench.engine(recipe("k", step=cancel_itself)) as engine:
        (op,) = await bench.schedule("p", "k")
        await engine.wait_idle()
    row = await bench.row(op)
    assert (row["status"], row["failures_count"]) == ("finished", 1)


class Refused(Exception):
    """As another package may raise it, which cannot know ours."""

    permanent = True


async def test_an_exception_of_others_that_calls_itself_permanent_is_given_up_at_once(bench, recipe):
    async def fail(op) -> None:
        raise Refused("the owner is gone")

    async with bench.engine(recipe("k", fail=fail)) as engine:
        (op,) = await bench.schedule("p", "k")
        await engine.wait_idle()
    row = await bench.row(op)
    assert (row["status"], row["failures_count"], row["error"]) == ("failed", 1, "the owner is gone")


async def hang(op) -> None:
    await asyncio.Event().wait()


async def hang_and_complain(op) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise OSError("interrupted")


async def hang_and_keep_still(op) -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def hang_and_skip(op) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise Skip from None


@pytest.mark.parametrize("step", [hang, hang_and_complain, hang_and_keep_still, hang_and_skip])
async def test_a_step_that_hangs_is_cancelled_and_has_failed_whatever_it_makes_of_that(bench, step):
    steps = (Step("volume", nothing), Step("copy", step, timeout=0.05))
    async with bench.engine(Recipe("k", steps), retry_policy=give_up_after(2)) as engine:
        op, other = [*await bench.schedule("p", "k"), *await bench.schedule("q", "k")]
        await engine.wait_idle()
    for one in (op, other):
        row = await bench.row(one)
        assert (row["status"], row["failures_count"], row["steps_done"]) == ("failed", 2, ["volume"])
        assert row["error"] == "the step copy did not end within 0.05 s"


async def test_a_steps_own_timeout_is_told_as_such(bench):
    async def fail(op) -> None:
        raise TimeoutError("no answer from the postmaster")

    async with bench.engine(Recipe("k", (Step("wait", fail),)), retry_policy=give_up_after(1)) as engine:
        (op,) = await bench.schedule("p", "k")
        await engine.wait_idle()
    assert (await bench.row(op))["error"] == "no answer from the postmaster"


async def test_a_heartbeat_keeps_the_lease_of_a_step_that_takes_longer(bench, recipe):
    begun, go_on, runs = asyncio.Event(), asyncio.Event(), []

    async def step(op) -> None:
        runs.append(op.id)
        begun.set()
        await go_on.wait()

    long = recipe("k", step=step)
    async with bench.engine(long, owner="one", lease=2.0), bench.engine(long, owner="two", lease=2.0) as engine:
        (op,) = await bench.schedule("p", "k")
        await begun.wait()
        first = await bench.row(op)
        await bench.until_row(op, lambda row: row["lease_until"] > first["lease_until"] + timedelta(seconds=2))
        assert (await bench.row(op))["lease_owner"] == first["lease_owner"]
        go_on.set()
        await engine.wait_idle()
    assert runs == [op.id]


async def test_an_engine_whose_lease_another_has_taken_stops_its_step(bench, recipe):
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def step(op) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with bench.engine(recipe("k", step=step, never=nothing), lease=2.0):
        (op,) = await bench.schedule("p", "k")
        await begun.wait()
        await bench.execute("update operations set lease_owner = 'thief', lease_until = now() + interval '1 h'")
        await asyncio.wait_for(stopped.wait(), 30)
    row = await bench.row(op)
    assert (row["lease_owner"], row["steps_done"], row["failures_count"]) == ("thief", [], 0)


async def test_a_catalog_out_of_reach_for_longer_than_the_lease_stops_the_step_and_it_runs_again_later(
    bench, recipe, database
):
    begun, stopped, runs = asyncio.Event(), asyncio.Event(), []

    async def step(op) -> None:
        runs.append(op.id)
        begun.set()
        if len(runs) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    async with (
        await open_postgres(database) as admin,
        bench.engine(recipe("k", step=step), lease=1.0, longest_wait=0.2) as engine,
    ):
        ops = await bench.schedule("p", "k")
        await begun.wait()
        await close_door(admin, database)
        await asyncio.wait_for(stopped.wait(), 30)
        await admin.execute(f"alter database {name_of(database)} allow_connections true")
        await engine.wait_idle()
    assert len(runs) >= 2
    assert await bench.statuses(ops) == ["finished"]


def name_of(database: str) -> str:
    return database.rpartition("=")[2]


async def close_door(admin, database: str) -> None:
    await admin.execute(f"alter database {name_of(database)} allow_connections false")
    await admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name_of(database),)
    )


async def open_postgres(conninfo: str):
    return await psycopg.AsyncConnection.connect(f"{conninfo.rpartition(' ')[0]} dbname=postgres", autocommit=True)


async def test_connections_cut_in_the_middle_of_operations_do_not_harm_them(bench, recipe):
    ran, passed = [], asyncio.Semaphore(0)

    async def cut(op) -> None:
        ran.append("cut")
        await bench.execute(CUT_OTHERS)

    async def after(op) -> None:
        ran.append("after")
        passed.release()

    async with bench.engine(recipe("k", cut=cut, after=after), recipe("calm", after=after)) as engine:
        ops = await bench.schedule("p", "k", "k")
        for _ in ops:
            await passed.acquire()
        await engine.wait_idle()
        # The listener is back too: a notification still wakes the engine.
        ops += await bench.schedule("p", "calm")
        await engine.wait_idle()
    assert ran == ["cut", "after"] * 2 + ["after"]
    assert await bench.statuses(ops) == ["finished"] * 3


async def test_a_drain_lets_what_runs_end_and_starts_nothing_new(bench, recipe):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def step(op) -> None:
        begun.set()
        await go_on.wait()

    async with bench.engine(recipe("k", step=step)) as engine:
        ops = await bench.schedule("p", "k", "k")
        await begun.wait()
        draining = asyncio.create_task(engine.drain(30))
        await bench.schedule("q", "k")
        go_on.set()
        await draining
        assert await bench.statuses(ops) == ["finished", "scheduling"]
        assert await leases(bench) == []


async def test_a_drain_cuts_off_what_takes_too_long_and_frees_its_lease(bench, recipe):
    begun = asyncio.Event()

    async def step(op) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with bench.engine(recipe("k", done=nothing, step=step)) as engine:
        (op,) = await bench.schedule("p", "k")
        await begun.wait()
        await engine.drain(0)
        row = await bench.row(op)
    assert (row["status"], row["lease_owner"], row["failures_count"], row["steps_done"]) == (
        "running",
        None,
        0,
        ["done"],
    )
    # Anybody may go on with it at once.
    async with bench.engine(recipe("k", done=step, step=nothing), owner="another") as engine:
        await engine.wait_idle()


async def test_an_engine_whose_task_is_cancelled_leaves_no_lease_behind(bench, recipe):
    begun = asyncio.Event()

    async def step(op) -> None:
        begun.set()
        await asyncio.Event().wait()

    engine = Engine(bench.catalog, {"k": recipe("k", step=step)}, owner="engine")
    task = asyncio.create_task(engine.run())
    await bench.schedule("p", "k")
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await leases(bench) == []


async def leases(bench) -> list:
    async with bench.catalog.connection() as conn:
        return await (await conn.execute("select id from operations where lease_owner is not null")).fetchall()


async def test_an_engine_that_was_drained_can_run_again(bench, recipe):
    engine = Engine(bench.catalog, {"k": recipe("k", step=nothing)}, owner="engine")
    for _ in range(2):
        async with bench.running(engine):
            await bench.schedule("p", "k")
            await engine.wait_idle()


async def test_waiting_for_a_project_to_be_idle_ends_in_time(bench, recipe):
    engine = Engine(bench.catalog, {}, owner="engine")
    await bench.schedule("p", "k")
    await engine.wait_idle("q", timeout=30)
    with pytest.raises(TimeoutError):
        await engine.wait_idle("p", timeout=0.05)


async def test_leases_of_a_dead_predecessor_are_freed_and_not_those_of_one_whose_name_begins_alike(bench, catalog):
    for project, owner in [("p", "lamp:/data/a"), ("q", "lamp:/data/a"), ("r", "lamp:/data/ab"), ("s", "lamp:/data")]:
        await bench.schedule(project, "k")
        async with catalog.connection() as conn:
            await store.claim(conn, store.Lease(owner, 60), limit=1, busy=["p"] if project == "q" else [])
    assert await release_leases(catalog, "lamp:/data/a") == 2
    async with catalog.connection() as conn:
        rows = await (await conn.execute("select project_id from operations where lease_owner is not null")).fetchall()
    assert {row["project_id"] for row in rows} == {"r", "s"}


async def test_engines_with_catalogs_of_their_own_hear_of_each_others_work(bench, recipe, database):
    ran = []

    async def step(op) -> None:
        ran.append(op.project_id)

    other = await open_pool(database)
    async with bench.engine(recipe("k", step=step)) as engine:
        async with other.transaction() as conn:
            ids = iter([store.UUID(int=1), store.UUID(int=2)])
            await store.enqueue(
                conn,
                "p",
                [NewOperation("k", "k")],
                group_id=next(ids),
                ids=lambda: next(ids),
                now=datetime.now(UTC),
            )
        await engine.wait_idle()
    await other.close()
    assert ran == ["p"]
