"""The table of an operation's states, and the policy of its retries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.control.errors import InvalidTransition
from lamplighter.control.operations.states import (
    ACTIVE,
    ATTEMPTS,
    FATAL,
    LONGEST_PAUSE,
    SUCCEEDED,
    TERMINAL,
    TRANSITIONS,
    Event,
    GiveUp,
    Retry,
    Status,
    after,
    after_background_failure,
    after_failure,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

moments = st.floats(0, 200e9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


def reachable(start: Status) -> set[Status]:
    found = {start}
    waiting = [start]
    while waiting:
        for following in TRANSITIONS[waiting.pop()].values():
            if following not in found:
                found.add(following)
                waiting.append(following)
    return found


def test_the_statuses_are_neons_eight():
    assert {status.value for status in Status} == {
        "scheduling",
        "running",
        "finished",
        "failed",
        "error",
        "cancelling",
        "cancelled",
        "skipped",
    }


def test_the_table_has_a_row_for_every_status_and_a_use_for_every_event():
    assert set(TRANSITIONS) == set(Status)
    assert {event for events in TRANSITIONS.values() for event in events} == set(Event)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("event", Event)
def test_each_pair_of_status_and_event_either_is_in_the_table_or_is_refused(status, event):
    if event in TRANSITIONS[status]:
        assert after(status, event) is TRANSITIONS[status][event]
    else:
        with pytest.raises(InvalidTransition) as caught:
            after(status, event)
        assert (caught.value.status, caught.value.event) == (status, event)


def test_nothing_leaves_a_terminal_status():
    assert {Status.FINISHED, Status.SKIPPED, Status.FAILED, Status.ERROR, Status.CANCELLED} == TERMINAL
    assert all(reachable(status) == {status} for status in TERMINAL)


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_every_other_status_can_still_end(status):
    assert reachable(status) & TERMINAL


def test_what_is_scheduled_can_come_to_every_end_and_never_to_cancelling():
    assert reachable(Status.SCHEDULING) == set(Status) - {Status.CANCELLING}


def test_all_that_is_active_can_be_withdrawn_and_only_what_runs_can_end_otherwise():
    for status in ACTIVE:
        assert after(status, Event.WITHDRAWN) is Status.CANCELLED
    for event in set(Event) - {Event.CLAIMED, Event.WITHDRAWN}:
        assert [status for status in Status if event in TRANSITIONS[status]] == [Status.RUNNING]


def test_a_fatal_event_never_ends_well():
    assert all(after(Status.RUNNING, event) in TERMINAL - SUCCEEDED for event in FATAL)


def retries() -> list[timedelta]:
    pauses = []
    for failures in range(1, 100):
        verdict = after_failure(failures, NOW)
        if isinstance(verdict, GiveUp):
            return pauses
        pauses.append(verdict.at - NOW)
    return pauses


def test_pauses_double_and_all_of_them_together_stay_within_a_clients_patience():
    pauses = retries()
    assert len(pauses) == ATTEMPTS - 1
    assert all(later == 2 * earlier for earlier, later in pairwise(pauses))
    assert timedelta(seconds=15) <= sum(pauses, timedelta()) <= timedelta(seconds=20)


@given(st.integers(min_value=1, max_value=10_000), moments)
def test_a_retry_lies_in_the_future_and_giving_up_is_for_good(failures, now):
    verdict = after_failure(failures, now)
    if isinstance(verdict, Retry):
        assert verdict.at > now
    else:
        assert isinstance(after_failure(failures + 1, now), GiveUp)


def test_pauses_in_the_background_go_on_where_the_last_try_ended_and_never_exceed_a_minute():
    pauses = [after_background_failure(failures, NOW).at - NOW for failures in range(ATTEMPTS, 200)]
    assert pauses[0] == 2 * retries()[-1]
    assert all(earlier <= later for earlier, later in pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE == timedelta(seconds=60)


@given(st.integers(min_value=1, max_value=2**31 - 1), moments)
def test_in_the_background_there_is_always_another_try(failures, now):
    assert now < after_background_failure(failures, now).at <= now + LONGEST_PAUSE
