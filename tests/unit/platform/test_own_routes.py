"""Whose address a connection string names, and a line of `lamp endpoints top`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.requests import Request

from lamplighter.control.ports import Door, DoorState
from lamplighter.gateway.admission import Wakes
from lamplighter.gateway.ports import Route
from lamplighter.gateway.routes import RouteTable
from lamplighter.gateway.serverless import NotAllowed, SqlFailed, TooBusy
from lamplighter.gateway.web import Doors
from lamplighter.platform.own_routes import StrangersWakes, door_at, is_of_this_host, target_of

A = Door("ep-a", "p", 20_000, 20_001, "awake")
B = Door("ep-b", "p", 20_002, 20_003, "asleep")
DOORS = {door.endpoint_id: door for door in (A, B)}
STRANGER, HERE = "192.0.2.77", "192.0.2.1"


def test_an_endpoint_is_named_by_the_first_part_of_the_host():
    assert door_at(DOORS, "ep-a.us-east-2.aws.neon.tech", None) is A
    assert door_at(DOORS, "EP-B-pooler.db.example.org", 5432) is B


def test_an_endpoint_is_named_by_its_port():
    assert door_at(DOORS, "127.0.0.1", 20_000) is A
    assert door_at(DOORS, "127.0.0.1", 20_003) is B
    assert door_at(DOORS, "db.internal", 20_002) is B


def test_the_name_counts_more_than_the_port():
    assert door_at(DOORS, "ep-a.example.org", 20_002) is A


def test_what_is_no_endpoint_leads_nowhere():
    assert door_at(DOORS, "127.0.0.1", None) is None
    assert door_at(DOORS, "127.0.0.1", 5432) is None
    assert door_at(DOORS, "169.254.169.254", 80) is None
    assert door_at({}, "ep-a", 20_000) is None


@dataclass
class Told:
    """What of the gateway matters here."""

    doors_dir: Path | None
    doors: dict[str, Door] = field(default_factory=lambda: DOORS)


CLOSED = Door("ep-c", "p", 20_004, 20_005, "asleep", ("192.0.2.77",))


@pytest.fixture
def doors_dir(tmp_path: Path) -> Path:
    """Of a gateway that has been told of all doors."""
    for port in (A.port, B.port, CLOSED.port):
        (tmp_path / f".s.PGSQL.{port}").touch()
    return tmp_path


@pytest.mark.parametrize("door", [A, CLOSED])
async def test_a_callers_address_is_looked_at_once(door: Door, doors_dir: Path):
    """Then it goes by the Unix door, which asks neither for it nor for TLS, whatever address the gateway listens on."""
    gateway = cast("Any", Told(doors_dir, {door.endpoint_id: door}))
    table = RouteTable()
    table.set(Route(door.endpoint_id, "p", "asleep", door.port, allowed=door.allowed))
    inside = Doors(table, address="192.0.2.2", unix=doors_dir)
    ours = await target_of(gateway, door.endpoint_id, None, wakes=StrangersWakes())
    for target in (ours, await inside.resolve(door.endpoint_id, None)):
        assert target.unix_path == f"{doors_dir}/.s.PGSQL.{door.port}"
        target.check({"client": ("192.0.2.77", 1)})
        if door.allowed is not None:
            with pytest.raises(NotAllowed):
                target.check({"client": ("127.0.0.1", 1)})


async def test_a_gateway_that_is_away_is_told():
    with pytest.raises(TooBusy, match="being started"):
        await target_of(cast("Any", Told(None)), "ep-a", None, wakes=StrangersWakes(), patience=0)


@dataclass
class Coming:
    """A gateway that is away at the first look, without doors at the second, and has them at the third."""

    place: Path
    doors: dict[str, Door] = field(default_factory=lambda: DOORS)
    looks: int = 0

    @property
    def doors_dir(self) -> Path | None:
        self.looks += 1
        if self.looks == 3:
            (self.place / f".s.PGSQL.{A.port}").touch()
        return None if self.looks == 1 else self.place


async def test_a_gateway_that_is_away_is_waited_for(tmp_path: Path):
    gateway = Coming(tmp_path)
    target = await target_of(cast("Any", gateway), "ep-a", None, wakes=StrangersWakes())
    assert (target.unix_path, gateway.looks) == (f"{tmp_path}/.s.PGSQL.{A.port}", 3)


def asked(client: str, *headers: str) -> Request:
    pairs = [(name.encode(), b"192.0.2.1") for name in headers]
    return Request({"type": "http", "client": (client, 5), "headers": pairs})


@pytest.mark.parametrize("client", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_who_asks_by_the_loopback_address_is_of_this_host_unless_it_is_a_proxy(client: str):
    assert is_of_this_host(asked(client, "accept", "x-forward"))
    for header in ("forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"):
        assert not is_of_this_host(asked(client, header))


@pytest.mark.parametrize("client", [STRANGER, "2001:db8::1", "", "unix"])
def test_whoever_else_asks_is_not(client: str):
    assert not is_of_this_host(asked(client))


class Callers:
    """Calls by the API's port, from an address, to what is shown of an endpoint by then."""

    def __init__(self, doors_dir: Path, at_once: int) -> None:
        self._doors = dict(DOORS)
        self._gateway = cast("Any", Told(doors_dir, self._doors))
        self.wakes = StrangersWakes(Wakes(at_once=at_once))

    def show(self, endpoint_id: str, state: DoorState) -> None:
        self._doors[endpoint_id] = Door(endpoint_id, "p", 20_002, 20_003, state)

    async def call(self, endpoint_id: str, client: str = STRANGER) -> None:
        target = await target_of(self._gateway, endpoint_id, None, wakes=self.wakes)
        target.check({"client": (client, 5), "server": (HERE, 7432)})


async def test_strangers_wake_so_much_and_no_more(doors_dir: Path):
    """Those of this host, by its loopback or its own address, are not counted."""
    callers = Callers(doors_dir, at_once=2)
    for _ in range(2):
        callers.show("ep-b", "asleep")
        await callers.call("ep-b")
    callers.show("ep-b", "asleep")
    with pytest.raises(SqlFailed, match="too many have been woken") as refused:
        await callers.call("ep-b")
    assert refused.value.fields["code"] == "53300"
    for client in ("127.0.0.1", HERE, "192.0.2.78"):
        await callers.call("ep-b", client)


@pytest.mark.parametrize("state", ["awake", "holding", "disabled"])
async def test_who_causes_no_start_is_not_counted(state: DoorState, doors_dir: Path):
    callers = Callers(doors_dir, at_once=1)
    callers.show("ep-b", state)
    for _ in range(3):
        await callers.call("ep-b")
    callers.show("ep-b", "asleep")
    await callers.call("ep-b")


async def test_a_herd_of_strangers_is_one_wake(doors_dir: Path):
    """Until its door is shown anew: then the start that was paid for has been, or has failed."""
    callers = Callers(doors_dir, at_once=2)
    callers.show("ep-b", "asleep")
    callers.show("ep-c", "asleep")
    for endpoint_id in ("ep-b", "ep-c", "ep-b", "ep-c"):
        await callers.call(endpoint_id)
    callers.show("ep-b", "asleep")
    with pytest.raises(SqlFailed):
        await callers.call("ep-b")
    await callers.call("ep-c")
