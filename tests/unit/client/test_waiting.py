from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.models.operations import Operation
from lamplighter.client.errors import DeadlineExceeded, OperationFailed
from lamplighter.client.waiting import Waiting

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def operation(number, status, **more):
    return Operation(
        id=f"01234567-89ab-4def-8123-{number:012}",
        project_id="p",
        action="start_compute",
        status=status,
        failures_count=0,
        created_at=NOON,
        updated_at=NOON,
        total_duration_ms=0,
        **more,
    )


def test_it_is_the_first_that_has_not_ended_that_is_looked_at():
    waiting = Waiting([operation(1, "finished"), operation(2, "running"), operation(3, "scheduling")], now=0, timeout=9)
    assert waiting.next() == operation(2, "").id
    waiting.saw(operation(2, "skipped"))
    assert waiting.next() == operation(3, "").id
    waiting.saw(operation(3, "finished"))
    assert waiting.next() is None
    assert [each.status for each in waiting.operations()] == ["finished", "skipped", "finished"]


def test_ids_are_looked_at_in_their_order():
    ids = [operation(number, "").id for number in (2, 1)]
    waiting = Waiting(ids, now=0, timeout=9)
    assert waiting.next() == ids[0]
    waiting.saw(operation(2, "finished"))
    assert waiting.next() == ids[1]


def test_nothing_to_wait_for_is_done():
    assert Waiting([], now=0, timeout=0).next() is None


@pytest.mark.parametrize("status", ["failed", "error", "cancelled"])
def test_a_failure_is_raised_with_all_that_is_known(status):
    failed = operation(1, status, error="no space left", endpoint_id="ep-x", branch_id="br-x")
    with pytest.raises(OperationFailed, match=r"start_compute of endpoint ep-x .*: no space left") as caught:
        Waiting([failed], now=0, timeout=9).next()
    assert caught.value.operation is failed
    assert caught.value.error == "no space left"
    assert caught.value.hint


@pytest.mark.parametrize("status", ["scheduling", "running", "cancelling", "pondering"])
def test_what_is_not_an_end_is_waited_for(status):
    assert Waiting([operation(1, status)], now=0, timeout=9).next() is not None


@given(timeout=st.floats(0.01, 1000))
def test_looks_come_less_and_less_often_and_never_after_the_end(timeout):
    waiting = Waiting([operation(1, "running")], now=100.0, timeout=timeout)
    now, pauses = 100.0, []
    while now < 100 + timeout:
        pauses.append(waiting.pause(now))
        now += pauses[-1]
    with pytest.raises(DeadlineExceeded) as caught:
        waiting.pause(now)
    assert now <= 100 + timeout + 1e-6
    assert max(pauses) <= 2.0
    assert pauses[:-1] == sorted(pauses[:-1])
    assert caught.value.operations == (operation(1, "running"),)
    assert "start_compute (running)" in str(caught.value)


def test_progress_makes_it_look_sooner():
    waiting = Waiting([operation(1, "scheduling")], now=0, timeout=100)
    for _ in range(10):
        waiting.pause(0)
    waiting.saw(operation(1, "running"))
    assert waiting.pause(0) == pytest.approx(0.1)
