"""The platform's end of a gateway that really runs, without computes: its start, its end, and rules that cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lamplighter.api.errors import Unavailable
from lamplighter.control.ports import Door
from lamplighter.gateway.ports import Backend, Listening, Report
from lamplighter.platform import gateway_processes
from lamplighter.platform.gateway import LocalGateway
from lamplighter.platform.redirect import Redirects, find_program
from lamplighter.platform.redirect_plan import Counted
from support.front import free_port
from support.waiting import eventually


@dataclass
class Below:
    """A machine whose computes are ports, on which nobody need listen."""

    computes: dict[str, int] = field(default_factory=dict)
    pools: bool = False

    def backends(self, endpoint_id: str) -> tuple[Backend | None, Backend | None]:
        port = self.computes.get(endpoint_id)
        return (None if port is None else Backend("127.0.0.1", port, tls=True)), None

    def log_of(self, endpoint_id: str, *, pooler: bool = False) -> Path:
        return Path(f"{endpoint_id}.log")

    async def verifier(self, endpoint_id: str, role: str) -> str | None:
        return None

    async def wake(self, endpoint_id: str) -> bool:
        return False

    async def pool(self, endpoint_id: str) -> None: ...

    def woken(self, endpoint_id: str, seconds: float, *, ok: bool) -> None: ...

    def reported(self, report: Report) -> None: ...

    def led_past(self, endpoint_id: str, counted: Counted) -> None: ...

    async def count_connected(self, endpoint_ids: Iterable[str]) -> None: ...

    def gone(self, endpoint_id: str) -> None: ...

    def lost(self) -> None: ...


@contextlib.asynccontextmanager
async def local(
    place: Path, *, below: Below | None = None, redirects: Redirects | None = None
) -> AsyncIterator[LocalGateway]:
    made = LocalGateway(
        run_dir=place,
        log_file=place / "gateway.log",
        listening=Listening(),
        below=below or Below(),
        redirects=redirects,
        endpoint_connections=10,
    )
    try:
        yield made
    finally:
        made.retire()
        await made.close()
    assert not gateway_processes.find(place)


def door(endpoint_id: str = "ep-a") -> Door:
    return Door(endpoint_id, "a-project", free_port(), free_port(), "disabled")


async def answers(port: int) -> bool:
    """Whether a gateway listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


def fronts(place: Path) -> tuple[int, ...]:
    return gateway_processes.find(place).fronts


async def test_a_gateway_that_begins_when_nobody_may_come_any_more_ends_at_once(place):
    """Its predecessor was killed just before `lamp up` was stopped: it lets nobody in meanwhile."""
    shown = door()
    async with local(place) as gateway:
        await gateway.start([shown])
        (first,) = fronts(place)
        assert await answers(shown.port)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: fronts(place) not in ((), (first,)))
        gateway.retire()
        await eventually(lambda: fronts(place) == ())
        assert not await answers(shown.port)


def has_rule(redirects: Redirects, port: int) -> bool:
    """Whether the kernel leads who connects there."""
    nft = find_program("nft") or "nft"
    listed = subprocess.run([nft, "list", "map", "inet", redirects.name, "everybody"], check=True, capture_output=True)
    return f" {port} : ".encode() in listed.stdout


@pytest.fixture
async def redirects(place: Path) -> AsyncIterator[Redirects]:
    """Of a test that may give it a name which nft does not take."""
    made = Redirects(place)
    name = made.name
    yield made
    made.name = name
    await made.clear()


@pytest.mark.root
async def test_an_endpoint_that_the_kernel_still_leads_to_is_not_gone(place, redirects):
    """Whoever drops it is told so, and the next try takes the rule away."""
    gone, stays = (replace(door(endpoint_id), state="awake") for endpoint_id in ("ep-gone", "ep-stays"))
    below = Below({one.endpoint_id: free_port() for one in (gone, stays)})
    name = redirects.name
    async with local(place, below=below, redirects=redirects) as gateway:
        await gateway.start([gone, stays])
        redirects.name = "this is no name"
        with pytest.raises(Unavailable, match="kernel redirect"):
            await gateway.drop_door(gone.endpoint_id)
        redirects.name = name
        assert has_rule(redirects, gone.port)
        await gateway.drop_door(gone.endpoint_id)
        assert not has_rule(redirects, gone.port)
        assert has_rule(redirects, stays.port)
        assert set(gateway.doors) == {stays.endpoint_id}


@pytest.mark.root
async def test_where_the_rules_cannot_be_made_connections_go_by_the_relay(place, redirects):
    shown = replace(door(), state="awake")
    name, redirects.name = redirects.name, "this is no name"
    async with local(place, below=Below({shown.endpoint_id: free_port()}), redirects=redirects) as gateway:
        await gateway.start([shown])
        redirects.name = name
        assert await answers(shown.port)
        # Nothing is to be taken away.
        await gateway.drop_door(shown.endpoint_id)
