"""Rules about addresses, as texts."""

from __future__ import annotations

import ipaddress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.address_ranges import AddressRange, holder_of, of_this_host, read_address, read_range

four, six = st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda one: one.ipv4_mapped is None)
addresses = four | six
pairs = (st.tuples(four, four) | st.tuples(six, six)).map(sorted)


@given(pairs, addresses)
def test_a_range_holds_what_lies_between(ends, one):
    """Its ends included, and nothing of another version."""
    low, high = ends
    found = read_range(f" {low} - {high}")
    assert found == AddressRange(low, high)
    assert (one in found) == (one.version == low.version and low <= one <= high)
    assert low in found
    assert high in found


@given(pairs)
def test_the_blocks_of_a_range_hold_the_same(ends):
    """Nothing less and nothing more, nothing twice."""
    low, high = ends
    blocks = AddressRange(low, high).networks
    assert (blocks[0][0], blocks[-1][-1]) == (low, high)
    assert all(int(one[-1]) + 1 == int(other[0]) for one, other in pairwise(blocks))


@given(addresses, st.integers(0, 128))
def test_a_block_holds_what_it_is_written_to_hold(base, bits):
    """Whatever address of it is named."""
    block = ipaddress.ip_network((base, min(bits, base.max_prefixlen)), strict=False)
    assert read_range(f"{base}/{block.prefixlen}") == AddressRange(block[0], block[-1])


@given(four, four)
def test_ipv4_in_ipv6_clothes_is_ipv4(one, other):
    """Alone, as an end of a range and as a block."""
    assert read_address(f"::ffff:{one}") == one
    assert read_range(f"::ffff:{one}") == read_range(str(one)) == AddressRange(one, one)
    low, high = sorted((one, other))
    assert read_range(f"::ffff:{low}-{high}") == AddressRange(low, high)
    assert read_range(f"::ffff:{one}/120") == read_range(f"{one}/24")


def test_a_block_wider_than_ipv4s_is_ipv6():
    """Its ends would else be of two versions."""
    assert read_range("::/80") == AddressRange(*(ipaddress.ip_address(end) for end in ("::", "::ffff:ffff:ffff")))


@pytest.mark.parametrize(
    "rule", ["", "x", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", "10.0.0.1-", "-10.0.0.1", "10.0.0.0/33"]
)
def test_what_is_no_rule(rule):
    assert read_range(rule) is None


@given(st.text(max_size=30))
def test_any_text_is_a_rule_or_none(text):
    """Nothing raises, and an address alone is a rule of one."""
    found = read_range(text)
    assert found is None or found.low in found
    address = read_address(text)
    if address is not None and "%" not in text:
        assert found == AddressRange(address, address)


@given(six, st.integers(0, 2**64 - 1), four, four)
def test_who_has_an_ipv6_address_has_its_64(address, within, one, other):
    """Others have others; who has an IPv4 address has that alone, in whatever clothes."""
    neighbour = ipaddress.IPv6Address(int(address) >> 64 << 64 | within)
    if neighbour.ipv4_mapped is None:
        assert holder_of(str(neighbour)) == holder_of(f"{address}%eth0") == holder_of(str(address))
    stranger = ipaddress.IPv6Address(int(address) ^ 1 << 64)
    if stranger.ipv4_mapped is None:
        assert holder_of(str(stranger)) != holder_of(str(address))
    assert (holder_of(str(one)) == holder_of(f"::ffff:{other}")) == (one == other)


@pytest.mark.parametrize(
    ("peer", "local", "here"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("::1", "::1", True),
        ("192.0.2.2", "192.0.2.2", True),
        ("::ffff:192.0.2.2", "192.0.2.2", True),
        ("192.0.2.3", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("192.0.2.3", None, False),
        ("", "", False),
        (None, None, False),
    ],
)
def test_who_is_on_this_host(peer, local, here):
    """By the loopback address, or from the very address that was connected to."""
    assert of_this_host(peer, local) is here
