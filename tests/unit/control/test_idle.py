"""When an endpoint is put to sleep, and what it is charged with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.control.features.endpoints.idle import Ledger, Use, suspends_at
from lamplighter.control.features.endpoints.model import Endpoint

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ENDPOINT = Endpoint(
    id="ep-a",
    project_id="p",
    branch_id="br-a",
    name=None,
    type="read_write",
    current_state="active",
    pending_state=None,
    autoscaling_limit_min_cu=0.25,
    autoscaling_limit_max_cu=0.25,
    suspend_timeout_seconds=0,
    settings={},
    pooler_mode="transaction",
    disabled=False,
    passwordless_access=True,
    region_id="aws-us-east-2",
    provisioner="k8s-neonvm",
    creation_source="console",
    port=20_000,
    pooler_port=20_001,
    last_active=NOW,
    started_at=NOW,
    suspended_at=None,
    created_at=NOW,
    updated_at=NOW,
)


@pytest.mark.parametrize(("timeout", "after"), [(0, 300), (60, 60), (604_800, 604_800)])
def test_an_endpoint_sleeps_after_its_timeout(timeout, after):
    endpoint = replace(ENDPOINT, suspend_timeout_seconds=timeout)
    assert suspends_at(endpoint, NOW, default_seconds=300) == NOW + timedelta(seconds=after)


def test_an_endpoint_may_stay_awake_for_ever():
    assert suspends_at(replace(ENDPOINT, suspend_timeout_seconds=-1), NOW, default_seconds=300) is None


USES = st.builds(
    Use,
    active_seconds=st.floats(0, 1e6).map(lambda value: round(value, 3)),
    compute_seconds=st.floats(0, 1e6),
    bytes_in=st.integers(0, 1 << 40),
    bytes_out=st.integers(0, 1 << 40),
)


@given(st.lists(st.tuples(st.sampled_from("abc"), USES), max_size=20), st.sets(st.integers(0, 20)))
def test_nothing_that_was_used_is_lost_or_counted_twice(uses, taken_after):
    """However often it is written down in between, and whole seconds at a time."""
    ledger = Ledger()
    written: dict[str, Use] = {}
    for index, (endpoint, use) in enumerate(uses):
        ledger.put_back({endpoint: use})
        if index in taken_after:
            for one, taken in ledger.take().items():
                assert taken.active_seconds == int(taken.active_seconds)
                written.setdefault(one, Use()).active_seconds += taken.active_seconds
                written[one].bytes_in += taken.bytes_in
                written[one].bytes_out += taken.bytes_out
    for one in {endpoint for endpoint, _ in uses}:
        mine = [use for endpoint, use in uses if endpoint == one]
        left, done = ledger.uses.get(one, Use()), written.get(one, Use())
        assert done.bytes_in + left.bytes_in == sum(use.bytes_in for use in mine)
        assert done.bytes_out + left.bytes_out == sum(use.bytes_out for use in mine)
        total = sum(use.active_seconds for use in mine)
        assert done.active_seconds + left.active_seconds == pytest.approx(total, abs=1e-3)


def test_what_has_been_written_down_takes_no_room():
    ledger = Ledger()
    ledger.put_back({"a": Use(2.0, 0.5, 10, 20)})
    assert set(ledger.take()) == {"a"}
    assert not ledger.take()
    ledger.take()
    assert ledger.uses == {"a": Use()} or not ledger.uses
