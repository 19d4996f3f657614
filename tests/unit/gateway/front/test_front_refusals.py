"""What clients are told, from values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway import refusals
from lamplighter.gateway.ports import WakeFailed
from lamplighter.gateway.wire import messages

inside = st.text(min_size=1).map(lambda text: f"/srv/{text}")


def fields(refusal):
    return messages.parse_error(refusal.render()[5:])


@given(inside, inside)
def test_strangers_hear_nothing_of_this_host(detail, hint):
    """Of a wake that failed they get the sentence, and who finds out why; clients of this host get all."""
    failure = WakeFailed("ep-a", "57P03", "the compute could not be started", detail, hint)
    refusal = refusals.wake_failed(failure)
    there = fields(refusal.told(here=False))
    assert there.keys() == {"severity", "severity_nonlocalized", "code", "message"}
    assert there["code"] == "57P03"
    assert there["message"].startswith("the compute could not be started; ")
    assert "platform's log" in there["message"]
    assert there["message"].endswith("by ep-a")
    assert refusal.told(here=True) == refusal
    assert {"detail", "hint"} <= fields(refusal).keys()


@pytest.mark.parametrize("refusal", [refusals.disabled(), refusals.too_many_connections(3), refusals.relay_full(2)])
def test_other_refusals_are_the_same_for_all(refusal):
    """There is nothing in them that is not the client's."""
    assert refusal.told(here=False) == refusal.told(here=True) == refusal


def test_a_pooler_takes_another_start_of_the_platform():
    """PgBouncer is looked for then, and not when an endpoint starts."""
    assert "install PgBouncer on the server and restart `lamp up`" in fields(refusals.no_pooler())["hint"]


def test_a_full_relay_is_too_many_connections():
    """With the code by which poolers know to wait."""
    assert fields(refusals.relay_full(2))["code"] == "53300"
    assert fields(refusals.relay_full(2))["message"] == "too many connections"
