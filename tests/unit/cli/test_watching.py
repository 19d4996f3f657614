"""What `lamp watch` takes for a change, and when it looks again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.watching import LONGEST, SHORTEST, Look, as_dict, as_text, changes, next_pause

NOW = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)


def operation(id_: str = "o1", status: str = "running", **more: Any) -> dict[str, Any]:
    common = {"id": id_, "action": "start_compute", "status": status, "failures_count": 0}
    return {**common, "created_at": "2026-01-31T12:00:00Z", "branch_id": "br-1", "endpoint_id": "ep-1", **more}


def endpoint(state: str = "idle", pending: str | None = None, id_: str = "ep-1") -> dict[str, Any]:
    found = {"id": id_, "branch_id": "br-1", "current_state": state}
    return found if pending is None else {**found, "pending_state": pending}


def look(*, endpoints: tuple[dict[str, Any], ...] = (), operations: tuple[dict[str, Any], ...] = ()) -> Look:
    return Look({one["id"]: one for one in endpoints}, {one["id"]: one for one in operations})


def test_nothing_changes_between_equal_looks() -> None:
    one = look(endpoints=(endpoint(),), operations=(operation(),))
    assert changes(one, one) == []


def test_a_new_operation_and_its_progress() -> None:
    (begun,) = changes(look(), look(operations=(operation(),)))
    assert (begun.kind, begun.id, begun.state, begun.before) == ("operation", "o1", "running", None)
    (ended,) = changes(look(operations=(operation(),)), look(operations=(operation(status="finished"),)))
    assert (ended.state, ended.before) == ("finished", "running")


def test_another_failure_is_a_change() -> None:
    again = operation(failures_count=1, error="no space")
    (change,) = changes(look(operations=(operation(),)), look(operations=(again,)))
    assert (change.failures, change.error) == (1, "no space")


def test_what_is_only_touched_is_no_change() -> None:
    touched = operation(updated_at="2026-01-31T12:00:09Z", total_duration_ms=7)
    assert changes(look(operations=(operation(),)), look(operations=(touched,))) == []


def test_endpoints_come_change_and_go() -> None:
    (came,) = changes(look(), look(endpoints=(endpoint(),)))
    assert (came.state, came.before) == ("idle", None)
    (starts,) = changes(look(endpoints=(endpoint(),)), look(endpoints=(endpoint(pending="active"),)))
    assert (starts.state, starts.before) == ("idle > active", "idle")
    (gone,) = changes(look(endpoints=(endpoint(),)), look())
    assert (gone.state, gone.before) == ("deleted", "idle")


def test_operations_come_in_the_order_of_their_changes() -> None:
    later = operation("a", updated_at="2026-01-31T12:00:02Z")
    sooner = operation("b", updated_at="2026-01-31T12:00:01Z")
    assert [one.id for one in changes(look(), look(operations=(later, sooner)))] == ["b", "a"]


def test_an_operation_that_is_no_longer_listed_is_no_change() -> None:
    assert changes(look(operations=(operation(),)), look()) == []


def test_idle() -> None:
    assert look(endpoints=(endpoint("active"),), operations=(operation(status="failed"),)).idle
    assert look(endpoints=(endpoint("active", "active"),)).idle
    assert not look(endpoints=(endpoint(pending="active"),)).idle
    assert not look(operations=(operation(status="scheduling"),)).idle


def test_lines_for_people() -> None:
    (change,) = changes(look(), look(operations=(operation(status="finished", total_duration_ms=1234),)))
    assert as_text(change, at=NOW, branches={"br-1": "main"}) == (
        "12:00:05  operation  start_compute  finished  ep-1 of branch main, 1.2 s"
    )
    (change,) = changes(look(endpoints=(endpoint(),)), look(endpoints=(endpoint("active"),)))
    assert as_text(change, at=NOW, branches={}) == "12:00:05  endpoint   ep-1  active (was idle)  branch br-1"


def test_objects_for_programs_have_the_same_names() -> None:
    found = changes(look(endpoints=(endpoint(id_="ep-2"),)), look(endpoints=(endpoint(),), operations=(operation(),)))
    told = [as_dict(one, at=NOW) for one in found]
    assert len(told) == 3
    assert len({tuple(one) for one in told}) == 1
    assert {one["at"] for one in told} == {"2026-01-31T12:00:05.000Z"}


@given(st.lists(st.booleans(), max_size=50))
def test_pauses_grow_until_something_changes(history: list[bool]) -> None:
    pause = SHORTEST
    for changed in history:
        after = next_pause(pause, changed=changed)
        assert SHORTEST <= after <= LONGEST
        assert after == SHORTEST if changed else after > pause or after == LONGEST
        pause = after


states = st.sampled_from(["init", "active", "idle"])
endpoints = st.dictionaries(st.sampled_from(["ep-1", "ep-2"]), st.tuples(states, st.none() | states))


def looked(found: dict[str, tuple[str, str | None]]) -> Look:
    return look(endpoints=tuple(endpoint(state, pending, id_) for id_, (state, pending) in found.items()))


@given(endpoints, endpoints)
def test_a_change_is_told_once_for_each_endpoint_that_differs(
    before: dict[str, tuple[str, str | None]], after: dict[str, tuple[str, str | None]]
) -> None:
    told = [one.id for one in changes(looked(before), looked(after))]
    assert len(told) == len(set(told))
    assert set(before) ^ set(after) <= set(told) <= set(before) | set(after)
