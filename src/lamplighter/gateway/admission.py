"""Who gets in: what is decided about a connection from its route, its address and how many there are. Pure.

Limits bound memory: what shakes hands holds at most some 100 KiB (a TLS session), a connection that is through none.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from lamplighter.gateway import refusals
from lamplighter.gateway.ports import Backend, Route
from lamplighter.gateway.refusals import Refusal

#: Connections that shake hands, in all. Beyond it the oldest one that waits for its client gives way, else the new one.
HANDSHAKES = 2000
#: Of these, at one port, and at the domain's port: a herd before one door leaves room before the others.
HANDSHAKES_OF_PORT = 1000
HANDSHAKES_OF_DOMAIN = 1500
#: Connections that wait for an endpoint to wake or to answer, in all and for one endpoint. They are not counted above.
WAITING = 4000
WAITING_OF_ENDPOINT = 1000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Go:
    """Connect it to this."""

    backend: Backend


@dataclass(frozen=True, slots=True)
class WakeFirst:
    """Wait until the endpoint is awake."""


Decision = Refusal | WakeFirst | Go


def decide(route: Route | None, *, pooled: bool, address: str | None, connections: int) -> Decision:
    """What to do with a connection for this route. `address` None: it was checked before, or comes from ourselves.

    `connections` are those that the endpoint has now. Who may not come learns nothing of the endpoint's state.
    """
    if route is None:
        return refusals.unknown_endpoint()
    refusal = _refusal(route, address, connections)
    if refusal is not None:
        return refusal
    if route.state != "awake" or route.compute is None:
        return WakeFirst()
    if not pooled:
        return Go(route.compute)
    if route.pooler is not None:
        return Go(route.pooler)
    return WakeFirst() if route.pools else refusals.no_pooler()


def _refusal(route: Route, address: str | None, connections: int) -> Refusal | None:
    if address is not None and not allowed(address, route.allowed):
        return refusals.not_allowed(address)
    if route.state == "disabled":
        return refusals.disabled()
    if connections >= route.max_connections:
        return refusals.too_many_connections(route.max_connections)
    return None


def allowed(address: str, rules: tuple[str, ...] | None) -> bool:
    """Whether an address is in one of the rules: single addresses, `a-b` ranges, CIDR blocks. None lets all in.

    An IPv4 address in IPv6 clothes (`::ffff:192.0.2.1`) is the IPv4 address. A rule that cannot be read lets nobody in.
    """
    if rules is None:
        return True
    found = _address(address)
    return found is not None and any(
        low.version == found.version and int(low) <= int(found) <= int(high) for low, high in _ranges(rules)
    )


def may_wait(*, of_endpoint: int, in_all: int) -> bool:
    """Whether one more may wait for an endpoint, for which so many do.

    The more wait in all, the fewer may for one endpoint: no number of endpoints that do not wake takes all the room.
    """
    return of_endpoint < min(WAITING_OF_ENDPOINT, WAITING - in_all)


def is_loopback(address: str) -> bool:
    """Whether a client is on this host, as far as its address tells."""
    found = _address(address)
    return found is not None and found.is_loopback


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


@lru_cache(maxsize=1024)
def _ranges(rules: tuple[str, ...]) -> tuple[tuple[Address, Address], ...]:
    return tuple(found for rule in rules if (found := _range(rule)) is not None)


def _range(rule: str) -> tuple[Address, Address] | None:
    first, dash, last = rule.partition("-")
    if dash:
        low, high = _address(first), _address(last)
        return (low, high) if low is not None and high is not None and low.version == high.version else None
    try:
        network = ipaddress.ip_network(rule.strip(), strict=False)
    except ValueError:
        return None
    low, high = _address(str(network[0])), _address(str(network[-1]))
    # A block of mapped addresses that reaches beyond them would begin and end in different families.
    return (low, high) if low is not None and high is not None and low.version == high.version else None
