"""What the kernel is told so that it leads new connections straight to an awake Postgres. Pure.

One nftables table for each platform. Its rules never change; endpoints are elements of its maps and sets, so that a
change is one short transaction. Only a connection's first packet is judged: what is established stays as it is.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lamplighter.address_ranges import read_range
from lamplighter.gateway.ports import Route

PREFIX = "lamplighter_"
#: Bytes of headers that a packet has at least, in IPv4 with TCP's time stamps: counters count whole packets.
HEADERS = 52

# What the kernel knows of a first packet; without this, a connection that was there before the table would be led
# away in its midst when conntrack first sees it.
_FIRST = "tcp flags & (fin | syn | rst | ack) == syn"
_MAPS = {"everybody": "inet_service : inet_service", "chosen": "inet_service : inet_service"}
_SETS = {
    "allowed": "type inet_service . ipv4_addr ; flags interval ;",
    "private": "type inet_service ;",
    "accepted": "type inet_service ; counter ;",
    "bytes_in": "type inet_service ; counter ;",
    "bytes_out": "type inet_service ; counter ;",
}
_CHAINS = {
    "lead": "",
    "coming": "",
    "from_here": "{ type nat hook output priority -100 ; policy accept ; }",
    "arriving": "{ type filter hook input priority 0 ; policy accept ; }",
    "leaving": "{ type filter hook output priority 0 ; policy accept ; }",
}
_LEAD_RULES = (
    f"{_FIRST} redirect to :tcp dport map @everybody",
    f"{_FIRST} tcp dport . ip saddr @allowed redirect to :tcp dport map @chosen",
)
# Every packet of the host passes these: what is not ours leaves at the first word.
_COUNT_RULES = (
    "arriving ct status dnat ct direction original jump coming",
    "coming meta l4proto tcp ct original proto-dst @bytes_in",
    "coming ct state new meta l4proto tcp ct original proto-dst @accepted",
    "leaving ct status dnat ct direction reply meta l4proto tcp ct original proto-dst @bytes_out",
)
_PLAIN = re.compile(r"[\w./ @+,:=~-]{1,120}")


@dataclass(frozen=True, slots=True)
class Lead:
    """An endpoint's public port, and the port that new connections go to; `private` None: to the gateway, all of them.

    `allowed` None is everybody; who is not allowed goes to the gateway too, which says so.
    """

    public: int
    private: int | None = None
    allowed: tuple[ipaddress.IPv4Network, ...] | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """Connections that went past the gateway, and what they carried in bytes, without headers as far as can be told."""

    accepted: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A platform's table as it is found. `data_dir` None where the path could not be written into it."""

    name: str
    data_dir: str | None
    privates: tuple[int, ...]


class Element(NamedTuple):
    """One entry of a map or set; `value` is what a map leads to."""

    where: str
    key: str
    value: str = ""


def table_name(data_dir: Path) -> str:
    """The table of the platform in `data_dir`, by the same hash as its run directory."""
    return PREFIX + hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:8]


# --- What is wanted -----------------------------------------------------------------------------------------------


def lead_of(route: Route) -> Lead:
    """Where the kernel is to lead this endpoint's connections.

    Only to a Postgres that is awake and speaks TLS itself: where it does not, the gateway ends TLS for it. The pooled
    port is the gateway's always: PgBouncer knows no channel binding, which Neon's connection strings ask for.
    """
    backend = route.compute
    if route.state != "awake" or backend is None or not backend.tls:
        return Lead(route.port)
    return Lead(route.port, backend.port, None if route.allowed is None else networks(route.allowed))


def networks(allowed: Iterable[str]) -> tuple[ipaddress.IPv4Network, ...]:
    """Addresses, `a-b` ranges and CIDR blocks as blocks that do not overlap, which nftables would refuse.

    Those of IPv6 are left out, and what cannot be read: who they mean goes by the gateway.
    """
    ranges = [found for entry in allowed if (found := read_range(entry)) is not None]
    blocks = [block for one in ranges for block in one.networks]
    return tuple(ipaddress.collapse_addresses(one for one in blocks if isinstance(one, ipaddress.IPv4Network)))


def elements(lead: Lead) -> Iterable[Element]:
    """All entries of one endpoint. Its counters are there while it sleeps, too: they count on after the next wake."""
    public = str(lead.public)
    for counter in ("accepted", "bytes_in", "bytes_out"):
        yield Element(counter, public)
    if lead.private is None:
        return
    yield Element("private", str(lead.private))
    yield Element("everybody" if lead.allowed is None else "chosen", public, str(lead.private))
    for block in lead.allowed or ():
        yield Element("allowed", f"{public} . {block}")


def elements_of(leads: Iterable[Lead]) -> frozenset[Element]:
    return frozenset(element for lead in leads for element in elements(lead))


# --- What is said to nft ------------------------------------------------------------------------------------------


def layout(name: str, addresses: Sequence[str], *, data_dir: Path | None = None) -> str:
    """The table with its rules and no element, whatever there was of it before.

    `addresses` are those that clients connect to. Computes listen on 127.0.0.1: led is who comes from this host by
    IPv4. Connections established by it live on: the table is never away. Raises ValueError for what is no address.
    """
    table = f"inet {name}"
    lines = [f"add table {table}"]
    lines += [f"add map {table} {one} {{ type {kind} ; }}" for one, kind in _MAPS.items()]
    lines += [f"add set {table} {one} {{ {kind} }}" for one, kind in _SETS.items()]
    lines += [f"add chain {table} {one} {hook}".rstrip() for one, hook in _CHAINS.items()]
    lines.append(f"flush table {table}")
    lines += [f"flush map {table} {one}" for one in _MAPS]
    lines += [f"flush set {table} {one}" for one in _SETS]
    lines += [f"add rule {table} {rule}" for rule in _rules(addresses, _note(data_dir))]
    return "\n".join(lines) + "\n"


def _note(data_dir: Path | None) -> str:
    # With a rule and not with the table, whose comment older programs leave out of their JSON.
    return f' comment "{data_dir}"' if data_dir is not None and _PLAIN.fullmatch(str(data_dir)) else ""


def _rules(addresses: Sequence[str], note: str) -> Iterable[str]:
    for rule in _LEAD_RULES:
        yield f"lead {rule}{note}"
    for address in map(ipaddress.ip_address, addresses):
        if address.version == 4:
            to = "meta nfproto ipv4 fib daddr type local" if address.is_unspecified else f"ip daddr {address}"
            yield f"from_here {to} jump lead"
    yield from _COUNT_RULES


def change(name: str, before: Collection[Element], after: Collection[Element]) -> str:
    """From the elements that are there to those that shall be: what goes first, since a port may pass on."""
    gone, new = frozenset(before) - frozenset(after), frozenset(after) - frozenset(before)
    return "".join(
        [
            *_commands("delete", name, {element._replace(value="") for element in gone}),
            *_commands("add", name, new),
        ]
    )


def _commands(verb: str, name: str, which: Iterable[Element]) -> Iterable[str]:
    grouped: dict[str, list[str]] = {}
    for where, key, value in sorted(which):
        grouped.setdefault(where, []).append(f"{key} : {value}" if value else key)
    for where, entries in grouped.items():
        yield f"{verb} element inet {name} {where} {{ {', '.join(entries)} }}\n"


def withdrawal(name: str) -> str:
    """No new connection is led; those that are established go on. Refused where there is no such table."""
    return "".join(f"flush map inet {name} {one}\n" for one in _MAPS)


def deletion(name: str) -> str:
    """The table goes, if there is one. Connections established by it break: the kernel forgets how to lead them."""
    return f"add table inet {name}\ndelete table inet {name}\n"


# --- What nft answers ---------------------------------------------------------------------------------------------

Json = Mapping[str, Any]


def parse_tables(answer: Json) -> list[Table]:
    """The tables of platforms in `nft -j list ruleset inet`."""
    names: list[str] = []
    notes: dict[str, str] = {}
    privates: dict[str, tuple[int, ...]] = {}
    for kind, body in (item for entry in answer.get("nftables", ()) for item in entry.items()):
        if kind == "table" and body["family"] == "inet" and body["name"].startswith(PREFIX):
            names.append(body["name"])
        elif kind == "rule" and body["chain"] == "lead" and "comment" in body:
            notes[body["table"]] = body["comment"]
        elif kind == "set" and body["name"] == "private" and body["table"] in names:
            privates[body["table"]] = tuple(int(_value(one)) for one in body.get("elem", ()))
    return [Table(name, notes.get(name), privates.get(name, ())) for name in sorted(names)]


def parse_counters(answer: Json) -> dict[int, Counted]:
    """Totals by public port in `nft -j list table`."""
    found: dict[str, dict[int, tuple[int, int]]] = {}
    for entry in answer.get("nftables", ()):
        body = entry.get("set")
        if body is not None and body["name"] in ("accepted", "bytes_in", "bytes_out"):
            found[body["name"]] = {int(_value(one)): _counter(one) for one in body.get("elem", ())}
    nothing = (0, 0)
    return {
        port: Counted(
            packets,
            _payload(*found.get("bytes_in", {}).get(port, nothing)),
            _payload(*found.get("bytes_out", {}).get(port, nothing)),
        )
        for port, (packets, _) in found.get("accepted", {}).items()
    }


def _value(element: Any) -> Any:
    return element["elem"]["val"] if isinstance(element, dict) else element


def _counter(element: Any) -> tuple[int, int]:
    counter = element["elem"].get("counter", {}) if isinstance(element, dict) else {}
    return counter.get("packets", 0), counter.get("bytes", 0)


def _payload(packets: int, size: int) -> int:
    return max(0, size - packets * HEADERS)


def since(last: Counted, now: Counted) -> Counted:
    """What was added; a counter that is lower than it was has begun anew."""
    if now.accepted < last.accepted or now.bytes_in < last.bytes_in or now.bytes_out < last.bytes_out:
        return now
    return Counted(now.accepted - last.accepted, now.bytes_in - last.bytes_in, now.bytes_out - last.bytes_out)
