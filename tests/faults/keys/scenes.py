"""One scenario of the kill matrix: a lineage with an old key in all its sinks, a rotation, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faults.keys.file_sink import FileSink
from faults.keys.observer import Observer, World
from lamplighter.keys import records as rec
from lamplighter.keys.journal import Journal
from lamplighter.keys.records import Scope, SinkRef
from lamplighter.keys.value import KeyBuffer

LINEAGE = "ci"
KILLED = -signal.SIGKILL
WORKER = Path(__file__).with_name("worker.py")


class Worker:
    """A process that forks rotations."""

    def __init__(self) -> None:
        roots = [str(WORKER.parents[2]), *sys.path]
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        )

    def order(self, **order: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline())["status"])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@contextmanager
def worker() -> Iterator[Worker]:
    one = Worker()
    try:
        yield one
    finally:
        one.close()


class Scene:
    """`kinds` has a letter for each sink: R can be read, W cannot. `drops` are answers that never come."""

    def __init__(
        self, directory: Path, observer: Observer, worker: Worker, *, kinds: str, drops: Sequence[str] = ()
    ) -> None:
        directory.mkdir()
        self.world = World(directory)
        self.world.drops.update(drops)
        self._worker = worker
        self.minter = self.world.make("the minter")
        self.old = self.world.make("made by hand")
        for key in (self.minter, self.old):
            observer.register(self.world, key)
        self.addresses = []
        for number, letter in enumerate(kinds):
            path = directory / f"sink{number}"
            path.write_text(self.old.value)
            self.addresses.append(FileSink(path, readable=letter == "R").describe())
            self.world.sinks.append(path)
        self._order = {
            "url": observer.url,
            "key": self.minter.value,
            "state": str(self.world.state_dir),
            "log": str(directory / "log"),
            "sinks": self.addresses,
        }
        self._adopt()

    def _adopt(self) -> None:
        with Journal(self.world.state_dir) as journal, KeyBuffer(bytearray(self.old.value.encode())) as value:
            journal.append(
                rec.Adopted(
                    at=datetime.now(UTC),
                    lineage=LINEAGE,
                    key_id=self.old.id,
                    name=self.old.name,
                    scope=Scope(kind="personal"),
                    sinks=tuple(SinkRef(each) for each in self.addresses),
                    mac=value.mac(journal.salt),
                )
            )

    def go(self, mode: str, *, fault: str = "", **more: Any) -> int:
        """The status of a process that rotates or recovers."""
        status = self._worker.order(mode=mode, fault=fault, **{**self._order, **more})
        self.world.observe(f"after {mode} {fault}")
        return status

    def log(self) -> str:
        path = self.world.directory / "log"
        return path.read_text() if path.exists() else ""

    def problems(self) -> list[str]:
        """What is wrong once everything is recovered: what was seen on the way, and what is left."""
        found = list(self.world.wrong)
        lineage = self.world.state().lineage(LINEAGE)
        if lineage.unfinished:
            found.append("still unfinished")
        if self.world.live != {self.minter.id, lineage.current}:
            found.append(f"I2: live are {sorted(self.world.live)}, the current is {lineage.current}")
        held = {each.id if (each := self.world.holder_of(sink)) else None for sink in self.world.sinks}
        if held != {lineage.current}:
            found.append(f"sinks hold {held}, the current is {lineage.current}")
        return found
