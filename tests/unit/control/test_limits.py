"""Request limits: what passes, what is refused, and when to come again."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamplighter.api.errors import TooManyRequests
from lamplighter.control.http.limits import (
    ACCOUNT,
    IDLE_AFTER,
    ORGANIZATION_KEY,
    ORGANIZATION_KEYS,
    ROUTE,
    Limiter,
)

#: Rates are kept in floating point.
NEARLY = 1e-6
RATES = {"getProject": ROUTE, "listProjects": ROUTE, ORGANIZATION_KEYS: ORGANIZATION_KEY}

#: Seconds since the burst before, account, operation, how many requests at once.
bursts = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 2), st.sampled_from([0.0, 0.025, 1.0, 60.0, 130.0])),
        st.sampled_from("ab"),
        st.sampled_from(sorted(RATES)),
        st.integers(1, 60),
    ),
    max_size=25,
)


def refusal(limiter: Limiter, account: str, operation_id: str, now: float) -> TooManyRequests | None:
    try:
        limiter.take(account, operation_id, now=now)
    except TooManyRequests as error:
        return error
    return None


def passes(limiter: Limiter, account: str, operation_id: str, now: float) -> bool:
    return refusal(limiter, account, operation_id, now) is None


def replay(limiter: Limiter, requests) -> list[tuple[float, str, str, bool]]:
    """Every request of the bursts, with its time and whether it passed."""
    now, outcome = 1000.0, []
    for pause, account, operation_id, count in requests:
        now += pause
        outcome += [(now, account, operation_id, passes(limiter, account, operation_id, now)) for _ in range(count)]
    return outcome


@given(bursts)
@settings(max_examples=60)
def test_in_no_window_do_more_requests_pass_than_the_burst_and_the_refill(requests):
    passed = defaultdict(list)
    for now, account, operation_id, ok in replay(Limiter(), requests):
        if ok:
            passed[account, ACCOUNT].append(now)
            passed[account, operation_id, RATES[operation_id]].append(now)
    for key, times in passed.items():
        rate = key[-1]
        for (first, begin), (last, end) in itertools.combinations(enumerate(times), 2):
            assert last - first + 1 <= rate.burst + rate.per_second * (end - begin) + NEARLY


@given(bursts)
def test_a_refused_request_that_is_repeated_changes_nothing(requests):
    patient, stubborn = Limiter(), Limiter()
    now = 1000.0
    for pause, account, operation_id, count in requests:
        now += pause
        for _ in range(count):
            ok = passes(patient, account, operation_id, now)
            assert passes(stubborn, account, operation_id, now) is ok
            assert ok or not any(passes(stubborn, account, operation_id, now) for _ in range(3))


@given(bursts, st.sampled_from("ab"), st.sampled_from(sorted(RATES)))
def test_who_waits_as_long_as_told_passes(requests, account, operation_id):
    limiter = Limiter()
    now = [1000.0, *(now for now, *_ in replay(limiter, requests))][-1]
    refused = next(error for _ in range(800) if (error := refusal(limiter, account, operation_id, now)))
    assert refused.retry_after is not None
    assert refused.retry_after >= 1
    assert refused.retry_after == int(refused.retry_after)
    limiter.take(account, operation_id, now=now + refused.retry_after)


@given(bursts)
def test_accounts_do_not_see_each_other(requests):
    together = [one for one in replay(Limiter(), requests) if one[1] == "a"]
    # The other's bursts are empty, so that time goes on as it did.
    alone = replay(Limiter(), [(pause, who, what, count * (who == "a")) for pause, who, what, count in requests])
    assert alone == together


@given(bursts)
def test_forgetting_the_idle_changes_no_outcome(requests):
    forgetful, unforgetting = Limiter(), Limiter(_swept=math.inf)
    assert replay(forgetful, requests) == replay(unforgetting, requests)


def test_who_asked_a_moment_ago_is_not_forgotten_when_the_idle_are():
    limiter = Limiter()
    limiter.take("a", "getProject", now=1000.0)
    late = 1000.0 + IDLE_AFTER - 1
    assert sum(passes(limiter, "b", f"operation-{number}", late) for number in range(1000)) == ACCOUNT.burst
    # Three seconds later the idle are forgotten; of the account's minute that is a twentieth.
    again = sum(passes(limiter, "b", f"operation-{number}", late + 3) for number in range(1000))
    assert again == ACCOUNT.burst / 20


def test_the_idle_are_forgotten():
    limiter = Limiter()
    for number in range(100):
        limiter.take(f"account-{number}", "getProject", now=1000.0)
    limiter.take("late", "getProject", now=1000.0 + IDLE_AFTER)
    assert len(limiter._buckets) == 2


@pytest.mark.parametrize("rate", [ACCOUNT, ROUTE, ORGANIZATION_KEY])
def test_who_is_forgotten_would_have_had_a_full_bucket(rate):
    assert rate.burst / rate.per_second <= IDLE_AFTER


@pytest.mark.parametrize(("operation_id", "burst"), [("getProject", 40), (ORGANIZATION_KEYS, 10)])
def test_a_burst_is_as_large_as_neons(operation_id, burst):
    limiter = Limiter()
    assert sum(passes(limiter, "a", operation_id, 0.0) for _ in range(1000)) == burst


def test_a_request_that_its_route_refuses_is_not_counted_for_the_account():
    limiter = Limiter()
    for _ in range(5000):
        passes(limiter, "a", "getProject", 0.0)
    others = sum(passes(limiter, "a", f"operation-{number}", 0.0) for number in range(1000))
    assert others == ACCOUNT.burst - ROUTE.burst


def test_a_request_that_its_account_refuses_is_not_counted_for_the_route():
    limiter = Limiter()
    for number in range(700):
        limiter.take("a", f"operation-{number}", now=0.0)
    assert not any(passes(limiter, "a", "getProject", 0.0) for _ in range(100))
    assert limiter._buckets["a", "getProject"].tokens == ROUTE.burst


def test_the_refusal_has_the_words_that_clients_look_for():
    limiter = Limiter()
    for _ in range(40):
        limiter.take("a", "getProject", now=0.0)
    with pytest.raises(TooManyRequests, match=r"rate limit.*too many requests"):
        limiter.take("a", "getProject", now=0.0)
