"""What the gateway tells its platform of ports that are taken twice, and of connections that its relay cannot have."""

from __future__ import annotations

import itertools
import resource
from pathlib import Path

import psycopg
import pytest

from support.waiting import eventually


def first_free_file(pid: int) -> int:
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in itertools.count() if number not in used)


async def test_an_endpoint_whose_port_another_one_has_is_told_of(platform, endpoint):
    """By the answer to the one route that is new, too."""
    late = await platform.add("ep-late")
    done = await platform.set(late.id, pooler_port=endpoint.route.port)
    assert done.problems == (f"port {endpoint.route.port} of {late.id} belongs to {endpoint.id}",)
    assert (await platform.set(late.id, pooler_port=None)).problems == ()


async def test_a_client_that_the_relay_has_no_files_for_is_counted(own, own_endpoint):
    """The front takes the relay for one that has room."""
    assert await own_endpoint.select() == 42
    await eventually(lambda: own.open_of(own_endpoint.id) == 0)
    (relay,) = own.gateway.relays()
    before = resource.prlimit(relay, resource.RLIMIT_NOFILE)
    resource.prlimit(relay, resource.RLIMIT_NOFILE, (first_free_file(relay), before[1]))
    with pytest.raises(psycopg.OperationalError):
        await own_endpoint.select()
    await eventually(lambda: own.refused["relay_full"] == 1)
    await eventually(lambda: own.open_of(own_endpoint.id) == 0)
    resource.prlimit(relay, resource.RLIMIT_NOFILE, before)
    assert await own_endpoint.select() == 42
