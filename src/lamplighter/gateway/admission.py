"""Who gets in: what is decided about a connection from its route, its address and how many there are. Pure.

Limits bound memory: what shakes hands holds at most some 100 KiB (a TLS session), a connection that is through none.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from lamplighter.address_ranges import AddressRange, holder_of, read_address, read_range
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
#: Wakes that clients of other hosts may cause, by the address that they come from (of IPv6 its /64), before anybody has
#: proven who they are: so many at once, and so many a minute after that.
WAKES_AT_ONCE = 30
WAKES_A_MINUTE = 10
#: Addresses that are remembered for that. Of more, the one that has caused no wake the longest is forgotten.
WAKERS = 10_000
#: Seconds by which times may differ that would be the same if numbers had no end.
_ROUNDING = 1e-3


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
    found = read_address(address)
    return found is not None and any(found in one for one in _ranges(rules))


def may_wait(*, of_endpoint: int, in_all: int) -> bool:
    """Whether one more may wait for an endpoint, for which so many do.

    The more wait in all, the fewer may for one endpoint: no number of endpoints that do not wake takes all the room.
    """
    return of_endpoint < min(WAITING_OF_ENDPOINT, WAITING - in_all)


class Wakes:
    """A bucket of wakes for each address: full at first, and again when it has caused none for a while.

    Times are in seconds of any clock that does not go back.
    """

    def __init__(self, *, at_once: int = WAKES_AT_ONCE, a_minute: float = WAKES_A_MINUTE, wakers: int = WAKERS) -> None:
        self._each = 60 / a_minute
        self._most = at_once * self._each
        self._wakers = wakers
        #: By address, when its bucket is full again; who caused a wake last is last.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, address: str, now: float) -> bool:
        """Whether this address may cause one more wake, which is then counted."""
        holder = holder_of(address)
        full_at = max(self._full_at.get(holder, now), now) + self._each
        if full_at - now > self._most + _ROUNDING:
            return False
        self._full_at[holder] = full_at
        self._full_at.move_to_end(holder)
        if len(self._full_at) > self._wakers:
            self._full_at.popitem(last=False)
        return True


def is_loopback(address: str) -> bool:
    """Whether a client is on this host, as far as its address tells."""
    found = read_address(address)
    return found is not None and found.is_loopback


@lru_cache(maxsize=1024)
def _ranges(rules: tuple[str, ...]) -> tuple[AddressRange, ...]:
    return tuple(found for rule in rules if (found := read_range(rule)) is not None)
