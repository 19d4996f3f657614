"""A platform on a given storage driver, and bystanders on it whom a fault must not touch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from faults import world
from lamplighter.storage import pool
from support.lamp import Lamp, temporary_lamp

POOL_BYTES = 1536 * 2**20
POOLS: dict[str, pool.PoolFs] = {"btrfs": "btrfs", "reflink": "xfs"}


@contextlib.contextmanager
def lamp_on(driver: str, *, size: int = POOL_BYTES) -> Iterator[Lamp]:
    """A platform on this driver, not started: `best` is what this machine offers, for some a pool is made (root)."""
    with temporary_lamp(driver=None if driver == "best" else driver, start=False) as lamp:
        if driver not in POOLS:
            yield lamp
            return
        lamp.data_dir.mkdir(mode=0o755)
        pool.init_pool(lamp.data_dir / "storage", size, POOLS[driver])
        try:
            yield lamp
        finally:
            lamp.close()
            pool.unmount_pool(lamp.data_dir / "storage")


@dataclass
class Scene:
    """A platform on which two bystanders write all the time: a branch of the project under test, and another project.

    Their connections are made once: what ends the control plane must not cut them.
    """

    lamp: Lamp
    project_id: str = ""
    bystander: str = ""
    writers: list[world.Writer] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def prepare(self) -> None:
        self.lamp.start()
        made = self.lamp.project(name="under-test")
        self.project_id = made["project"]["id"]
        beside = self.lamp.branch(self.project_id, "bystander")
        self.bystander = beside["branch"]["id"]
        other = self.lamp.project(name="other")
        self.writers = [
            world.Writer(world.uri(self.lamp, project, branch), "bystander").start()
            for project, branch in (
                (self.project_id, self.bystander),
                (other["project"]["id"], other["branch"]["id"]),
            )
        ]

    def name(self, kind: str) -> str:
        return f"{kind}-{next(self._names)}"

    def arm(self, point: str) -> None:
        """Start the platform anew, so that it dies at this point. Nothing that runs is touched."""
        self.lamp.kill()
        self.lamp.start(env={"LAMP_FAULT": point})

    def ask(self, method: str, path: str, body: Any = None) -> None:
        """A request whose answer may or may not come before the platform dies."""
        with contextlib.suppress(httpx2.TransportError):
            self.lamp.call(method, path, body)

    def recover(self) -> None:
        self.lamp.wait_killed()
        self.lamp.start()

    def assert_whole(self) -> None:
        """Nothing is left over on the host, and both bystanders never noticed anything."""
        world.assert_tidy(self.lamp)
        for writer in self.writers:
            writer.assert_uncut()

    def revive(self) -> None:
        """After a test that failed half-way: the next one begins with a platform that runs."""
        if self.lamp.process is not None and self.lamp.process.poll() is not None:
            self.lamp.wait_killed()
        if self.lamp.process is None:
            self.lamp.start()


@contextlib.contextmanager
def scene_on(driver: str) -> Iterator[Scene]:
    with lamp_on(driver) as lamp:
        scene = Scene(lamp)
        try:
            scene.prepare()
            yield scene
        finally:
            for writer in scene.writers:
                writer.stop()
