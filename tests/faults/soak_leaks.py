"""What a platform holds while all its endpoints sleep, and what is left when it has gone."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from faults import world
from faults.soak_client import Place
from faults.soak_strikes import Strikes, below
from lamplighter.platform.machine import CATALOG_CONNECTIONS
from lamplighter.platform.redirect import leftover
from lamplighter.platform.settings import run_dir_of
from support.lamp import Lamp, wait_for

MIB = 2**20
#: Descriptors that may come and go with nobody there: kept HTTP connections, and the catalog's pool of the platform.
LOOSE_FDS = {"platform": 8 + CATALOG_CONNECTIONS, "gateway": 4, "relay": 2}
#: What a Python process may take more from one look to a later one.
LOOSE_BYTES = 24 * MIB
SETTLE_SECONDS = 60.0


@dataclass(frozen=True)
class Footprint:
    """Of one process: open descriptors, and bytes with shared pages split among those who share them (PSS)."""

    pid: int
    age_seconds: int
    fds: int
    pss: int


@dataclass(frozen=True)
class Look:
    """All endpoints asleep, nobody connected."""

    when: str
    platform: Footprint
    gateway: Footprint
    relay: Footprint

    def told(self) -> dict[str, Any]:
        return asdict(self)


def footprint(pid: int) -> Footprint:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    age = time.time() - psutil.Process(pid).create_time()
    return Footprint(pid, int(age), len(list(Path(f"/proc/{pid}/fd").iterdir())), int(found[1]) * 1024)


def look(lamp: Lamp, when: str) -> Look:
    """Once all relays of former gateways have gone, which end with their last connection."""
    assert lamp.process is not None
    (gateway,) = lamp.gateways()
    (relay,) = below(gateway)
    return Look(when, footprint(lamp.process.pid), footprint(gateway), footprint(relay.pid))


def settled_look(lamp: Lamp, when: str, base: Look | None) -> tuple[Look, list[str]]:
    """Wait until no process has more descriptors than at first; else a sentence for each that keeps some."""

    def more() -> list[str]:
        now = look(lamp, when)
        if base is None:
            return []
        return [
            f"{name} has {mine.fds} descriptors {when}, and had {first.fds} at first: {_kinds(mine.pid)}"
            for name, loose in LOOSE_FDS.items()
            if (mine := getattr(now, name)).fds > (first := getattr(base, name)).fds + loose
        ]

    problems: list[str] = []

    def settled() -> bool:
        problems[:] = more()
        return not problems

    with contextlib.suppress(TimeoutError):
        wait_for(settled, seconds=SETTLE_SECONDS, every=0.5)
    return look(lamp, when), problems


def _kinds(pid: int) -> dict[str, int]:
    """What its descriptors are, by kind."""
    found: dict[str, int] = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            kind = re.sub(r"[0-9a-f]{6,}|\d+", "N", str(path.readlink()))
            found[kind] = found.get(kind, 0) + 1
    return found


def grown(earlier: Look, later: Look) -> list[str]:
    """Processes that were not replaced meanwhile, and take more memory than they may."""
    return [
        f"{name} took {(mine.pss - first.pss) / MIB:.1f} MiB more from {earlier.when} to {later.when}"
        for name in ("platform", "gateway", "relay")
        if (mine := getattr(later, name)).pid == (first := getattr(earlier, name)).pid
        and mine.pss > first.pss + LOOSE_BYTES
    ]


def segments(creators: set[int], *, since: float) -> list[str]:
    """System V shared memory that one of these has made, and nobody uses. Older ones are of others with such pids."""
    lines = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    head = {name: number for number, name in enumerate(lines[0])}
    return [
        f"shmid {one[head['shmid']]} of {one[head['cpid']]}"
        for one in lines[1:]
        if int(one[head["cpid"]]) in creators and one[head["nattch"]] == "0" and int(one[head["ctime"]]) >= since
    ]


def remains(lamp: Lamp, strikes: Strikes, places: Sequence[Place], *, since: float) -> list[str]:
    """What is left of a platform that was stopped. Gives what ends by itself some seconds. `since`: its first start."""
    run_dir = run_dir_of(lamp.data_dir)
    looks: dict[str, Callable[[], object]] = {
        "postmasters": lamp.postmasters,
        "gateways": lamp.gateways,
        "processes of Postgres": lambda: world.processes(lamp),
        "relays": lambda: [one for one in strikes.relays if one.lives],
        "mounts": lambda: world.mounts(lamp),
        "in the run directory": lambda: sorted(one.name for one in run_dir.glob("*")),
        "shared memory": lambda: segments(strikes.postmasters, since=since),
        "tables of nftables": lambda: [one for one in leftover() if one.data_dir == str(lamp.data_dir)],
        "ports": lambda: [place.address for place in places if _listens(place)],
    }
    left = []
    for what, see in looks.items():
        try:
            wait_for(lambda see=see: not see(), seconds=15, every=0.2)
        except TimeoutError:
            left.append(f"{what}: {see()}")
    return left


def _listens(place: Place) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(place.address, timeout=5).close()
        return True
    return False
