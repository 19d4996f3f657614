"""Rules about addresses as Neon's `allowed_ips` has them: single addresses, CIDR blocks, `a-b` ranges. Pure.

An IPv4 address in IPv6 clothes (`::ffff:192.0.2.1`), which is how a socket of both families names it, is the IPv4 one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Bits of an IPv6 address that tell who has it: whoever has one has a whole /64 of them.
HOLDER_BITS = 64


@dataclass(frozen=True, slots=True)
class AddressRange:
    """From `low` to `high`, both included, of one version."""

    low: Address
    high: Address

    def __contains__(self, address: Address) -> bool:
        return address.version == self.low.version and int(self.low) <= int(address) <= int(self.high)

    @property
    def networks(self) -> Sequence[Network]:
        """The fewest blocks that hold the same addresses."""
        if isinstance(self.low, IPv4Address) and isinstance(self.high, IPv4Address):
            return list(summarize_address_range(self.low, self.high))
        assert isinstance(self.low, IPv6Address)
        assert isinstance(self.high, IPv6Address)
        return list(summarize_address_range(self.low, self.high))


def read_address(text: str) -> Address | None:
    """What a peer's address is, its interface (`%eth0`) left out; None for what is no address."""
    try:
        return _plain(ip_address(text.strip().partition("%")[0]))
    except ValueError:
        return None


def read_range(rule: str) -> AddressRange | None:
    """None for what is no rule: also for a range whose ends are in the wrong order, or of two versions."""
    first, dash, last = (part.strip() for part in rule.partition("-"))
    try:
        if dash:
            low, high = ip_address(first), ip_address(last)
        else:
            network = ip_network(first, strict=False)
            low, high = network[0], network[-1]
    except ValueError:
        return None
    if _plain(low).version == _plain(high).version:
        # A block that is wider than the mapped addresses would else begin and end in different versions.
        low, high = _plain(low), _plain(high)
    return AddressRange(low, high) if low.version == high.version and int(low) <= int(high) else None


def holder_of(address: str) -> str:
    """Who has this address, as far as that can be told: it itself, of IPv6 its /64. What is none stands for itself."""
    found = read_address(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found), HOLDER_BITS), strict=False))
    return address if found is None else str(found)


def of_this_host(peer: str | None, local: str | None) -> bool:
    """Whether a connection comes from the host that it leads to, by its two addresses.

    So it does by the loopback address, and where they are the same: Linux connects to an address of its own from that.
    """
    found = read_address(peer or "")
    return found is not None and (found.is_loopback or found == read_address(local or ""))


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
