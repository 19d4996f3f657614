"""What an endpoint is given: size, sleep, settings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.errors import BadRequest, NotServed
from lamplighter.control.features.endpoints.plan import (
    DEFAULTS,
    LARGEST_CU,
    LONGEST_SUSPEND,
    SHORTEST_SUSPEND,
    SMALLEST_CU,
    check_size,
    check_suspend,
    refuse_moving,
    settle_options,
)

fitting = st.floats(SMALLEST_CU, LARGEST_CU)
sizes = st.one_of(fitting, st.floats(), st.sampled_from([0.25, 1, 2, 8, 56, 57]))
naps = st.one_of(st.integers(-3, 70), st.integers(), st.sampled_from([604_800, 604_801]))
good_naps = st.one_of(st.sampled_from([-1, 0]), st.integers(SHORTEST_SUSPEND, LONGEST_SUSPEND))
pg_settings = st.dictionaries(st.sampled_from(["work_mem", "max_connections"]), st.text(max_size=5), min_size=1)


@st.composite
def good_defaults(draw):
    """What a project can have stored: any part may be missing."""
    low, high = sorted([draw(fitting), draw(fitting)])
    whole = {
        "autoscaling_limit_min_cu": low,
        "autoscaling_limit_max_cu": high,
        "suspend_timeout_seconds": draw(good_naps),
        "pg_settings": draw(pg_settings),
    }
    size = draw(st.booleans())
    return {name: value for name, value in whole.items() if (size if "_cu" in name else draw(st.booleans()))}


@given(good_defaults(), st.none() | sizes, st.none() | sizes, st.none() | naps)
def test_options_are_within_their_bounds_and_keep_what_was_asked_or_are_refused(defaults, low, high, nap):
    try:
        options = settle_options(defaults=defaults, min_cu=low, max_cu=high, suspend_timeout_seconds=nap)
    except BadRequest:
        return
    assert SMALLEST_CU <= options.min_cu <= options.max_cu <= LARGEST_CU
    assert options.suspend_timeout_seconds in (-1, 0) or 60 <= options.suspend_timeout_seconds <= 604_800
    assert low is None or options.min_cu == low
    assert high is None or options.max_cu == high
    assert nap is None or options.suspend_timeout_seconds == nap


@given(good_defaults(), fitting, st.sampled_from(["min_cu", "max_cu"]), st.none() | good_naps)
def test_one_fitting_end_of_the_size_is_never_refused_whatever_the_project_has(defaults, size, end, nap):
    options = settle_options(defaults=defaults, **{end: size}, suspend_timeout_seconds=nap)
    assert getattr(options, end) == size


@given(good_defaults())
def test_who_asks_for_nothing_gets_the_defaults(defaults):
    options = settle_options(defaults=defaults)
    known = {**DEFAULTS, **defaults}
    assert options.min_cu == known["autoscaling_limit_min_cu"]
    assert options.max_cu == known["autoscaling_limit_max_cu"]
    assert options.suspend_timeout_seconds == known["suspend_timeout_seconds"]
    assert options.pg_settings == known.get("pg_settings", {})


def test_an_end_follows_the_other_only_if_it_has_to():
    stored = {"autoscaling_limit_min_cu": 1, "autoscaling_limit_max_cu": 4}
    assert sizes_of(settle_options(defaults=stored, max_cu=2)) == (1, 2)
    assert sizes_of(settle_options(defaults=stored, max_cu=0.5)) == (0.5, 0.5)
    assert sizes_of(settle_options(defaults=stored, min_cu=2)) == (2, 4)
    assert sizes_of(settle_options(defaults=stored, min_cu=8)) == (8, 8)


def test_two_ends_that_contradict_each_other_are_refused():
    with pytest.raises(BadRequest, match="are 4 and 2"):
        settle_options(defaults={}, min_cu=4, max_cu=2)


@pytest.mark.parametrize(
    ("low", "high"), [(0.2, 1), (0, 0), (1, 56.5), (math.nan, 1), (1, math.nan), (1, math.inf), (-1, 1), (2, 1)]
)
def test_a_size_out_of_bounds_is_refused(low, high):
    with pytest.raises(BadRequest, match="compute units"):
        check_size(low, high)


@pytest.mark.parametrize("seconds", [-2, -604_800, 1, 59, 604_801, 10**20])
def test_a_timeout_out_of_bounds_is_refused(seconds):
    with pytest.raises(BadRequest, match=f"and is {seconds}"):
        check_suspend(seconds)


@pytest.mark.parametrize("seconds", [-1, 0, 60, 61, 300, 604_800])
def test_a_timeout_within_bounds_is_kept(seconds):
    assert check_suspend(seconds) == seconds


def test_settings_of_the_request_replace_those_of_the_project():
    stored = {"pg_settings": {"work_mem": "8MB", "jit": "off"}}
    asked = {"pg_settings": {"work_mem": "1MB"}}
    assert settle_options(defaults=stored, settings=asked).pg_settings == {"work_mem": "1MB"}
    assert settle_options(defaults=stored, settings={"pgbouncer_settings": {}}).settings == {
        **stored,
        "pgbouncer_settings": {},
    }


@given(st.none() | pg_settings)
def test_nobody_can_change_an_endpoints_settings_through_what_it_shows(settings):
    options = settle_options(defaults={}, settings={"pg_settings": settings})
    options.pg_settings["work_mem"] = "changed"
    assert options.pg_settings == (settings or {})


def test_an_endpoint_stays_on_its_branch():
    refuse_moving(None, "br-a")
    refuse_moving("br-a", "br-a")
    with pytest.raises(NotServed, match="not available"):
        refuse_moving("br-b", "br-a")


def sizes_of(options):
    return options.min_cu, options.max_cu
