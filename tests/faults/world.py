"""What a platform leaves on the host, compared with what its catalog says there should be; and rows that must survive.

Reads /proc, the data directory and the catalog itself: what the API tells is what is on trial.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from lamplighter.compute.config import SUPERUSER
from lamplighter.compute.places import places_of
from lamplighter.platform.settings import run_dir_of
from support.lamp import Lamp, wait_for

ROLE, DATABASE = "neondb_owner", "neondb"
CATALOG = "catalog"


# --- what the catalog says


@contextlib.contextmanager
def catalog(lamp: Lamp) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A session in the catalog, by its own socket: works while the control plane is dead, too."""
    sockets = places_of(run_dir_of(lamp.data_dir), CATALOG).sockets
    with psycopg.connect(
        host=str(sockets), port=5432, user=SUPERUSER, dbname="lamplighter", autocommit=True, row_factory=dict_row
    ) as conn:
        yield conn


@dataclass(frozen=True)
class Expected:
    """What the catalog asks for. Volumes by id; `busy` are the operations that have not ended."""

    running: frozenset[str]
    volumes: frozenset[str]
    ports: frozenset[int]
    computes: frozenset[str]
    busy: tuple[str, ...]


def expected(lamp: Lamp) -> Expected:
    with catalog(lamp) as conn:
        endpoints = conn.execute(
            "select id, branch_id, type, port, pooler_port, current_state from endpoints"
        ).fetchall()
        branches = {row["id"] for row in conn.execute("select id from branches").fetchall()}
        busy = conn.execute("select kind, status, error from operations where finished_at is null").fetchall()
    active = [one for one in endpoints if one["current_state"] == "active"]
    standbys = {one["id"] for one in active if one["type"] == "read_only"}
    return Expected(
        running=frozenset({CATALOG, *(one["branch_id"] for one in active if one["type"] == "read_write"), *standbys}),
        volumes=frozenset({CATALOG, *branches, *standbys}),
        # Asleep or awake: the addresses stay.
        ports=frozenset(port for one in endpoints for port in (one["port"], one["pooler_port"])),
        computes=frozenset({CATALOG, *(one["id"] for one in active)}),
        busy=tuple(f"{one['kind']} {one['status']} {one['error'] or ''}".strip() for one in busy),
    )


# --- what is there


def storage(lamp: Lamp) -> Path:
    """The directory of volumes and trash: in the pool where there is one."""
    root = lamp.data_dir / "storage"
    return root / "pool" if (root / "pool.json").exists() else root


def postmasters(lamp: Lamp) -> dict[str, int]:
    """Volume and pid of every postmaster on this platform's data."""
    found = {}
    for pid in lamp.postmasters():
        # ValueError: one that ended meanwhile has no arguments any more.
        with contextlib.suppress(OSError, ValueError):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found[Path(os.fsdecode(argv[argv.index(b"-D") + 1])).parent.name] = pid
    return found


def processes(lamp: Lamp) -> dict[int, int]:
    """Every Postgres process that works in this platform's data, with its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            where = str((entry / "cwd").readlink())
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if where.startswith(f"{lamp.data_dir}/") and state not in "ZX":
                found[int(entry.name)] = int(parent)
    return found


def orphans(lamp: Lamp) -> set[int]:
    """Postgres processes on this platform's data that no postmaster has as its child."""
    masters = set(lamp.postmasters())
    return {pid for pid, parent in processes(lamp).items() if pid not in masters and parent not in masters}


def mounts(lamp: Lamp) -> set[str]:
    """Volumes that are mounted; the mount of a pool itself is none."""
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [point for point in points if point.is_relative_to(lamp.data_dir)]
    return {point.parent.name for point in below if point != lamp.data_dir / "storage/pool"}


def listening(lamp: Lamp) -> set[int]:
    """Ports of the endpoints' range that this platform's gateway listens on; others may use the range as well."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = {line[9]: int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A"}
    found = set()
    for pid in lamp.gateways():
        with contextlib.suppress(OSError):
            links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
            found |= {ports[inode] for link in links if (inode := link[8:-1]) in ports}
    return {port for port in found if lamp.ports[0] <= port <= lamp.ports[1]}


def unused_layers(place: Path) -> set[str]:
    """Layers of the overlay driver that no volume is made of."""
    if not (place / "layers").is_dir():
        return set()
    stacks = [json.loads(path.read_bytes()) for path in (place / "volumes").glob("*/layers.json")]
    used = {layer for stack in stacks for layer in (stack["upper"], *stack["lowers"])}
    return {path.name for path in (place / "layers").iterdir()} - used


def differences(lamp: Lamp, *, crashed: frozenset[str] = frozenset()) -> list[str]:
    """Sentences for everything on the host that is not as the catalog has it. `crashed`: computes known to have died.

    A dead compute's record stays, and its volume stays mounted, until somebody starts or deletes it.
    """
    want, place = expected(lamp), storage(lamp)
    volumes = {path.name for path in (place / "volumes").iterdir()}
    homes = {path.name for path in run_dir_of(lamp.data_dir).iterdir() if not path.name.startswith("gateway-")}
    named = {places_of(run_dir_of(lamp.data_dir), compute).home.name for compute in want.computes}
    dead = {places_of(run_dir_of(lamp.data_dir), compute).home.name for compute in crashed}
    pairs = {
        "operations under way": (set(want.busy), set()),
        "postmasters": (set(postmasters(lamp)), set(want.running)),
        "orphaned backends": (orphans(lamp), set()),
        "volumes": ({one for one in volumes if not one.startswith("template-")}, set(want.volumes)),
        "trash": ({path.name for path in (place / "trash").iterdir()}, set()),
        "unused layers": (unused_layers(place), set()),
        "mounts of what does not run": (mounts(lamp) - want.running if not crashed else set(), set()),
        "ports": (listening(lamp), set(want.ports)),
        "run directories": (homes - dead, named),
    }
    return [
        f"{what}: {sorted(map(str, have))}, not {sorted(map(str, should))}"
        for what, (have, should) in pairs.items()
        if have != should
    ]


def assert_tidy(lamp: Lamp, *, seconds: float = 20.0, crashed: frozenset[str] = frozenset()) -> None:
    """Nothing is left over and nothing is missing, once what goes on in the background has ended."""
    found: list[str] = ["never looked"]

    def tidy() -> bool:
        # What ends or is removed between two looks is no difference.
        with contextlib.suppress(FileNotFoundError):
            found[:] = differences(lamp, crashed=crashed)
        return not found

    with contextlib.suppress(TimeoutError):
        wait_for(tidy, seconds=seconds)
    assert not found, "\n".join([*found, lamp.log.read_text()[-6000:]])


# --- rows


@dataclass
class Writer:
    """Commits the rows 1, 2, 3 ... over one connection for as long as it is let, and knows which were acknowledged."""

    uri: str
    table: str
    acknowledged: int = 0
    error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Writer:
        with psycopg.connect(self.uri, autocommit=True) as conn:
            conn.execute(f"create table {self.table} (n bigint primary key, filler text)")
        self._thread = threading.Thread(target=self._run, name=f"writer-{self.table}", daemon=True)
        self._thread.start()
        self.wait_for(1)
        return self

    def _run(self) -> None:
        try:
            with psycopg.connect(self.uri, autocommit=True) as conn:
                # Some ten milliseconds of rest: a machine with two cores is to do something else as well.
                while not self._stop.wait(0.01):
                    conn.execute(f"insert into {self.table} values (%s, repeat('x', 200))", (self.acknowledged + 1,))
                    self.acknowledged += 1
        except psycopg.Error as error:
            self.error = error

    def wait_for(self, more: int) -> int:
        """How many rows are acknowledged, once `more` of them came since this call."""
        goal = self.acknowledged + more
        wait_for(lambda: self.acknowledged >= goal or self.error is not None, what=f"{more} more rows")
        return self.acknowledged

    def assert_uncut(self) -> None:
        """Its connection has lived until now, still works, and no acknowledged row is lost."""
        self.wait_for(2)
        assert self.error is None, f"the writer's connection was cut: {self.error!r}"
        sure = self.acknowledged
        assert rows_of(self.uri, self.table)[:sure] == list(range(1, sure + 1))

    def stop(self) -> int:
        """End it; answers how many rows it knows to be committed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive()
        return self.acknowledged


def rows_of(uri: str, table: str) -> list[int]:
    with psycopg.connect(uri, autocommit=True, connect_timeout=10) as conn:
        return [row[0] for row in conn.execute(f"select n from {table} order by n").fetchall()]


# --- the API, in short


def uri(lamp: Lamp, project_id: str, branch_id: str, *, endpoint_id: str | None = None, pooled: bool = False) -> str:
    """The connection string of a branch, asked for anew."""
    wanted = {"branch_id": branch_id, "role_name": ROLE, "database_name": DATABASE}
    if pooled:
        wanted["pooled"] = "true"
    if endpoint_id is not None:
        wanted["endpoint_id"] = endpoint_id
    return str(lamp.call("GET", f"/projects/{project_id}/connection_uri", **wanted)["uri"])


def endpoint(lamp: Lamp, project_id: str, endpoint_id: str) -> dict[str, Any]:
    found: dict[str, Any] = lamp.call("GET", f"/projects/{project_id}/endpoints/{endpoint_id}")["endpoint"]
    return found


def wait_state(lamp: Lamp, project_id: str, endpoint_id: str, state: str, *, seconds: float = 30.0) -> dict[str, Any]:
    """The endpoint, once it is in this state and about to be in no other."""

    def there() -> dict[str, Any] | None:
        found = endpoint(lamp, project_id, endpoint_id)
        return found if found["current_state"] == state and not found.get("pending_state") else None

    return wait_for(there, seconds=seconds, what=f"state {state} of {endpoint_id}")  # type: ignore[return-value]


def suspend(lamp: Lamp, project_id: str, endpoint_id: str) -> None:
    lamp.call("POST", f"/projects/{project_id}/endpoints/{endpoint_id}/suspend")
    settled(lamp, project_id)
    wait_state(lamp, project_id, endpoint_id, "idle")


#: Operations whose failure has been told already: the tests that follow on the same platform are about others.
_told: set[str] = set()


def settled(lamp: Lamp, project_id: str) -> None:
    """Wait until nothing goes on in the project; everything must have ended well."""
    ended = [one for one in lamp.settle(project_id) if one["id"] not in _told]
    failed = [one for one in ended if one["status"] not in ("finished", "skipped")]
    _told.update(one["id"] for one in failed)
    assert not failed, f"{failed}\n{lamp.log.read_text()[-4000:]}"
