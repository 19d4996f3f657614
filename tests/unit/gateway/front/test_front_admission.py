"""Who gets in, decided from values."""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamplighter.address_ranges import AddressRange, read_address
from lamplighter.gateway.admission import (
    WAITING,
    WAITING_OF_ENDPOINT,
    WAKES_A_MINUTE,
    WAKES_AT_ONCE,
    Go,
    WakeFirst,
    Wakes,
    allowed,
    decide,
    may_wait,
)
from lamplighter.gateway.ports import Backend, Route
from lamplighter.gateway.refusals import Refusal

COMPUTE = Backend("127.0.0.1", 5001, tls=True)
POOLER = Backend("127.0.0.1", 5002, tls=False)
AWAKE = Route("ep-a", "p", "awake", 1, 2, COMPUTE, POOLER)

routes = st.builds(
    Route,
    endpoint_id=st.just("ep-a"),
    project_id=st.just("p"),
    state=st.sampled_from(["awake", "asleep", "holding", "disabled"]),
    port=st.just(1),
    pooler_port=st.none() | st.just(2),
    compute=st.none() | st.just(COMPUTE),
    pooler=st.none() | st.just(POOLER),
    allowed=st.none() | st.lists(st.sampled_from(["127.0.0.1", "10.0.0.0/8", "x"]), max_size=2).map(tuple),
    max_connections=st.integers(0, 3),
)


@given(st.none() | routes, st.booleans(), st.sampled_from([None, "127.0.0.1", "10.1.2.3", "::1"]), st.integers(0, 4))
def test_nobody_gets_through_who_may_not(route, pooled, address, connections):
    """Only an awake endpoint below its limit is gone to, by who may come; a sleeping one is woken for nobody else."""
    decision = decide(route, pooled=pooled, address=address, connections=connections)
    if isinstance(decision, Refusal):
        return
    assert route is not None
    assert route.state != "disabled"
    assert connections < route.max_connections
    assert address is None or allowed(address, route.allowed)
    if isinstance(decision, Go):
        assert route.state == "awake"
        assert decision.backend == (route.pooler if pooled else route.compute)
    else:
        assert isinstance(decision, WakeFirst)
        assert route.state != "awake" or route.compute is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"allowed": (), "state": "disabled"}, "not_allowed"),
        ({"state": "disabled"}, "disabled"),
        ({"max_connections": 0}, "too_many_connections"),
        ({"pooler": None}, "no_pooler"),
    ],
)
def test_reasons(changes, reason):
    """Who may not come learns nothing else."""
    decision = decide(replace(AWAKE, **changes), pooled=True, address="192.0.2.1", connections=0)
    assert isinstance(decision, Refusal)
    assert decision.reason == reason


def test_refusals_are_errors_of_postgres():
    """Rendered, a refusal is an ErrorResponse with its code."""
    decision = decide(None, pooled=False, address=None, connections=0)
    assert isinstance(decision, Refusal)
    assert decision.render()[:1] == b"E"
    assert decision.code.encode() in decision.render()


@given(st.ip_addresses(), st.lists(st.ip_addresses(v=4), min_size=2, max_size=2).map(sorted))
def test_one_rule_is_enough(one, ends):
    """Whoever is in any of the rules may come, in whatever clothes."""
    low, high = ends
    rules = ("x", "2001:db8::/32", f"{low}-{high}")
    inside = read_address(str(one)) in AddressRange(low, high) or one in ipaddress.ip_network("2001:db8::/32")
    assert allowed(str(one), rules) == inside
    assert allowed(f"::ffff:{low}", rules)


@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=3).map(tuple))
def test_nonsense_lets_nobody_in(address, rules):
    """Whatever cannot be read neither raises nor matches, but the very same."""
    if allowed(address, rules):
        ipaddress.ip_address(address.strip().partition("%")[0])


def test_scopes_do_not_matter():
    """A link-local address comes with its interface."""
    assert allowed("fe80::1%eth0", ("fe80::/10",))


def test_none_is_everybody_and_empty_is_nobody():
    """As the catalog has it."""
    assert allowed("192.0.2.1", None)
    assert not allowed("192.0.2.1", ())


@given(st.lists(st.integers(0, 30), max_size=200))
def test_no_endpoints_take_all_the_room_to_wait_in(endpoints):
    """However many wait, one more endpoint finds room for somebody, unless the bound is reached to the last."""
    waiting = dict.fromkeys(range(31), 0)
    for endpoint in endpoints:
        for _ in range(500):
            waiting[endpoint] += may_wait(of_endpoint=waiting[endpoint], in_all=sum(waiting.values()))
    assert sum(waiting.values()) <= WAITING
    assert max(waiting.values()) <= WAITING_OF_ENDPOINT
    assert may_wait(of_endpoint=0, in_all=sum(waiting.values())) or sum(waiting.values()) == WAITING


# Wakes of strangers, in whole seconds: the figures are such that a wake comes back in a whole number of them.

ONE, OTHER = "192.0.2.1", "192.0.2.2"
pauses = st.lists(st.integers(0, 90), max_size=120)


def taken(wakes, address, times):
    """When a wake was let through."""
    return [now for now in times if wakes.take(address, float(now))]


def times_of(pauses):
    return list(itertools.accumulate(pauses))


@given(pauses)
def test_an_address_wakes_so_many_at_once_and_so_many_a_minute(pauses):
    """In no time more than that, however it is spread; and a wake is refused for no other reason."""
    times = times_of(pauses)
    went = taken(Wakes(), ONE, times)
    for first, last in itertools.combinations(range(len(went)), 2):
        assert last - first + 1 <= WAKES_AT_ONCE + (went[last] - went[first]) * WAKES_A_MINUTE / 60
    for refused in set(times) - set(went):
        before = [now for now in went if now <= refused]
        assert any(
            len(before) - at >= WAKES_AT_ONCE + (refused - since) * WAKES_A_MINUTE // 60
            for at, since in enumerate(before)
        )


@given(st.floats(0, 1e9))
@example(875.036)
def test_no_wake_is_lost_to_rounding(now):
    """A clock shows no whole seconds."""
    wakes = Wakes()
    assert [wakes.take(ONE, now) for _ in range(WAKES_AT_ONCE + 1)] == [True] * WAKES_AT_ONCE + [False]


@given(st.integers(0, 100))
def test_who_is_slow_is_never_refused(count):
    """One wake each six seconds is what comes back."""
    times = [now * 60 // WAKES_A_MINUTE for now in range(count)]
    assert taken(Wakes(at_once=1), ONE, times) == times


@given(pauses, pauses)
def test_addresses_have_accounts_of_their_own(ours, theirs):
    """What one does changes nothing for another; who has many IPv6 addresses has one account."""
    alone = taken(Wakes(), ONE, times_of(ours))
    both = sorted([(now, ONE) for now in times_of(ours)] + [(now, OTHER) for now in times_of(theirs)])
    wakes = Wakes()
    went = [(now, address) for now, address in both if wakes.take(address, float(now))]
    assert [now for now, address in went if address == ONE] == alone
    six = Wakes(at_once=2)
    assert [six.take(f"2001:db8::{number:x}", 0.0) for number in range(3)] == [True, True, False]
    assert six.take("2001:db8:0:1::", 0.0)


@given(st.lists(st.integers(0, 40), max_size=200))
def test_so_many_addresses_are_remembered(addresses):
    """And never forgotten is who has just come."""
    wakes = Wakes(at_once=2, wakers=20)
    for number in addresses:
        wakes.take(f"192.0.2.{number}", 0.0)
        assert len(wakes) <= 20
        last = f"192.0.2.{number}"
    assert not addresses or sum(wakes.take(last, 0.0) for _ in range(3)) <= 1
