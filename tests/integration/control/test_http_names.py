"""Names of roles and databases with characters that mean something in a path."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from support.lamp import Lamp

NAMES = ["a/b", "/", "50%", "a b", "a?b#c", "ä/ö", "%2F", "../roles"]


@pytest.fixture(scope="module")
def branch(lamp: Lamp) -> Iterator[str]:
    made = lamp.project(name="names")
    yield f"/projects/{made['project']['id']}/branches/{made['branch']['id']}"
    lamp.call("DELETE", f"/projects/{made['project']['id']}")


@pytest.mark.parametrize("name", NAMES)
def test_a_role_and_a_database_of_any_name_can_be_addressed(lamp: Lamp, branch: str, name: str):
    project_id = branch.split("/")[2]
    for kind, one, body in (
        ("roles", "role", {"name": name}),
        ("databases", "database", {"name": name, "owner_name": name}),
    ):
        lamp.call("POST", f"{branch}/{kind}", {one: body})
        lamp.settle(project_id)
        assert lamp.call("GET", f"{branch}/{kind}/{quote(name, safe='')}")[one]["name"] == name
    for kind in ("databases", "roles"):
        lamp.call("DELETE", f"{branch}/{kind}/{quote(name, safe='')}")
        lamp.settle(project_id)
        assert name not in [each["name"] for each in lamp.call("GET", f"{branch}/{kind}")[kind]]
