"""Whose address a connection string names, and a line of `lamp endpoints top`."""

from __future__ import annotations

from lamplighter.control.ports import Door
from lamplighter.platform.own_routes import door_at

A = Door("ep-a", "p", 20_000, 20_001, "awake")
B = Door("ep-b", "p", 20_002, 20_003, "asleep")
DOORS = {door.endpoint_id: door for door in (A, B)}


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
