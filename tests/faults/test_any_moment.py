"""The control plane is killed at moments that nobody chose, again and again, in the midst of whatever goes on."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2
import pytest

from faults import world
from faults.scene import Scene
from support.lamp import Lamp, sql, temporary_lamp, wait_for

pytestmark = pytest.mark.timeout(300)

ROUNDS = 10


@contextlib.contextmanager
def killed_after(lamp: Lamp, seconds: float) -> Iterator[None]:
    """SIGKILL for the control plane `seconds` from now, which is before the block ends, or at its end."""
    assert lamp.process is not None
    timer = threading.Timer(seconds, lamp.process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        lamp.wait_killed()


@dataclass
class Model:
    """What the platform has promised by answering: branches that are there, and whether each one's compute runs.

    `doubtful` are the branches whose last request got no answer: either outcome is right.
    """

    scene: Scene
    chance: random.Random
    branches: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    asleep: dict[str, bool] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)

    def step(self) -> None:
        """One request that fits what there is, until it is done. Raises TransportError when the platform dies."""
        choices = [self.create]
        if self.branches:
            choices += [self.delete, self.start, self.suspend, self.configure, self.add_role, self.add_standby]
        self.chance.choice(choices)()
        self.scene.lamp.settle(self.scene.project_id)

    @property
    def path(self) -> str:
        return f"/projects/{self.scene.project_id}"

    def create(self) -> None:
        wanted = {"branch": {"name": self.scene.name("random")}, "endpoints": [{"type": "read_write"}]}
        made = self.scene.lamp.call("POST", f"{self.path}/branches", wanted)
        self.branches[made["branch"]["id"]] = made["endpoints"][0]["id"]
        self.asleep[made["branch"]["id"]] = False

    def delete(self) -> None:
        with self.doubt() as branch:
            self.scene.lamp.call("DELETE", f"{self.path}/branches/{branch}")
            self.gone.add(branch)
            del self.branches[branch]

    def start(self) -> None:
        with self.doubt() as branch:
            self.scene.lamp.call("POST", f"{self.path}/endpoints/{self.branches[branch]}/start")
            self.asleep[branch] = False

    def suspend(self) -> None:
        with self.doubt() as branch:
            self.scene.lamp.call("POST", f"{self.path}/endpoints/{self.branches[branch]}/suspend")
            self.asleep[branch] = True

    def add_role(self) -> None:
        with self.doubt() as branch:
            role = {"role": {"name": self.scene.name("role")}}
            self.scene.lamp.call("POST", f"{self.path}/branches/{branch}/roles", role)

    def configure(self) -> None:
        with self.doubt() as branch:
            size = {"autoscaling_limit_max_cu": self.chance.choice((0.25, 0.5, 1))}
            self.scene.lamp.call("PATCH", f"{self.path}/endpoints/{self.branches[branch]}", {"endpoint": size})

    def add_standby(self) -> None:
        with self.doubt() as branch:
            wanted = {"endpoint": {"branch_id": branch, "type": "read_only"}}
            self.scene.lamp.call("POST", f"{self.path}/endpoints", wanted)

    @contextlib.contextmanager
    def doubt(self) -> Iterator[str]:
        branch = self.chance.choice(sorted(self.branches))
        self.doubtful.add(branch)
        yield branch
        self.doubtful.discard(branch)

    def verify(self) -> None:
        lamp = self.scene.lamp
        world.settled(lamp, self.scene.project_id)
        for branch in sorted(self.doubtful):
            self.look_again(branch)
        self.doubtful.clear()
        for branch in self.gone:
            assert lamp.request("GET", f"{self.path}/branches/{branch}").status_code == 404
        for branch, endpoint in self.branches.items():
            state = world.endpoint(lamp, self.scene.project_id, endpoint)["current_state"]
            assert state == ("idle" if self.asleep[branch] else "active")
            if not self.asleep[branch]:
                uri = world.uri(lamp, self.scene.project_id, branch)
                assert sql(uri, "select count(*) from bystander where n = 1") == [(1,)]

    def look_again(self, branch: str) -> None:
        """Nobody knows whether the last request was heard: take what there is."""
        lamp = self.scene.lamp
        if lamp.request("GET", f"{self.path}/branches/{branch}").status_code == 404:
            del self.branches[branch]
            self.gone.add(branch)
        else:
            found = world.endpoint(lamp, self.scene.project_id, self.branches[branch])
            self.asleep[branch] = found["current_state"] == "idle"


def test_killed_at_any_moment(scene: Scene) -> None:
    """Ten rounds: what was answered is done, what was not is done or not begun; sometimes it dies while it recovers."""
    chance = random.Random(20260)
    lamp = scene.lamp
    # Its children have a row to show.
    lamp.call("POST", f"/projects/{scene.project_id}/branches/{scene.bystander}/set_as_default")
    model = Model(scene, chance)
    for _ in range(ROUNDS):
        with killed_after(lamp, chance.uniform(0.05, 2.0)), contextlib.suppress(httpx2.TransportError):
            while True:
                model.step()
        if chance.random() < 0.4:
            lamp.start(wait=False)
            with killed_after(lamp, chance.uniform(0.3, 2.5)):
                pass
        lamp.start()
        model.verify()
        scene.assert_whole()


def test_killed_while_it_starts_for_the_first_time() -> None:
    """A platform whose first start was cut off again and again comes up all the same; a new key opens it."""
    chance = random.Random(7)
    with temporary_lamp(start=False) as lamp:
        for moment in (0.4, 1.0, 1.6, 2.2, 3.0, 4.0):
            lamp.start(wait=False)
            with killed_after(lamp, moment * chance.uniform(0.8, 1.2)):
                pass
        lamp.options = ("--new-key",)
        lamp.start()
        made = lamp.project()
        uri = world.uri(lamp, made["project"]["id"], made["branch"]["id"])
        assert sql(uri, "select 1") == [(1,)]
        wait_for(lambda: not world.expected(lamp).busy, what="the end of all operations")
        world.assert_tidy(lamp)
