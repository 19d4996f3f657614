"""The control plane is killed at every named point, and at any moment: whoever starts it again finds all as asked."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from faults import world
from faults.conftest import Scene, scene_on
from lamplighter import faults
from support.lamp import sql


@dataclass
class Scenario(ABC):
    """One operation: what must be there before, the request, and how to see that it was done. Made anew for each test."""

    scene: Scene
    #: Every fault point that the operation passes by this request.
    points: ClassVar[tuple[str, ...]]

    @property
    def project_path(self) -> str:
        return f"/projects/{self.scene.project_id}"

    def prepare(self) -> None:
        """Make what the operation works on."""

    @abstractmethod
    def trigger(self) -> None:
        """Ask for the operation; the platform dies in it."""

    @abstractmethod
    def verify(self) -> None:
        """Raises AssertionError unless the operation has ended as asked."""

    def settle(self) -> None:
        world.settled(self.scene.lamp, self.scene.project_id)


class CreateProject(Scenario):
    points = ("project.create.after_commit", "project.create.after_volume")

    def trigger(self) -> None:
        self.wanted = self.scene.name("project")
        self.scene.ask("POST", "/projects", {"project": {"name": self.wanted}})

    def verify(self) -> None:
        lamp = self.scene.lamp
        (project,) = lamp.call("GET", "/projects", search=self.wanted)["projects"]
        world.settled(lamp, project["id"])
        (branch,) = lamp.call("GET", f"/projects/{project['id']}/branches")["branches"]
        (endpoint,) = lamp.call("GET", f"/projects/{project['id']}/endpoints")["endpoints"]
        assert (branch["current_state"], endpoint["current_state"]) == ("ready", "active")
        uri = world.uri(lamp, project["id"], branch["id"])
        sql(uri, "create table t as select 7 as n")
        assert sql(uri, "select n, current_user from t") == [(7, world.ROLE)]
        lamp.call("DELETE", f"/projects/{project['id']}")


class DeleteProject(Scenario):
    """With two branches, one of them asleep, and a standby."""

    points = ("project.delete.after_stop", "project.delete.after_volumes")

    def prepare(self) -> None:
        lamp = self.scene.lamp
        made = lamp.project(name=self.scene.name("project"))
        self.id = made["project"]["id"]
        asleep = lamp.branch(self.id, "asleep")
        world.suspend(lamp, self.id, asleep["endpoints"][0]["id"])
        standby = {"endpoint": {"branch_id": made["branch"]["id"], "type": "read_only"}}
        lamp.call("POST", f"/projects/{self.id}/endpoints", standby)
        world.settled(lamp, self.id)

    def trigger(self) -> None:
        self.scene.ask("DELETE", f"/projects/{self.id}")

    def verify(self) -> None:
        lamp = self.scene.lamp
        assert lamp.request("GET", f"/projects/{self.id}").status_code == 404
        world.assert_tidy(lamp)
        with world.catalog(lamp) as conn:
            left = conn.execute(
                "select (select count(*) from projects where id = %(id)s)"
                " + (select count(*) from branches where project_id = %(id)s)"
                " + (select count(*) from endpoints where project_id = %(id)s) as rows",
                {"id": self.id},
            ).fetchone()
        assert left == {"rows": 0}


class CreateBranch(Scenario):
    """Of a parent that runs and is written to at that moment."""

    points = ("branch.create.after_commit", "branch.create.after_clone")
    endpoints: ClassVar[list[dict[str, str]]] = [{"type": "read_write"}]

    def prepare(self) -> None:
        lamp = self.scene.lamp
        made = lamp.branch(self.scene.project_id, self.scene.name("parent"))
        self.parent = made["branch"]["id"]
        self.writer = world.Writer(world.uri(lamp, self.scene.project_id, self.parent), "rows").start()

    def trigger(self) -> None:
        self.wanted, self.sure = self.scene.name("child"), self.writer.wait_for(5)
        branch = {"name": self.wanted, "parent_id": self.parent}
        self.scene.ask("POST", f"{self.project_path}/branches", {"branch": branch, "endpoints": self.endpoints})

    def verify(self) -> None:
        lamp = self.scene.lamp
        self.settle()
        self.writer.assert_uncut()
        known = self.writer.stop()
        (branch,) = lamp.call("GET", f"{self.project_path}/branches", search=self.wanted)["branches"]
        assert branch["current_state"] == "ready"
        self.verify_rows(branch["id"], at_least=self.sure, at_most=known)
        for one in (branch["id"], self.parent):
            lamp.call("DELETE", f"{self.project_path}/branches/{one}")
            self.settle()

    def verify_rows(self, branch_id: str, *, at_least: int, at_most: int) -> None:
        """All rows committed before the request, some of those after, no gap; and the child is its own."""
        uri = world.uri(self.scene.lamp, self.scene.project_id, branch_id)
        have = world.rows_of(uri, "rows")
        assert at_least <= len(have) <= at_most + 1
        assert have == list(range(1, len(have) + 1))
        sql(uri, "insert into rows values (-1)")
        assert -1 not in world.rows_of(self.writer.uri, "rows")


class CreateBranchOfSleeper(CreateBranch):
    def prepare(self) -> None:
        super().prepare()
        self.writer.stop()
        found = self.scene.lamp.call("GET", f"{self.project_path}/branches/{self.parent}/endpoints")["endpoints"]
        self.parent_endpoint = found[0]["id"]
        world.suspend(self.scene.lamp, self.scene.project_id, self.parent_endpoint)

    def trigger(self) -> None:
        self.wanted = self.scene.name("child")
        branch = {"name": self.wanted, "parent_id": self.parent}
        self.scene.ask("POST", f"{self.project_path}/branches", {"branch": branch, "endpoints": self.endpoints})

    def verify(self) -> None:
        lamp = self.scene.lamp
        self.settle()
        lamp.call("POST", f"{self.project_path}/endpoints/{self.parent_endpoint}/start")
        self.settle()
        (branch,) = lamp.call("GET", f"{self.project_path}/branches", search=self.wanted)["branches"]
        self.verify_rows(branch["id"], at_least=self.writer.acknowledged, at_most=self.writer.acknowledged)
        for one in (branch["id"], self.parent):
            lamp.call("DELETE", f"{self.project_path}/branches/{one}")
            self.settle()


class CreateBranchWithStandby(CreateBranch):
    """Each point of an endpoint's start is passed twice: by the primary, then by the standby."""

    points = (
        "endpoint.start.after_open:2",
        "endpoint.start.after_spawn:2",
        "endpoint.start.after_ready:2",
        "endpoint.start.after_apply:2",
    )
    endpoints: ClassVar[list[dict[str, str]]] = [{"type": "read_write"}, {"type": "read_only"}]

    def verify_rows(self, branch_id: str, *, at_least: int, at_most: int) -> None:
        super().verify_rows(branch_id, at_least=at_least, at_most=at_most)
        lamp = self.scene.lamp
        found = lamp.call("GET", f"{self.project_path}/branches/{branch_id}/endpoints")["endpoints"]
        standby = next(one for one in found if one["type"] == "read_only")
        uri = world.uri(lamp, self.scene.project_id, branch_id, endpoint_id=standby["id"])
        assert sql(uri, "select pg_is_in_recovery()") == [(True,)]
        world.wait_for(lambda: -1 in world.rows_of(uri, "rows"), what="a row of the primary on its standby")


class DeleteBranch(Scenario):
    """With a compute and a standby that run."""

    points = ("branch.delete.after_stop", "branch.delete.after_volume")

    def prepare(self) -> None:
        branch = {"branch": {"name": self.scene.name("doomed")}, "endpoints": CreateBranchWithStandby.endpoints}
        made = self.scene.lamp.call("POST", f"{self.project_path}/branches", branch)
        self.settle()
        self.id = made["branch"]["id"]

    def trigger(self) -> None:
        self.scene.ask("DELETE", f"{self.project_path}/branches/{self.id}")

    def verify(self) -> None:
        self.settle()
        assert self.scene.lamp.request("GET", f"{self.project_path}/branches/{self.id}").status_code == 404
        world.assert_tidy(self.scene.lamp)
        with world.catalog(self.scene.lamp) as conn:
            assert conn.execute("select from branches where id = %s", (self.id,)).fetchall() == []
            assert conn.execute("select from endpoints where branch_id = %s", (self.id,)).fetchall() == []


class StartEndpoint(Scenario):
    """Of a branch that slept, and that was given a role meanwhile."""

    points = (
        "endpoint.start.after_open",
        "endpoint.start.after_spawn",
        "endpoint.start.after_ready",
        "endpoint.start.after_apply",
    )

    def prepare(self) -> None:
        lamp, project = self.scene.lamp, self.scene.project_id
        made = lamp.branch(project, self.scene.name("sleeper"))
        self.branch, self.endpoint = made["branch"]["id"], made["endpoints"][0]["id"]
        self.uri = world.uri(lamp, project, self.branch)
        sql(self.uri, "create table t as select generate_series(1, 1000) as n")
        world.suspend(lamp, project, self.endpoint)

    def trigger(self) -> None:
        self.scene.ask("POST", f"{self.project_path}/endpoints/{self.endpoint}/start")

    def verify(self) -> None:
        lamp = self.scene.lamp
        self.settle()
        world.wait_state(lamp, self.scene.project_id, self.endpoint, "active")
        assert sql(self.uri, "select count(*), sum(n) from t") == [(1000, 500500)]
        lamp.call("DELETE", f"{self.project_path}/branches/{self.branch}")
        self.settle()


SCENARIOS: tuple[type[Scenario], ...] = (
    CreateProject,
    DeleteProject,
    CreateBranch,
    CreateBranchOfSleeper,
    CreateBranchWithStandby,
    DeleteBranch,
    StartEndpoint,
)
ALL = [pytest.param(kind, point, id=f"{kind.__name__}-{point}") for kind in SCENARIOS for point in kind.points]
#: Where a driver can go wrong: the moments when its volumes have just been made, opened or removed.
FEW = [
    pytest.param(CreateBranch, "branch.create.after_clone", id="CreateBranch-after_clone"),
    pytest.param(CreateBranchWithStandby, "endpoint.start.after_spawn:2", id="CreateBranchWithStandby-after_spawn"),
    pytest.param(DeleteBranch, "branch.delete.after_stop", id="DeleteBranch-after_stop"),
    pytest.param(DeleteProject, "project.delete.after_volumes", id="DeleteProject-after_volumes"),
]


def test_every_point_has_a_scenario() -> None:
    """A fault point that is added without a scenario fails here."""
    covered = {point.partition(":")[0] for kind in SCENARIOS for point in kind.points}
    assert covered == faults.POINTS


def run(scene: Scene, kind: type[Scenario], point: str) -> None:
    scenario = kind(scene)
    scenario.prepare()
    scene.arm(point)
    scenario.trigger()
    scene.recover()
    scenario.verify()
    scene.assert_whole()


@pytest.mark.parametrize(("kind", "point"), ALL)
def test_killed_at_a_point(scene: Scene, kind: type[Scenario], point: str) -> None:
    """What was asked for is done after a restart; nobody else notices, and nothing is left behind."""
    run(scene, kind, point)


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        pytest.param(CreateBranch, "branch.create.after_clone", id="CreateBranch-after_clone"),
        pytest.param(StartEndpoint, "endpoint.start.after_ready", id="StartEndpoint-after_ready"),
        pytest.param(DeleteBranch, "branch.delete.after_volume", id="DeleteBranch-after_volume"),
    ],
)
def test_killed_again_while_it_recovers(scene: Scene, kind: type[Scenario], point: str) -> None:
    """A second death at the same point, in the restart that takes the operation up again, is like the first."""
    scenario = kind(scene)
    scenario.prepare()
    scene.arm(point)
    scenario.trigger()
    scene.lamp.wait_killed()
    scene.lamp.start(env={"LAMP_FAULT": point}, wait=False)
    scene.recover()
    scenario.verify()
    scene.assert_whole()


@contextlib.contextmanager
def _shared(scenes: dict[str, Any], driver: str) -> Iterator[Scene]:
    yield scenes[driver]


@pytest.fixture(scope="module", params=["copy"])
def copy_scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene_on(request.param) as scene:
        yield scene


@pytest.fixture(scope="module", params=["btrfs", "reflink"])
def pool_scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene_on(request.param) as scene:
        yield scene


@pytest.mark.parametrize(("kind", "point"), FEW)
def test_killed_at_a_point_with_plain_copies(copy_scene: Scene, kind: type[Scenario], point: str) -> None:
    """The same where every branch is a copy, file by file."""
    copy_scene.revive()
    run(copy_scene, kind, point)


@pytest.mark.root
@pytest.mark.parametrize(("kind", "point"), FEW)
def test_killed_at_a_point_in_a_pool(pool_scene: Scene, kind: type[Scenario], point: str) -> None:
    """The same in a pool, where a branch is a snapshot (btrfs) or a clone of each file (XFS)."""
    pool_scene.revive()
    run(pool_scene, kind, point)
