"""What outlives the control plane about a pooler, and how its process is found again.

All of it lies in the run directory of its compute, which must be there: a pooler runs beside a running compute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lamplighter.compute import process
from lamplighter.compute.places import Places, places_of, replace_file
from lamplighter.compute.pooler_config import PoolerSpec, Users, parse_users, render_users
from lamplighter.compute.process import PROC, ProcessIdentity

RECORD_NAME = "pooler.json"
_INI_NAME = "pooler.ini"
_COMM = b"pgbouncer"


@dataclass(frozen=True, slots=True)
class PoolerPlaces:
    """Paths of one pooler."""

    home: Path
    log: Path

    @property
    def ini(self) -> Path:
        """The argument that tells this pooler's process from all others."""
        return self.home / _INI_NAME

    @property
    def users(self) -> Path:
        return self.home / "pooler.users"

    @property
    def record(self) -> Path:
        return self.home / RECORD_NAME

    @property
    def logs(self) -> Places:
        """For the functions of `logs`, which know a log and the name that it is moved to."""
        return Places(self.home, self.log)


@dataclass(frozen=True, slots=True)
class PoolerRecord:
    """`identity` None: spawned at most, and not known by which pid. `up`: it has said that it listens."""

    spec: PoolerSpec
    identity: ProcessIdentity | None = None
    up: bool = False
    spawned_at: float = 0.0


def pooler_places(run_dir: Path, compute_id: str, log_dir: Path | None) -> PoolerPlaces:
    """Where the pooler of a compute has its files; nothing is made."""
    compute = places_of(run_dir, compute_id, log_dir)
    if log_dir is None:
        return PoolerPlaces(compute.home, compute.home / "pooler.log")
    return PoolerPlaces(compute.home, compute.log.with_name(f"{compute.log.stem}.pooler.log"))


def save(record: PoolerRecord, path: Path) -> None:
    """Replace the record at `path`."""
    spec = asdict(record.spec) | {"socket_dir": str(record.spec.socket_dir)}
    identity = record.identity and process.to_json(record.identity)
    content = {"spec": spec, "identity": identity, "up": record.up, "spawned_at": record.spawned_at}
    replace_file(path, json.dumps(content))


def load(path: Path) -> PoolerRecord | None:
    """The record at `path`; None if there is none that can be read (a host crash may leave it empty)."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        spec = value["spec"] | {"socket_dir": Path(value["spec"]["socket_dir"])}
        identity = process.from_json(value["identity"]) if value["identity"] else None
        return PoolerRecord(PoolerSpec(**spec), identity, bool(value["up"]), float(value["spawned_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_users(users: Users, places: PoolerPlaces, owner: tuple[int, int]) -> None:
    """Replace the file of users; only PgBouncer and we may read it."""
    replace_file(places.users, render_users(users), owner)


def load_users(places: PoolerPlaces) -> Users:
    """What PgBouncer has been told; nobody if there is no file."""
    try:
        # As it is: a carriage return may be part of a name.
        with places.users.open(encoding="utf-8", newline="") as file:
            return parse_users(file.read())
    except (OSError, ValueError):
        return Users()


def remove(places: PoolerPlaces) -> None:
    """Remove all but a log that lies elsewhere. No error if it is not there."""
    for path in (places.record, places.ini, places.users):
        path.unlink(missing_ok=True)
    if places.log.parent == places.home:
        remove_logs(places)


def remove_logs(places: PoolerPlaces) -> None:
    """Remove the log and its predecessor."""
    for path in (places.logs.log, places.logs.old_log):
        path.unlink(missing_ok=True)


def running_below(run_dir: Path) -> dict[Path, list[int]]:
    """Pids of the PgBouncers whose configuration lies in the run directory of a compute, by its path."""
    found: dict[Path, list[int]] = {}
    for pid, ini in _scan():
        if ini.name == _INI_NAME and ini.parent.parent == run_dir:
            found.setdefault(ini, []).append(pid)
    return found


def _scan() -> Iterator[tuple[int, Path]]:
    for entry in os.scandir(PROC):
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        try:
            if (PROC / entry.name / "comm").read_bytes().rstrip() != _COMM or process.start_ticks(pid) is None:
                continue
        except OSError:
            continue
        if words := process.arguments(pid):
            yield pid, Path(words[-1])
