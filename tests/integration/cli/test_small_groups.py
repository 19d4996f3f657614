"""`lamp me`, `regions`, `orgs`, `api-keys`, `operations` and `api` against a real platform."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.lamp import Lamp

from .conftest import Cli, Ran


class Person:
    """Runs `lamp` as a user of the shared platform who has nothing but environment variables."""

    def __init__(self, cli: Cli, lamp: Lamp, place: Path) -> None:
        self.cli = cli
        self.lamp = lamp
        self.env = {
            "NEON_API_KEY": lamp.key,
            "NEON_API_HOST": lamp.url,
            "XDG_CONFIG_HOME": str(place),
            "LAMP_CONTEXT": "",
        }

    def __call__(self, *words: str | Path, status: int = 0, **env: str) -> Ran:
        ran = self.cli(*words, env={**self.env, **env})
        assert ran.status == status, ran.out + ran.err
        return ran

    def json(self, *words: str | Path) -> Any:
        return json.loads(self(*words, "--output", "json").out)


@pytest.fixture
def person(cli: Cli, lamp: Lamp, tmp_path: Path) -> Person:
    return Person(cli, lamp, tmp_path)


@pytest.fixture(scope="module")
def project(lamp: Lamp) -> Iterator[str]:
    made = lamp.project(name="small groups")
    yield made["project"]["id"]
    lamp.call("DELETE", f"/projects/{made['project']['id']}")


def org_of(person: Person) -> str:
    found: str = person.json("orgs", "list")[0]["id"]
    return found


class TestMe:
    def test_says_who_and_where(self, person: Person) -> None:
        me = person.json("me")
        assert me["server"]["base_url"] == person.lamp.url
        assert me["server"]["source"] == "NEON_API_KEY"
        assert me["auth_method"] == "api_key_user"
        assert "@" in me["email"]
        told = person("me").out
        assert person.lamp.url in told
        assert "a person" in told
        assert person.lamp.key not in told

    def test_a_wrong_key(self, person: Person) -> None:
        ran = person("me", NEON_API_KEY="napi_wrong", status=5)
        assert "Error: " in ran.err
        assert "Hint: " in ran.err
        assert "napi_wrong" not in ran.err

    def test_an_organizations_key_has_no_person(self, person: Person) -> None:
        org = org_of(person)
        made = person.json("api-keys", "create", "--name", "for me", "--org-id", org)
        told = person("me", "-o", "json", NEON_API_KEY=made["key"]).out
        assert json.loads(told)["auth_method"] == "api_key_org"
        assert json.loads(told)["id"] == org


class TestLists:
    def test_regions_in_every_form(self, person: Person) -> None:
        rows = person.json("regions")
        assert rows
        assert {"region_id", "name", "default"} <= set(rows[0])
        assert yaml.safe_load(person("regions", "-o", "yaml").out) == rows
        read = list(csv.DictReader(io.StringIO(person("regions", "-o", "csv").out)))
        assert [row["region_id"] for row in read] == [row["region_id"] for row in rows]
        lines = person("regions").out.splitlines()
        assert lines[0].startswith("ID")
        assert lines[1].startswith(rows[0]["region_id"])

    def test_organizations_and_members(self, person: Person) -> None:
        org = org_of(person)
        assert person.json("orgs", "get", org)["id"] == org
        members = person.json("orgs", "members", "--org-id", org)
        assert members
        assert "@" in members[0]["user"]["email"]
        assert person.json("org", "members") == members

    def test_an_organization_that_is_not_there(self, person: Person) -> None:
        person("orgs", "get", "org-no-such-12345678", status=3)

    def test_what_the_client_will_not_send_is_a_wrong_usage(self, person: Person) -> None:
        ran = person("orgs", "get", "..", status=2)
        assert ran.err.startswith("Error: org_id cannot be '..'")


class TestApiKeys:
    def test_a_key_alone_goes_into_a_pipe(self, person: Person) -> None:
        """What comes out is what `lamp login --key-stdin` takes."""
        ran = person("api-keys", "create", "--name", "piped", "--key-only")
        assert ran.out.startswith("napi_")
        assert len(ran.out.split()) == 1
        person("me", NEON_API_KEY=ran.out.strip())

    def test_a_key_is_made_shown_once_used_and_revoked(self, person: Person) -> None:
        made = person.json("api-keys", "create", "--name", "ci")
        assert person.json("api", "getAuthDetails")["auth_method"] == "api_key_user"
        person("regions", NEON_API_KEY=made["key"])
        listed = person.json("api-keys", "list")
        mine = next(key for key in listed if key["id"] == made["id"])
        assert mine["name"] == "ci"
        assert made["key"] not in json.dumps(listed)
        assert made["key"] not in person("api-keys", "list").out
        ran = person("api-keys", "revoke", str(made["id"]), status=2)
        assert "'ci'" in ran.err
        gone = person.json("api-keys", "revoke", str(made["id"]), "--yes")
        assert gone["revoked"] is True
        person("regions", NEON_API_KEY=made["key"], status=5)
        person("api-keys", "revoke", str(made["id"] + 1000), "--yes", status=3)

    def test_the_table_has_the_key(self, person: Person) -> None:
        told = person("api-keys", "create", "--name", "table").out
        key = next(line.split()[-1] for line in told.splitlines() if line.startswith("key"))
        person("regions", NEON_API_KEY=key)

    def test_a_key_for_one_project(self, person: Person, project: str) -> None:
        """Its organization is the project's; it reaches nothing else, and needs no --project-id."""
        made = person.json("api-keys", "create", "--name", "one", "--project-id", project)
        assert made["project_id"] == project
        told = person("operations", "list", "-o", "json", NEON_API_KEY=made["key"]).out
        assert {one["project_id"] for one in json.loads(told)} == {project}
        ran = person("api", "createProject", "-F", "project.name=x", NEON_API_KEY=made["key"], status=5)
        assert "project-scoped keys" in ran.err

    def test_a_dry_run_makes_none(self, person: Person) -> None:
        before = [(key["id"], key["name"]) for key in person.json("api-keys", "list")]
        ran = person("api-keys", "create", "--name", "dry", "--dry-run")
        assert "POST " in ran.out
        assert '"key_name": "dry"' in ran.out
        revoke = person("api-keys", "revoke", str(before[0][0]), "--dry-run")
        assert "DELETE " in revoke.out
        assert [(key["id"], key["name"]) for key in person.json("api-keys", "list")] == before


class TestOperations:
    def test_the_environment_may_name_the_project(self, person: Person, project: str) -> None:
        ran = person("operations", "list", "-o", "json", NEON_PROJECT_ID=project)
        assert {one["project_id"] for one in json.loads(ran.out)} == {project}
        ran = person("operations", "list", NEON_PROJECT_ID="no-such-12345678", status=3)
        assert "NEON_PROJECT_ID" in ran.err

    def test_they_are_listed_newest_first(self, person: Person, project: str) -> None:
        rows = person.json("operations", "list", "--project-id", project)
        assert {"create_timeline", "start_compute"} <= {row["action"] for row in rows}
        assert len(person.json("operations", "list", "--project-id", project, "--limit", "1")) == 1
        one = person.json("operations", "get", rows[0]["id"], "--project-id", project)
        assert one == rows[0]
        assert "start_compute" in person("operation", "list", "--project-id", project).out

    def test_wait_ends_with_what_is_under_way(self, person: Person, project: str) -> None:
        made = person.json(
            "api",
            "createProjectBranch",
            "--project-id",
            project,
            "-F",
            "branch.name=w",
            "-F",
            "endpoints.0.type=read_write",
        )
        ids = [one["id"] for one in made["operations"]]
        ended = person.json("operations", "wait", *ids, "--project-id", project)
        assert [one["id"] for one in ended] == ids
        assert {one["status"] for one in ended} == {"finished"}
        ran = person("operations", "wait", "--project-id", project)
        assert "Nothing is under way" in ran.err

    def test_an_operation_that_is_not_there(self, person: Person, project: str) -> None:
        id_ = "3f0c2a1e-6f0c-4b57-9f62-6a8f2f1f3c55"
        person("operations", "get", id_, "--project-id", project, status=3)


class TestWhichProject:
    def test_the_context_file_names_it(self, person: Person, project: str, tmp_path: Path) -> None:
        path = tmp_path / ".neon"
        path.write_text(json.dumps({"projectId": project}))
        rows = person.json("operations", "list", "--context-file", path)
        assert {row["project_id"] for row in rows} == {project}

    def test_a_project_from_a_file_that_is_gone_is_explained(self, person: Person, tmp_path: Path) -> None:
        path = tmp_path / ".neon"
        path.write_text(json.dumps({"projectId": "no-such-12345678"}))
        ran = person("operations", "list", "--context-file", path, status=3)
        assert "comes from the .neon file" in ran.err

    def test_several_projects_are_not_guessed(self, person: Person, project: str) -> None:
        """The platform makes one itself at its first start."""
        ran = person("operations", "list", status=2)
        assert "--project-id" in ran.err


class TestApi:
    def test_a_call_by_id_by_name_and_by_path_is_the_same(self, person: Person, project: str) -> None:
        by_id = person("api", "getProject", "--project-id", project).out
        assert json.loads(by_id)["project"]["id"] == project
        for words in (
            ["projects.get", "-p", f"project_id={project}"],
            [f"/projects/{project}"],
            [f"projects/{project}/"],
        ):
            assert json.loads(person("api", *words).out)["project"]["id"] == project

    def test_the_answer_is_the_servers_own(self, person: Person, project: str) -> None:
        path = f"/projects/{project}/branches"
        assert person("api", path).out.strip() == person.lamp.request("GET", path).text.strip()

    def test_a_branch_is_meant_by_name(self, person: Person, project: str) -> None:
        told = person("api", "getProjectBranch", "--project-id", project, "--branch", "main").out
        assert json.loads(told)["branch"]["name"] == "main"
        ran = person("api", "getProjectBranch", "--project-id", project, "--branch", "mai", status=3)
        assert "no branch 'mai'" in ran.err

    def test_pages_are_followed(self, person: Person, project: str) -> None:
        for name in ("p1", "p2", "p3"):
            person("api", "branches.create", "--project-id", project, "-F", f"branch.name={name}")
        words = ["api", "branches.list", "--project-id", project, "-Q", "limit=2"]
        assert len(json.loads(person(*words).out)["branches"]) == 2
        names = {branch["name"] for branch in json.loads(person(*words, "--paginate").out)["branches"]}
        assert {"main", "p1", "p2", "p3"} <= names
        assert "p1" in person(*words, "--paginate", "-o", "table").out

    def test_what_is_not_served_is_said(self, person: Person, project: str) -> None:
        ran = person("api", "listSnapshots", "--project-id", project, status=1)
        assert "lamp api --list" in ran.err

    def test_a_change_by_path(self, person: Person, project: str) -> None:
        told = person("api", f"/projects/{project}", "-X", "PATCH", "-F", "project.name=7").out
        assert json.loads(told)["project"]["name"] == "7"

    def test_what_a_server_refuses(self, person: Person) -> None:
        ran = person("api", "createProject", "-d", "{}", "-o", "json", status=1)
        assert json.loads(ran.err)["error"]["status"] == 400
