"""Who gets in, decided from values."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.admission import (
    WAITING,
    WAITING_OF_ENDPOINT,
    Go,
    WakeFirst,
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


addresses = st.ip_addresses()


@given(addresses, addresses, addresses)
def test_ranges(one, low, high):
    """`a-b` holds what lies between, ends included, and nothing of another version."""
    inside = low.version == high.version == one.version and int(low) <= int(one) <= int(high)
    mapped = any(isinstance(each, ipaddress.IPv6Address) and each.ipv4_mapped for each in (one, low, high))
    if not mapped:
        assert allowed(str(one), (f"{low} - {high}",)) == inside


@given(addresses, addresses, st.integers(0, 128))
def test_blocks(one, base, bits):
    """A block holds what Python's own networks hold."""
    if base.version == 4:
        bits = min(bits, 32)
    network = ipaddress.ip_network(f"{base}/{bits}", strict=False)
    if not any(isinstance(each, ipaddress.IPv6Address) and each.ipv4_mapped for each in (one, network[0], network[-1])):
        assert allowed(str(one), (f"{base}/{bits}",)) == (one in network)
        assert allowed(str(network[0]), (f"{base}/{bits}",))


@given(st.ip_addresses(v=4))
def test_ipv4_in_ipv6_clothes(address):
    """It is the IPv4 address, on either side."""
    assert allowed(f"::ffff:{address}", (str(address),))
    assert allowed(str(address), (f"::ffff:{address}",))


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
