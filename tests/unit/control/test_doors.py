"""What an endpoint's address leads to, as its rows and its compute say."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.control.features.endpoints.doors import Doors, allowed_addresses, door_of
from lamplighter.control.features.endpoints.store import DoorRow
from lamplighter.control.kernel import Kernel


def row(**changes):
    known = {
        "endpoint_id": "ep-a",
        "project_id": "p",
        "port": 20_000,
        "pooler_port": 20_001,
        "current_state": "active",
        "disabled": False,
        "protected": False,
        "allowed_ips": {},
    }
    return DoorRow(**{**known, **changes})


def state(*, running=True, held=False, opened=False, **changes):
    return door_of(row(**changes), running=running, held=held, opened=opened).state


def test_an_active_endpoint_that_runs_is_awake():
    assert state() == "awake"


def test_a_compute_that_runs_is_not_reached_before_its_start_is_done():
    assert state(current_state="init") == "asleep"
    assert state(current_state="init", opened=True) == "awake"


def test_what_does_not_run_is_asleep_whatever_the_catalog_says():
    assert state(running=False) == "asleep"
    assert state(running=False, opened=True) == "asleep"


def test_connections_wait_while_it_is_started_or_stopped():
    assert state(held=True) == "holding"


@given(st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["init", "active", "idle"]))
def test_a_disabled_endpoint_lets_nobody_in(running, held, opened, current):
    assert state(running=running, held=held, opened=opened, current_state=current, disabled=True) == "disabled"


def test_everybody_is_let_in_where_nothing_is_said():
    assert allowed_addresses({}, protected=True) is None
    assert allowed_addresses({"ips": []}, protected=True) is None


def test_addresses_may_count_for_protected_branches_alone():
    settings = {"ips": ["10.0.0.1"], "protected_branches_only": True}
    assert allowed_addresses(settings, protected=True) == ("10.0.0.1",)
    assert allowed_addresses(settings, protected=False) is None
    assert allowed_addresses({"ips": ["10.0.0.1"]}, protected=False) == ("10.0.0.1",)


class OneRow:
    """A catalog whose every query finds one active endpoint, a machine on which it runs, and a gateway."""

    def __init__(self) -> None:
        self.doors: dict[str, Any] = {}

    @asynccontextmanager
    async def connection(self):
        yield self

    @asynccontextmanager
    async def cursor(self, **_options):
        yield self

    async def execute(self, *_words):
        return self

    async def fetchall(self):
        return [row()]

    def is_running(self, _compute_id):
        return True

    async def set_door(self, door):
        self.doors[door.endpoint_id] = door

    @property
    def state(self) -> str:
        return self.doors["ep-a"].state


@pytest.fixture
def world() -> OneRow:
    return OneRow()


@pytest.fixture
def doors(world) -> Doors:
    one = cast("Any", world)
    return Doors(Kernel(catalog=one, plane=one, gateway=one, wake=lambda: None, sealer=one))


async def test_a_look_that_ends_does_not_open_what_an_operation_holds(doors, world):
    """Else clients would be led to a compute that is being stopped."""
    await doors.hold_to_look("ep-a")
    assert world.state == "holding"
    await doors.hold("ep-a")
    await doors.looked("ep-a")
    assert world.state == "holding"
    await doors.release("ep-a")
    assert world.state == "awake"


async def test_a_look_that_found_somebody_opens_the_door_again(doors, world):
    await doors.hold_to_look("ep-a")
    await doors.looked("ep-a")
    assert world.state == "awake"


@pytest.mark.parametrize("end", ["open", "release"])
async def test_an_operation_that_was_scheduled_by_a_look_lets_go_of_the_door(doors, world, end):
    await doors.hold_to_look("ep-a")
    await doors.hold("ep-a")
    await getattr(doors, end)("ep-a")
    assert world.state == "awake"


def test_who_was_put_to_sleep_is_told_once(doors):
    doors.note_slept("ep-a", "idle")
    doors.note_slept("ep-b", "api")
    assert doors.take_slept() == [("ep-a", "idle"), ("ep-b", "api")]
    assert doors.take_slept() == []
