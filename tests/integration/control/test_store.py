"""Scheduling and reading operations: order, pages, locks, and the invariants of claims under any history."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamplighter.api.errors import BadRequest, NotFound
from lamplighter.control.errors import LeaseLost, ProjectBusy
from lamplighter.control.operations import store
from lamplighter.control.operations.model import NewOperation
from lamplighter.control.operations.states import Event, Retry
from lamplighter.control.operations.store import Ending, FollowUp, Lease

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ME = Lease("me", 60.0)
OTHER = Lease("other", 60.0)

#: The catalog of a test serves all its examples: each takes a project of its own.
in_one_catalog = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def unseen(kind: str) -> NewOperation:
    return NewOperation(kind, kind, visible=False)


async def claim(catalog, lease=ME, limit=100, busy=()):
    async with catalog.connection() as conn:
        return (await store.claim(conn, lease, limit=limit, busy=busy))[0]


async def end(catalog, op, event=Event.FINISHED, lease=ME, *, claim_next=False, error=None, follow_up=None):
    ending = Ending(event, op.steps_done, error, follow_up=follow_up)
    async with catalog.connection() as conn:
        return await store.end(conn, lease, op, ending, claim_next=claim_next)


async def rows_of(catalog, project):
    async with catalog.connection() as conn:
        cursor = await conn.execute("select * from operations where project_id = %s order by seq", (project,))
        return await cursor.fetchall()


async def test_the_first_is_answered_as_running_and_the_rest_as_scheduling(bench):
    ops = await bench.schedule("p", "create_timeline", "start_compute", "apply_config", database="neondb")
    assert [op.status for op in ops] == ["running", "scheduling", "scheduling"]
    assert [op.seq for op in ops] == sorted(op.seq for op in ops)
    assert len({op.group_id for op in ops}) == 1
    assert ops[0].arguments == {"database": "neondb"}
    assert ops[0].started_at is None


async def test_a_restart_is_answered_with_both_running_and_what_is_unseen_does_not_count(bench):
    both = await bench.schedule("p", "suspend_compute", "start_compute", running=2)
    assert [op.status for op in both] == ["running", "running"]
    ops = await bench.schedule("q", unseen("prepare"), "start_compute", unseen("tidy"), "apply_config")
    assert [op.status for op in ops] == ["running", "running", "scheduling", "scheduling"]


async def test_nothing_to_schedule_is_nothing(bench):
    assert await bench.schedule("p") == []


async def test_what_is_rolled_back_was_never_scheduled(catalog):
    async def request() -> None:
        async with catalog.transaction() as conn:
            await store.enqueue(conn, "p", [NewOperation("k", "k")], group_id=uuid4(), ids=uuid4, now=NOW)
            await conn.execute("select 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await request()
    async with catalog.connection() as conn:
        assert not await store.is_busy(conn)


async def test_a_project_is_busy_until_its_last_operation_has_ended_seen_or_not(bench, catalog):
    await bench.schedule("p", "a", unseen("b"))
    async with catalog.connection() as conn:
        for _ in range(2):
            with pytest.raises(ProjectBusy) as caught:
                await store.require_idle(conn, "p")
            assert caught.value.project_id == "p"
            await store.require_idle(conn, "q")
            (op,) = await claim(catalog)
            await end(catalog, op)
        await store.require_idle(conn, "p")


async def test_of_requests_at_once_on_a_locked_project_exactly_one_gets_through(bench, catalog):
    await bench.execute("create table locks (id text primary key)")
    await bench.execute("insert into locks values ('p')")

    async def request() -> bool:
        try:
            async with catalog.transaction() as conn:
                await conn.execute("select from locks where id = 'p' for update")
                await store.require_idle(conn, "p")
                await store.enqueue(conn, "p", [NewOperation("k", "k")], group_id=uuid4(), ids=uuid4, now=NOW)
        except ProjectBusy:
            return False
        return True

    assert sorted(await asyncio.gather(*(request() for _ in range(8)))) == [False] * 7 + [True]


async def test_one_operation_is_found_by_its_project_and_id_unless_it_is_unseen(bench, catalog):
    seen, hidden = await bench.schedule("p", "a", unseen("b"))
    async with catalog.connection() as conn:
        assert await store.get(conn, "p", seen.id) == seen
        for project, wanted in [("q", seen.id), ("p", hidden.id), ("p", uuid4())]:
            with pytest.raises(NotFound, match="operation not found"):
                await store.get(conn, project, wanted)


@given(
    requests=st.lists(
        st.tuples(st.integers(1, 4), st.integers(-3, 3).map(lambda n: timedelta(microseconds=n)), st.booleans()),
        max_size=12,
    ),
    limit=st.integers(1, 7),
)
@in_one_catalog
async def test_pages_show_each_visible_operation_once_newest_first_whatever_the_clock_said(
    bench, catalog, requests, limit
):
    project = f"p-{uuid4()}"
    expected = []
    for size, shift, visible in requests:
        ops = [NewOperation("k", "k", visible=visible) for _ in range(size)]
        expected += [op.id for op in await bench.schedule(project, *ops, now=NOW + shift) if op.visible]
    seen, cursor, pages = [], None, 0
    async with catalog.connection() as conn:
        while True:
            found, cursor = await store.page(conn, project, limit=limit, cursor=cursor)
            assert (cursor is None) == (not found)
            if not found:
                break
            assert len(found) <= limit
            seen += [op.id for op in found]
            pages += 1
    assert seen == expected[::-1]
    assert pages == -(-len(expected) // limit)


async def test_a_page_after_the_end_is_empty_and_a_malformed_cursor_is_refused(bench, catalog):
    await bench.schedule("p", "a")
    async with catalog.connection() as conn:
        assert await store.page(conn, "p", limit=10, cursor="1999-01-01T00:00:00Z") == ([], None)
        with pytest.raises(BadRequest, match="cursor"):
            await store.page(conn, "p", limit=10, cursor="yesterday")


async def test_operations_scheduled_while_somebody_pages_do_not_shift_the_pages(bench, catalog):
    ops = await bench.schedule("p", "a", "b", "c")
    async with catalog.connection() as conn:
        first, cursor = await store.page(conn, "p", limit=1)
        await bench.schedule("p", "d")
        second, _ = await store.page(conn, "p", limit=10, cursor=cursor)
    assert [op.id for op in [*first, *second]] == [op.id for op in ops[::-1]]


async def test_only_the_first_of_each_project_can_be_claimed(bench, catalog):
    p = await bench.schedule("p", "a", "b")
    q = await bench.schedule("q", "a")
    assert [op.id for op in await claim(catalog)] == [p[0].id, q[0].id]
    assert await claim(catalog, OTHER) == []


async def test_a_claim_leaves_out_the_projects_at_work_and_respects_its_limit(bench, catalog):
    for project in "pqrs":
        await bench.schedule(project, "a")
    assert [op.project_id for op in await claim(catalog, busy=["p"], limit=2)] == ["q", "r"]


async def test_an_engine_takes_back_its_own_at_once_and_anothers_when_the_lease_ran_out(bench, catalog):
    (op,) = await bench.schedule("p", "a")
    await claim(catalog)
    assert [mine.id for mine in await claim(catalog)] == [op.id]
    assert await claim(catalog, OTHER) == []
    await bench.execute("update operations set lease_until = clock_timestamp()")
    assert [mine.id for mine in await claim(catalog, OTHER)] == [op.id]
    async with catalog.connection() as conn:
        assert await store.extend(conn, ME, [op.id]) == set()
        assert await store.extend(conn, OTHER, [op.id]) == {op.id}
        with pytest.raises(LeaseLost):
            await store.record_step(conn, ME, op)


async def test_without_its_lease_an_engine_can_neither_end_nor_postpone(bench, catalog):
    op, following = await bench.schedule("p", "a", "b")
    (claimed,) = await claim(catalog, OTHER)
    assert await end(catalog, claimed, Event.GIVEN_UP, error="no") == (False, None)
    async with catalog.connection() as conn:
        with pytest.raises(LeaseLost):
            await store.postpone(conn, ME, claimed, error="no", retry=Retry(NOW))
    assert await bench.statuses([op, following]) == ["running", "scheduling"]


async def test_an_end_brings_the_projects_next_operation_with_it(bench, catalog):
    await bench.schedule("p", "a", "b")
    (first,) = await claim(catalog)
    held, following = await end(catalog, first, claim_next=True)
    assert held
    assert following is not None
    assert (following.kind, following.status) == ("b", "running")
    assert (await bench.row(following))["lease_owner"] == "me"
    assert await end(catalog, following, claim_next=True) == (True, None)


async def test_the_next_due_time_is_that_of_the_earliest_retry_or_lease(bench, catalog):
    async with catalog.connection() as conn:
        assert await store.claim(conn, ME, limit=1, busy=[]) == ([], None)
        await bench.schedule("p", "a", "b")
        (op,), due = await store.claim(conn, ME, limit=1, busy=[])
        # What was claimed in the same breath may or may not be counted: the engine knows about it anyway.
        _, due = await store.claim(conn, OTHER, limit=1, busy=[])
        assert due is not None
        assert 30 < due <= 60
        await store.postpone(conn, ME, op, error="no", retry=Retry(datetime.now(UTC) + timedelta(seconds=20)))
        found, due = await store.claim(conn, OTHER, limit=1, busy=[])
        assert found == []
        assert due is not None
        assert 5 < due <= 20
        assert await store.claim(conn, OTHER, limit=1, busy=["p"]) == ([], None)


async def test_claiming_never_reads_the_finished_ones(bench, catalog):
    await bench.execute(
        "insert into operations (id, project_id, kind, action, status, group_id, created_at, updated_at, finished_at)"
        " select gen_random_uuid(), 'p' || mod(n, 500), 'k', 'a', 'finished', gen_random_uuid(),"
        " now() + n * interval '1 s', now(), now() from generate_series(1, 100000) n"
    )
    await bench.schedule("p1", "a", now=NOW)
    async with catalog.connection() as conn:
        values = store._claim_values(ME, project_id=None, limit=8, busy=[])
        cursor = psycopg.AsyncClientCursor(conn)
        for query in (store._CLAIM, store._NEXT_DUE):
            await cursor.execute(f"explain {query}", values)
            plan = "\n".join(row[0] if isinstance(row, tuple) else row["QUERY PLAN"] for row in await cursor.fetchall())
            assert "operations_unfinished" in plan
            assert "Seq Scan" not in plan
    assert len(await claim(catalog)) == 1


async def in_background(bench, catalog, project, *, due=True, kinds=1):
    """Operations of this project that failed and are to be tried again."""
    at = NOW if due else datetime.now(UTC) + timedelta(hours=1)
    await bench.schedule(project, *["k"] * kinds)
    (op,) = await claim(catalog, Lease("past", 60.0))
    assert op.project_id == project
    await end(catalog, op, Event.GIVEN_UP, Lease("past", 60.0), error="disk full", follow_up=FollowUp(("k",), at))


async def test_a_failure_is_followed_up_unseen_in_the_background_with_all_that_was_cancelled(bench, catalog):
    failing, cancelled, other = await bench.schedule("p", "a", "b", "c", name="dev")
    (op,) = await claim(catalog)
    at = datetime.now(UTC) + timedelta(hours=1)
    await end(catalog, op, Event.GIVEN_UP, error="disk full", follow_up=FollowUp(("a", "b"), at))
    assert await bench.statuses([failing, cancelled, other]) == ["failed", "cancelled", "cancelled"]
    copies = (await rows_of(catalog, "p"))[3:]
    assert [row["kind"] for row in copies] == ["a", "b"]
    assert len({row["group_id"] for row in copies} | {failing.group_id}) == 3
    for row in copies:
        assert (row["status"], row["visible"], row["blocking"], row["retry_at"]) == ("scheduling", False, False, at)
        assert (row["arguments"], row["steps_done"], row["lease_owner"]) == ({"name": "dev"}, [], None)
    assert copies[0]["error"] == "disk full"
    async with catalog.connection() as conn:
        await store.require_idle(conn, "p")
        assert not await store.is_busy(conn)
        assert {one.id for one in (await store.page(conn, "p", limit=10))[0]} == {failing.id, cancelled.id, other.id}


async def test_a_failure_is_followed_up_once_and_only_by_who_has_the_lease(bench, catalog):
    await bench.schedule("p", "a")
    (op,) = await claim(catalog)
    follow_up = FollowUp(("a",), NOW)
    assert await end(catalog, op, Event.GIVEN_UP, OTHER, follow_up=follow_up) == (False, None)
    assert len(await rows_of(catalog, "p")) == 1
    # As after a commit whose answer got lost.
    assert (await end(catalog, op, Event.GIVEN_UP, follow_up=follow_up))[0]
    assert not (await end(catalog, op, Event.GIVEN_UP, follow_up=follow_up))[0]
    assert [row["blocking"] for row in await rows_of(catalog, "p")] == [True, False]


async def test_what_is_in_the_background_begins_when_nothing_else_is_left_and_then_others_wait(bench, catalog):
    await in_background(bench, catalog, "p")
    blocking = await bench.schedule("p", "k", "k")
    (op,) = await claim(catalog)
    assert op.id == blocking[0].id
    assert await claim(catalog, OTHER) == []
    _, op = await end(catalog, op, claim_next=True)
    assert op.id == blocking[1].id
    _, background = await end(catalog, op, claim_next=True)
    assert not background.blocking
    (late,) = await bench.schedule("p", "k")
    assert await claim(catalog, OTHER) == []
    # Its engine is gone: it is still the one at work.
    await bench.execute("update operations set lease_until = clock_timestamp() where lease_owner is not null")
    assert [op.id for op in await claim(catalog, OTHER)] == [background.id]
    _, following = await end(catalog, background, lease=OTHER, claim_next=True)
    assert following.id == late.id


async def test_one_in_the_background_that_is_not_due_does_not_keep_another_waiting(bench, catalog):
    await in_background(bench, catalog, "p", due=False)
    await in_background(bench, catalog, "p")
    await in_background(bench, catalog, "p")
    first, second, third = [row for row in await rows_of(catalog, "p") if not row["blocking"]]
    assert [op.id for op in await claim(catalog, limit=5)] == [second["id"]]
    assert await claim(catalog, OTHER) == []
    (op,) = await claim(catalog)
    _, following = await end(catalog, op, claim_next=True)
    assert following.id == third["id"]
    assert await end(catalog, following, claim_next=True) == (True, None)
    assert (await bench.row(first["id"]))["finished_at"] is None


async def test_the_next_due_time_counts_the_background_only_where_it_can_begin(bench, catalog):
    await in_background(bench, catalog, "p")
    (op,) = await bench.schedule("p", "k")
    async with catalog.connection() as conn:
        (op,), _ = await store.claim(conn, ME, limit=1, busy=[])
        at = datetime.now(UTC) + timedelta(seconds=20)
        await store.postpone(conn, ME, op, error="no", retry=Retry(at))
        _, due = await store.claim(conn, ME, limit=1, busy=[])
        assert due is not None
        assert 5 < due <= 20
        await bench.execute("update operations set retry_at = null")
        (op,), _ = await store.claim(conn, ME, limit=1, busy=[])
        await end(catalog, op)
        await bench.execute("update operations set retry_at = %s", at)
        _, due = await store.claim(conn, ME, limit=1, busy=[])
        assert due is not None
        assert 5 < due <= 20


async def test_of_two_engines_that_saw_different_operations_of_a_project_one_is_turned_away(bench, catalog):
    await in_background(bench, catalog, "p")
    async with catalog.transaction() as conn:
        # Only this transaction sees it, so the other engine takes the one in the background for free.
        await store.enqueue(conn, "p", [NewOperation("k", "k")], group_id=uuid4(), ids=uuid4, now=NOW)
        (mine,), _ = await store.claim(conn, ME, limit=1, busy=[])
        other = asyncio.create_task(_claim_and_due(catalog))

        async def waits() -> bool:
            async with catalog.connection() as observer:
                cursor = await observer.execute(
                    "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
                )
                return await cursor.fetchone() is not None

        await bench.until(waits)
    assert await other == ([], 0.0)
    assert [row["id"] for row in await rows_of(catalog, "p") if row["lease_owner"]] == [mine.id]


async def _claim_and_due(catalog):
    async with catalog.connection() as conn:
        return await store.claim(conn, OTHER, limit=1, busy=[])


async def test_only_how_an_operation_ended_waits_for_the_disk(bench, catalog):
    await bench.execute("create table commits (at int generated always as identity, how text)")
    await bench.execute(
        "create function note() returns trigger language plpgsql as"
        " $$ begin insert into commits (how) values (current_setting('synchronous_commit')); return new; end $$"
    )
    await bench.execute("create trigger note before update on operations for each row execute function note()")
    await bench.schedule("p", "a")
    (op,) = await claim(catalog)
    async with catalog.connection() as conn:
        await store.record_step(conn, ME, op)
        await store.extend(conn, ME, [op.id])
        await end(catalog, op)
        commits = await (await conn.execute("select how from commits order by at")).fetchall()
    assert [row["how"] for row in commits] == ["off", "off", "off", "on"]


async def test_pruning_deletes_what_ended_before_in_batches_and_nothing_else(bench, catalog):
    count = 2 * store.PRUNE_BATCH + 10
    old, young = NOW - timedelta(days=200), NOW - timedelta(days=10)
    (stuck,) = await bench.schedule("stuck", "k", now=old)
    for project, at in [("old", old), ("young", young)]:
        await bench.execute(
            "insert into operations"
            " (id, project_id, kind, action, status, group_id, created_at, updated_at, finished_at)"
            " select gen_random_uuid(), %s, 'k', 'a', 'finished', gen_random_uuid(),"
            " %s::timestamptz + n * interval '1 ms', now(), %s from generate_series(1, %s) n",
            project,
            at,
            at,
            count,
        )
    (late,) = await bench.schedule("late", "k", now=old)
    await bench.execute("update operations set status = 'failed', finished_at = %s where project_id = 'late'", young)
    async with catalog.connection() as conn:
        assert await store.prune(conn, before=NOW - timedelta(days=183)) == count
        assert await store.prune(conn, before=NOW - timedelta(days=183)) == 0
    assert await rows_of(catalog, "old") == []
    assert len(await rows_of(catalog, "young")) == count
    assert await bench.statuses([stuck, late]) == ["running", "failed"]


async def test_pruning_nothing_is_nothing(catalog):
    async with catalog.connection() as conn:
        assert await store.prune(conn, before=NOW) == 0


commands = st.lists(
    st.tuples(
        st.sampled_from(
            ["schedule", "claim", "finish", "fail", "fail for now", "skip", "postpone", "expire", "release", "step"]
        ),
        st.integers(0, 2),
        st.integers(0, 2),
    ),
    max_size=40,
)


@given(commands)
@in_one_catalog
async def test_no_history_of_engines_breaks_the_order_or_runs_two_of_one_project(bench, catalog, history):
    """Three engines, three projects, any order of claims, ends, crashes and expired leases."""
    await bench.execute("delete from operations")
    held: dict[int, list] = {0: [], 1: [], 2: []}
    ended: dict = {}
    for command, engine, number in history:
        lease = Lease(f"engine-{engine}", 60.0)
        await _apply(bench, catalog, held, (command, engine, number), lease)
        await _check(catalog, ended)


async def _apply(bench, catalog, held, command, lease) -> None:
    name, engine, number = command
    mine = held[engine]
    match name:
        case "schedule":
            await bench.schedule(f"project-{number}", *(["k"] * (number + 1)), now=NOW)
        case "claim":
            mine += await claim(catalog, lease, busy=[op.project_id for op in mine])
        case "finish" | "fail" | "fail for now" | "skip" if mine:
            op = mine.pop(number % len(mine))
            event = {"finish": Event.FINISHED, "skip": Event.SKIPPED}.get(name, Event.GIVEN_UP)
            follow_up = FollowUp(("k",), NOW) if name == "fail for now" else None
            _, following = await end(catalog, op, event, lease, claim_next=number > 0, follow_up=follow_up)
            mine += [] if following is None else [following]
        case "postpone" | "step" if mine:
            op = mine[number % len(mine)]
            async with catalog.connection() as conn:
                try:
                    if name == "step":
                        await store.record_step(conn, lease, op)
                        return
                    await store.postpone(conn, lease, op, error="no", retry=Retry(NOW))
                except LeaseLost:
                    pass
            mine.remove(op)
        case "expire":
            await bench.execute(
                "update operations set lease_until = clock_timestamp() where lease_owner = %s and finished_at is null",
                lease.owner,
            )
        case "release":
            async with catalog.connection() as conn:
                await store.release(conn, lease.owner)
            mine.clear()


async def _check(catalog, ended) -> None:
    async with catalog.connection() as conn:
        rows = await (await conn.execute("select * from operations order by project_id, seq")).fetchall()
    for row in rows:
        if row["id"] in ended:
            assert row == ended[row["id"]], "an end is for good"
        if row["finished_at"] is not None:
            ended[row["id"]] = row
    for project in {row["project_id"] for row in rows}:
        ops = [row for row in rows if row["project_id"] == project]
        leased = [row for row in ops if row["lease_owner"] is not None]
        assert len(leased) <= 1
        ops = [row for row in ops if row["blocking"]]
        waiting = [row for row in ops if row["finished_at"] is None]
        if leased and leased[0]["blocking"]:
            assert leased[0] == waiting[0], "the one at work is the first that has not ended"
        assert waiting == ops[len(ops) - len(waiting) :], "operations end in order"
        times = [row["created_at"] for row in ops]
        assert times == sorted(set(times))
