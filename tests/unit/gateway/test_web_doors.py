"""Where a connection string leads to, by the address to which it was sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamplighter.gateway.ports import Route
from lamplighter.gateway.routes import RouteTable
from lamplighter.gateway.serverless import SqlFailed
from lamplighter.gateway.web import Doors

A = Route("ep-a", "p", "asleep", 20_000, pooler_port=20_001)
B = Route("ep-b", "p", "asleep", 20_002, pooler_port=20_003)
#: Where names tell endpoints apart.
DOMAINS = 5432


@pytest.fixture
def doors() -> Doors:
    table = RouteTable()
    table.replace([A, B])
    return Doors(table, address="127.0.0.1", unix=Path("/run/g.sock.d"))


def came_to(port: int, host: str) -> dict[str, object]:
    return {"client": ("127.0.0.1", 0), "server": ("127.0.0.1", port), "headers": [(b"Host", host.encode())]}


@pytest.mark.parametrize(
    ("port", "host"),
    [
        (20_002, "127.0.0.1:20002"),
        (20_003, "127.0.0.1:20003"),
        (20_002, "ep-a.db.example.org:20002"),
        (DOMAINS, "ep-b.db.example.org:5432"),
        (DOMAINS, "EP-B-pooler.db.example.org"),
        (DOMAINS, "api.db.example.org"),
        (DOMAINS, "127.0.0.1:5432"),
        (DOMAINS, "[::1]:5432"),
    ],
)
@pytest.mark.parametrize("named", ["ep-b.db.example.org", "ep-b-pooler.us-east-2.aws.neon.tech"])
async def test_an_endpoints_own_address_leads_to_it(doors: Doors, port: int, host: str, named: str):
    """Direct or pooled; an address that is no endpoint's leads to all."""
    (await doors.resolve(named, 5432)).check(came_to(port, host))


@pytest.mark.parametrize(
    ("port", "host"),
    [
        (20_000, "127.0.0.1:20000"),
        (20_001, "ep-b.db.example.org:20001"),
        (DOMAINS, "ep-a.db.example.org:5432"),
        (DOMAINS, "ep-a-pooler.db.example.org"),
    ],
)
async def test_another_endpoints_address_does_not(doors: Doors, port: int, host: str):
    """Whoever was let as far as one of them is not led to the next."""
    target = await doors.resolve("ep-b.db.example.org", 5432)
    with pytest.raises(SqlFailed, match="names the endpoint 'ep-b', and this is the address of another one"):
        target.check(came_to(port, host))


async def test_who_does_not_say_where_it_came(doors: Doors):
    """As over the API's port."""
    target = await doors.resolve("127.0.0.1", 20_000)
    target.check({"client": ("127.0.0.1", 0)})
