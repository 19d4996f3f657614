"""A platform to measure, data to measure with, and the arithmetic of the results."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from lamplighter.compute.binaries import Binaries, default_cache
from lamplighter.compute.providers.build import Build
from lamplighter.storage.pool import init_pool, unmount_pool
from support.lamp import Lamp, temporary_lamp

GIB = 1024**3
#: Data sets: name, and pgbench's scale (figures of size from `pg_database_size` with its indexes).
SIZES = {"40 MB": 0, "1 GiB": 70, "8 GiB": 550}


@dataclass(slots=True)
class Result:
    """Milliseconds of one thing, run several times."""

    benchmark: str
    subject: str
    size: str
    milliseconds: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def p50(self) -> float:
        return statistics.median(self.milliseconds)


class Report:
    """Results as they come in: printed, and kept as JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: list[Result] = []

    def add(self, result: Result) -> Result:
        self.results.append(result)
        what = f"{result.benchmark:10} {result.subject:34} {result.size:6}"
        shown = f"{result.p50:9.1f} ms p50  {min(result.milliseconds):9.1f} min  {max(result.milliseconds):9.1f} max"
        print(f"{what} {shown}  n={len(result.milliseconds)} {result.note}", flush=True)
        self.save()
        return result

    def save(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        content = {"machine": machine(), "results": [asdict(one) for one in self.results]}
        self.path.write_text(json.dumps(content, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory / GIB),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_end": os.getloadavg()[0],
    }


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that `work` takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def first_answer(uri: str, *, seconds: float = 300.0) -> None:
    """Connect as a client would, again and again until `SELECT 1` is answered: 2 ms between tries."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        try:
            with psycopg.connect(uri, connect_timeout=10) as conn:
                conn.execute("select 1")
                return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            pause.wait(0.002)


def build() -> Build:
    return Binaries(default_cache()).ensure(17)


def tool(name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run one of Postgres's programs to its end."""
    found = build()
    env = {**os.environ, **found.environment()}
    return subprocess.run([str(found.program(name)), *arguments], env=env, check=True, capture_output=True, **options)


def load(uri: str, size: str) -> None:
    """Fill the database; nothing for the smallest size, which is an empty cluster."""
    if SIZES[size]:
        tool("pgbench", "-i", "-q", "-I", "dtGvp", "-s", str(SIZES[size]), uri)
        with psycopg.connect(uri, autocommit=True) as conn:
            conn.execute("create table marker as select 1 as seen")


@contextmanager
def platform_on(driver: str, *, pool_bytes: int = 40 * GIB) -> Iterator[Lamp]:
    """A platform with this driver: on a pool in a loop file for those that need one (root)."""
    with temporary_lamp(driver=None if driver in ("btrfs", "reflink") else driver, start=False) as lamp:
        storage = lamp.data_dir / "storage"
        if driver in ("btrfs", "reflink"):
            storage.mkdir(parents=True)
            lamp.data_dir.chmod(0o755)
            init_pool(storage, pool_bytes, "btrfs" if driver == "btrfs" else "xfs")
        lamp.ports = (12000, 12999)
        try:
            lamp.start()
            assert lamp.shown["storage_driver"] == driver, lamp.shown
            yield lamp
        finally:
            lamp.close()
            if driver in ("btrfs", "reflink"):
                unmount_pool(storage)
