"""A control plane is killed; the next one finds its postmasters."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import pytest

from lamplighter.compute import process
from lamplighter.compute.places import make_run_dir, places_of
from lamplighter.compute.ports import ComputeSpec
from lamplighter.compute.record import load, save

#: Starts what it is told and waits to be killed.
CONTROL_PLANE = """
import asyncio, json, sys
from pathlib import Path
from lamplighter.compute.binaries import Binaries, default_cache
from lamplighter.compute.ports import ComputeSpec
from lamplighter.compute.supervisor import Supervisor

async def main():
    told = json.loads(sys.argv[1])
    supervisor = Supervisor(Path(told["run_dir"]), builds=Binaries(default_cache()).ensure, owner=tuple(told["owner"]))
    for compute_id, data_dir in told["computes"].items():
        status = await supervisor.start(ComputeSpec(id=compute_id, major=17, data_dir=Path(data_dir)))
        print(status.pid, flush=True)
    print("all", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def run_and_kill(house, computes: dict[str, str]) -> list[int]:
    """Start computes in another process, kill that, and return the pids of the postmasters."""
    told = {"run_dir": str(house.run_dir), "owner": list(house.owner), "computes": computes}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CONTROL_PLANE, json.dumps(told), stdout=asyncio.subprocess.PIPE
    )
    pids = []
    try:
        async with asyncio.timeout(60):
            while (line := await running.stdout.readline()) != b"all\n":
                assert line, "the control plane ended by itself"
                pids.append(int(line))
    finally:
        running.kill()
        await running.wait()
    return pids


async def test_postmasters_outlive_their_control_plane_and_are_adopted(house, until):
    data = {name: str(house.data(name)) for name in ("ep-a", "ep-b", "ep-c")}
    pids = dict(zip(data, await run_and_kill(house, data), strict=True))
    os.kill(pids["ep-b"], signal.SIGKILL)
    await until(lambda: process.start_ticks(pids["ep-b"]) is None)
    supervisor = house.supervisor()
    found = {status.id: status for status in await supervisor.adopt()}
    assert {name: status.state for name, status in found.items()} == {
        "ep-a": "running",
        "ep-b": "crashed",
        "ep-c": "running",
    }
    assert found["ep-a"].pid == pids["ep-a"]
    assert found["ep-b"].reason
    assert supervisor.spec("ep-a").data_dir == house.place / "ep-a"
    # What was adopted is watched as closely as one's own child.
    os.kill(pids["ep-c"], signal.SIGKILL)
    await until(lambda: house.crashes)
    assert house.crashes[0][0] == "ep-c"
    async with await supervisor.connect("ep-a") as connection:
        await connection.execute("SELECT 1")
    await supervisor.stop("ep-a")
    assert process.start_ticks(pids["ep-a"]) is None
    for name in ("ep-b", "ep-c"):
        await supervisor.stop(name)
    assert list(house.run_dir.iterdir()) == []


async def test_a_control_plane_that_died_between_spawn_and_note_is_no_loss(house):
    """The record then has no pid; the postmaster is found by its arguments."""
    data = {"ep-a": str(house.data("ep-a"))}
    (pid,) = await run_and_kill(house, data)
    places = places_of(house.run_dir, "ep-a")
    record = load(places.record)
    save(type(record)(record.spec), places.record)
    supervisor = house.supervisor()
    (status,) = await supervisor.adopt()
    assert (status.state, status.pid) == ("running", pid)
    await supervisor.stop("ep-a")
    assert process.start_ticks(pid) is None


async def test_a_backend_whose_postmaster_and_control_plane_died_is_ended_at_adoption(house, until):
    data = {"ep-a": str(house.data("ep-a"))}
    (pid,) = await run_and_kill(house, data)
    child = process.children(pid)[0]
    os.kill(child, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: process.start_ticks(pid) is None)
    assert process.start_ticks(child) is not None
    (status,) = await house.supervisor().adopt()
    assert status.state == "crashed"
    assert process.start_ticks(child) is None


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"spec": null}'])
async def test_a_record_that_cannot_be_read_is_passed_over(house, content):
    spec = ComputeSpec(id="ep-a", major=17, data_dir=house.data("ep-a"))
    home = places_of(house.run_dir, spec.id).home
    make_run_dir(house.run_dir, house.owner)
    home.mkdir()
    (home / "record.json").write_text(content)
    supervisor = house.supervisor()
    assert list(await supervisor.adopt()) == []
    assert (await supervisor.start(spec)).state == "running"
    await supervisor.stop(spec.id)
    assert list(house.run_dir.iterdir()) == []
