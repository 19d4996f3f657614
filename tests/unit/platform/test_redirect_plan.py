"""What the kernel is told, and what is read in its answers."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.ports import Backend, Route, RouteState
from lamplighter.platform.redirect_plan import (
    HEADERS,
    Counted,
    Element,
    Lead,
    change,
    elements_of,
    layout,
    lead_of,
    networks,
    parse_counters,
    parse_tables,
    since,
    table_name,
)

ports = st.integers(1024, 65535)
addresses = st.ip_addresses()
fours = st.ip_addresses(v=4)
blocks = st.one_of(st.ip_addresses(v=4).map(lambda one: f"{one}/{int(one) % 33}"), addresses.map(str))
leads = st.builds(
    Lead,
    public=ports,
    private=st.none() | ports,
    allowed=st.none() | st.lists(blocks, max_size=4).map(networks),
)


def route(state: RouteState = "awake", *, tls: bool = True, allowed: tuple[str, ...] | None = None) -> Route:
    compute, pooler = Backend("127.0.0.1", 31000, tls=tls), Backend("127.0.0.1", 31001, tls=tls)
    return Route("ep-a", "p", state, 20000, pooler_port=20001, compute=compute, pooler=pooler, allowed=allowed)


def test_only_what_is_awake_is_led_past_the_gateway() -> None:
    """All other states have their connections wait, be refused, or wake the endpoint: the gateway's work."""
    assert lead_of(route()) == Lead(20000, 31000)
    states: list[RouteState] = ["asleep", "holding", "disabled"]
    for state in states:
        assert lead_of(route(state)) == Lead(20000)


def test_a_compute_without_tls_stays_behind_the_gateway() -> None:
    """Which ends TLS for it."""
    assert lead_of(route(tls=False)) == Lead(20000)


def test_the_pooled_port_is_never_led_past_the_gateway() -> None:
    """Clients that ask for channel binding would fail at PgBouncer."""
    assert not any("20001" in element.key for element in elements_of([lead_of(route())]))


@given(st.lists(blocks, max_size=12), st.lists(st.tuples(addresses, addresses), max_size=6), fours)
def test_blocks_allow_whom_the_entries_allow(entries: list[str], pairs: list[tuple], who) -> None:
    """Neither more nor less of IPv4, which alone is led, and none of them overlaps another."""
    pairs = [(one, two) for one, two in pairs if one.version == two.version and one <= two]
    found = networks([*entries, *(f"{one} - {two}" for one, two in pairs)])
    wanted = any(who in ipaddress.ip_network(entry, strict=False) for entry in entries) or any(
        one.version == who.version and one <= who <= two for one, two in pairs
    )
    assert any(who in block for block in found) == wanted
    for number, block in enumerate(found):
        assert not any(block.version == other.version and block.overlaps(other) for other in found[number + 1 :])


@given(st.text(max_size=30))
def test_an_entry_that_cannot_be_read_allows_nobody(text: str) -> None:
    """Whom it means goes by the gateway; and nothing of the text gets into what nft reads."""
    for block in networks([text]):
        assert re.fullmatch(r"[0-9./]+", str(block))


def test_nobody_is_led_where_nobody_is_allowed() -> None:
    found = elements_of([lead_of(route(allowed=()))])
    assert Element("chosen", "20000", "31000") in found
    assert not any(element.where in ("everybody", "allowed") for element in found)


def apply(script: str, there: frozenset[Element]) -> frozenset[Element]:
    """What nft makes of a script of element commands; KeyError for what it would refuse."""
    present = {(one.where, one.key): one.value for one in there}
    for line in script.splitlines():
        verb, where, body = re.fullmatch(r"(add|delete) element inet t (\w+) \{ (.+) \}", line).groups()
        for entry in body.split(", "):
            key, _, value = entry.partition(" : ")
            if verb == "delete":
                del present[where, key]
            elif (where, key) in present:
                raise KeyError(entry)
            else:
                present[where, key] = value
    return frozenset(Element(where, key, value) for (where, key), value in present.items())


unique_leads = st.lists(leads, max_size=6, unique_by=lambda lead: lead.public)


@given(unique_leads, unique_leads)
def test_a_change_leads_from_what_is_there_to_what_is_wanted(before: list[Lead], after: list[Lead]) -> None:
    """In an order that nft takes: nothing is added twice, nothing removed that is not there."""
    there, wanted = elements_of(before), elements_of(after)
    assert apply(change("t", there, wanted), there) == wanted


def test_a_sleeping_endpoint_keeps_its_counters() -> None:
    awake, asleep = elements_of([Lead(20000, 31000)]), elements_of([Lead(20000)])
    assert {element.where for element in asleep} == {"accepted", "bytes_in", "bytes_out"}
    assert asleep < awake


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("127.0.0.1", "ip daddr 127.0.0.1"),
        ("10.0.0.5", "ip daddr 10.0.0.5"),
        ("0.0.0.0", "meta nfproto ipv4 fib daddr type local"),
    ],
)
def test_clients_of_this_host_are_led_at_each_address(address: str, match: str) -> None:
    assert f"from_here {match} jump lead" in layout("t", (address, "::1"))


def test_nobody_is_led_to_computes_that_would_not_hear_them() -> None:
    """Whoever comes by a network, or by IPv6, to computes on 127.0.0.1."""
    text = layout("t", ("::", "::1", "0.0.0.0"))
    assert "hook prerouting" not in text
    assert text.count("jump lead") == 1


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match="example"):
        layout("t", ("db.example.org",))


@pytest.mark.parametrize("path", ['/tmp/a"b', "/tmp/a\nb", "/tmp/" + "x" * 200, "/tmp/a\\b", "/tmp/{;}"])
def test_a_path_that_nft_could_misread_is_left_out(path: str) -> None:
    assert layout("t", ("127.0.0.1",), data_dir=Path(path)) == layout("t", ("127.0.0.1",))


def test_two_platforms_have_two_tables(tmp_path: Path) -> None:
    assert table_name(tmp_path / "a") != table_name(tmp_path / "b")
    assert table_name(tmp_path / "a") == table_name(tmp_path / "b" / ".." / "a")


def counter(name: str, port: int, packets: int, size: int) -> dict:
    element = {"elem": {"val": port, "counter": {"packets": packets, "bytes": size}}}
    return {"set": {"family": "inet", "name": name, "table": "lamplighter_1", "elem": [element]}}


def test_counters_tell_payload_by_public_port() -> None:
    """Acknowledgements alone are no payload."""
    answer = {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            counter("accepted", 20000, 2, 120),
            counter("bytes_in", 20000, 5, 5 * HEADERS + 1000),
            counter("bytes_out", 20000, 3, 3 * (HEADERS - 12)),
        ]
    }
    assert parse_counters(answer) == {20000: Counted(2, 1000, 0)}


counts = st.integers(0, 1 << 60)
totals = st.builds(Counted, counts, counts, counts)


@given(totals, totals)
def test_what_was_counted_since_is_never_negative(last: Counted, now: Counted) -> None:
    """A counter that was made anew counts from zero."""
    found = since(last, now)
    assert min(found.accepted, found.bytes_in, found.bytes_out) >= 0
    if all(getattr(now, name) >= getattr(last, name) for name in Counted.__slots__):
        assert last.accepted + found.accepted == now.accepted
        assert last.bytes_in + found.bytes_in == now.bytes_in


def test_tables_of_platforms_are_known_by_their_name() -> None:
    answer = {
        "nftables": [
            {"table": {"family": "inet", "name": "filter", "handle": 1}},
            {"table": {"family": "ip", "name": "lamplighter_2", "handle": 2}},
            {"table": {"family": "inet", "name": "lamplighter_1", "handle": 3}},
            {"set": {"family": "inet", "name": "private", "table": "lamplighter_1", "elem": [31000, 31001]}},
            {"set": {"family": "inet", "name": "private", "table": "filter", "elem": [{"range": [1, 2]}]}},
            {"rule": {"family": "inet", "table": "lamplighter_1", "chain": "lead", "expr": [], "comment": "/srv/neon"}},
        ]
    }
    (found,) = parse_tables(answer)
    assert (found.name, found.data_dir, found.privates) == ("lamplighter_1", "/srv/neon", (31000, 31001))
