"""What the platform is asked for while it is about to be killed, and how to see that it was done all the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from faults import world
from faults.scene import Scene
from support.lamp import sql, wait_for


@dataclass
class Scenario(ABC):
    """One operation: what must be there before, the request, and how to see that it was done. One for each test."""

    scene: Scene
    #: Every fault point that the operation passes by this request.
    points: ClassVar[tuple[str, ...]]

    @property
    def project_path(self) -> str:
        return f"/projects/{self.scene.project_id}"

    def prepare(self) -> None:  # noqa: B027 - not every operation needs something
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
        wait_for(lambda: -1 in world.rows_of(uri, "rows"), what="a row of the primary on its standby")


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
    """Of a branch that slept."""

    points = (
        "endpoint.start.after_open",
        "endpoint.start.after_spawn",
        "endpoint.start.after_ready",
        "endpoint.start.after_apply",
    )
    asleep: ClassVar[bool] = True

    def prepare(self) -> None:
        lamp, project = self.scene.lamp, self.scene.project_id
        made = lamp.branch(project, self.scene.name("sleeper"))
        self.branch, self.endpoint = made["branch"]["id"], made["endpoints"][0]["id"]
        self.uri = world.uri(lamp, project, self.branch)
        sql(self.uri, "create table t as select generate_series(1, 1000) as n")
        if self.asleep:
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


class SuspendEndpoint(StartEndpoint):
    """Killed in between, the endpoint must not be taken for one that the host's restart had stopped."""

    points = ("endpoint.suspend.after_stop",)
    asleep = False

    def trigger(self) -> None:
        self.scene.ask("POST", f"{self.project_path}/endpoints/{self.endpoint}/suspend")

    def verify(self) -> None:
        self.settle()
        world.wait_state(self.scene.lamp, self.scene.project_id, self.endpoint, "idle")
        world.assert_tidy(self.scene.lamp)
        self.scene.lamp.call("POST", f"{self.project_path}/endpoints/{self.endpoint}/start")
        super().verify()


class ConfigureEndpoint(StartEndpoint):
    points = ("endpoint.configure.after_stop",)
    asleep = False

    def trigger(self) -> None:
        self.before = sql(self.uri, "show max_connections")
        body = {"endpoint": {"autoscaling_limit_min_cu": 0.5, "autoscaling_limit_max_cu": 0.5}}
        self.scene.ask("PATCH", f"{self.project_path}/endpoints/{self.endpoint}", body)

    def verify(self) -> None:
        self.settle()
        assert sql(self.uri, "show max_connections") != self.before
        super().verify()


class DeleteEndpoint(StartEndpoint):
    points = ("endpoint.delete.after_stop",)
    asleep = False

    def trigger(self) -> None:
        self.scene.ask("DELETE", f"{self.project_path}/endpoints/{self.endpoint}")

    def verify(self) -> None:
        self.settle()
        lamp, path = self.scene.lamp, f"{self.project_path}/endpoints"
        assert lamp.request("GET", f"{path}/{self.endpoint}").status_code == 404
        world.assert_tidy(lamp)
        made = lamp.call("POST", path, {"endpoint": {"branch_id": self.branch, "type": "read_write"}})
        self.settle()
        self.endpoint = made["endpoint"]["id"]
        self.uri = world.uri(lamp, self.scene.project_id, self.branch)
        super().verify()


class CreateRoleAsleep(StartEndpoint):
    """A branch that sleeps is opened for it by the platform alone, and closed again."""

    points = ("branch.apply.after_start", "branch.apply.after_change")

    def trigger(self) -> None:
        self.scene.ask("POST", f"{self.project_path}/branches/{self.branch}/roles", {"role": {"name": "extra"}})

    def verify(self) -> None:
        self.settle()
        world.assert_tidy(self.scene.lamp)
        self.scene.lamp.call("POST", f"{self.project_path}/endpoints/{self.endpoint}/start")
        self.settle()
        wanted = {"branch_id": self.branch, "role_name": "extra", "database_name": world.DATABASE}
        uri = self.scene.lamp.call("GET", f"{self.project_path}/connection_uri", **wanted)["uri"]
        assert sql(uri, "select current_user::text") == [("extra",)]
        super().verify()


class CreateDatabase(StartEndpoint):
    """In a compute that runs, and goes on running."""

    points = ("branch.apply.after_change",)
    asleep = False

    def trigger(self) -> None:
        self.started = sql(self.uri, "select pg_postmaster_start_time()")
        body = {"database": {"name": "second", "owner_name": world.ROLE}}
        self.scene.ask("POST", f"{self.project_path}/branches/{self.branch}/databases", body)

    def verify(self) -> None:
        self.settle()
        wanted = {"branch_id": self.branch, "role_name": world.ROLE, "database_name": "second"}
        uri = self.scene.lamp.call("GET", f"{self.project_path}/connection_uri", **wanted)["uri"]
        assert sql(uri, "select current_database()::text") == [("second",)]
        assert sql(self.uri, "select pg_postmaster_start_time()") == self.started
        super().verify()


SCENARIOS: tuple[type[Scenario], ...] = (
    CreateProject,
    DeleteProject,
    CreateBranch,
    CreateBranchOfSleeper,
    CreateBranchWithStandby,
    DeleteBranch,
    StartEndpoint,
    SuspendEndpoint,
    ConfigureEndpoint,
    DeleteEndpoint,
    CreateRoleAsleep,
    CreateDatabase,
)


def run(scene: Scene, kind: type[Scenario], *points: str) -> None:
    """Kill the control plane at each of `points` in turn, all on the way of one operation; then look at everything."""
    scenario = kind(scene)
    scenario.prepare()
    scene.arm(points[0])
    scenario.trigger()
    for point in points[1:]:
        scene.lamp.wait_killed()
        scene.lamp.start(env={"LAMP_FAULT": point}, wait=False)
    scene.recover()
    scenario.verify()
    scene.assert_whole()
