"""(d) Many branches of one parent, all awake: the time of each, memory and disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.branching import branch_once
from benchmarks.harness import Report, Result, load
from support.lamp import Lamp, uri_of


def available_memory() -> int:
    """Bytes that the kernel could give to new processes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no MemAvailable in /proc/meminfo")


def disk(lamp: Lamp) -> int:
    """Bytes in use where the volumes lie."""
    pool = lamp.data_dir / "storage" / "pool"
    return shutil.disk_usage(pool if pool.is_dir() else lamp.data_dir).used


def run(lamp: Lamp, report: Report, *, driver: str, branches: int) -> None:
    made = lamp.project(name="many")
    project_id, endpoint_id = made["project"]["id"], made["endpoints"][0]["id"]
    load(uri_of(made), "1 GiB")
    # Overlay shares what was frozen, and freezes when a sleeping parent is branched: once, before the measured ones.
    lamp.call("POST", f"/projects/{project_id}/endpoints/{endpoint_id}/suspend")
    lamp.settle(project_id)
    lamp.branch(project_id, endpoint=False)
    lamp.call("POST", f"/projects/{project_id}/endpoints/{endpoint_id}/start")
    lamp.settle(project_id)
    memory, space = available_memory(), disk(lamp)
    times = []
    for number in range(branches):
        milliseconds, _ = branch_once(lamp, project_id, number)
        lamp.settle(project_id)
        times.append(milliseconds)
    memory, space = (memory - available_memory()) / branches, (disk(lamp) - space) / branches
    note = f"{memory / 2**20:.1f} MiB memory and {space / 2**20:.1f} MiB disk a branch"
    report.add(Result("d many", f"{driver}, first 20", "1 GiB", times[:20]))
    report.add(Result("d many", f"{driver}, last 20 of {branches}", "1 GiB", times[-20:], note))
    lamp.call("DELETE", f"/projects/{project_id}")
