"""Commands for what Lamplighter's own server does not have, against a server that answers as Neon's cloud would.

Replies are made of the contract; what is checked is what was sent, and what became of the answer.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import CliRunner, Result

from lamplighter.api.operations import OPERATIONS
from lamplighter.cli.commands import lamp
from lamplighter.testing import example
from support.scripted import Asked, Scripted, answer

PROJECT = "calm-lake-00000001"
MAIN = "br-calm-main-00000001"
DEV = "br-calm-dev-00000002"
ENDPOINT = "ep-calm-lake-00000001"
HOST = f"{ENDPOINT}.us-east-2.aws.neon.tech"
URI = f"postgresql://app:s3cret@{HOST}/shop?sslmode=require&channel_binding=require"

_PATTERNS = [
    (one.method, re.compile("/api/v2" + re.sub(r"{\w+}", "[^/]+", one.path)), one.id)
    for one in sorted(OPERATIONS.values(), key=lambda one: one.path.count("{"))
]


class Cloud:
    """Answers every operation with the least that the contract allows, or with what was set for it."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[int, Any]] = {}
        self.calls: list[tuple[str, Asked]] = []

    def step(self, connection: socket.socket, asked: Asked) -> None:
        path = urlsplit(asked.target).path
        id_ = next(id_ for method, pattern, id_ in _PATTERNS if method == asked.method and pattern.fullmatch(path))
        self.calls.append((id_, asked))
        status, reply = self.replies.get(id_) or (OPERATIONS[id_].status, example(id_))
        connection.sendall(answer(status, b"" if reply is None else reply))

    def set(self, id_: str, status: int | None = None, **fields: Any) -> None:
        self.replies[id_] = (status or OPERATIONS[id_].status, example(id_, **fields))

    def refuse(self, id_: str, status: int, message: str) -> None:
        self.replies[id_] = (status, {"code": "", "message": message})

    def sent(self, id_: str) -> tuple[str, dict[str, str], Any]:
        """Path below the project, query and body of the only call of an operation."""
        (asked,) = (asked for known, asked in self.calls if known == id_)
        target = urlsplit(asked.target)
        path = target.path.removeprefix(f"/api/v2/projects/{PROJECT}")
        return path, dict(parse_qsl(target.query)), json.loads(asked.body) if asked.body else None


class Person:
    def __init__(self, cloud: Cloud, url: str, place: Path) -> None:
        self.cloud = cloud
        self.env = {
            "NEON_API_KEY": "napi_test",
            "NEON_API_HOST": url,
            "XDG_CONFIG_HOME": str(place),
            "LAMP_CONTEXT": None,
            "CI": None,
        }

    def __call__(self, *words: str, status: int = 0, project: bool = True) -> Result:
        place = ["--project-id", PROJECT] if project else []
        result = CliRunner().invoke(lamp, [*words, *place], env=self.env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result

    def json(self, *words: str, project: bool = True) -> Any:
        return json.loads(self(*words, "--output", "json", project=project).stdout)


@pytest.fixture
def cloud() -> Cloud:
    made = Cloud()
    made.set(
        "listProjectBranches",
        branches=[
            {"id": MAIN, "name": "main", "default": True},
            {"id": DEV, "name": "dev", "default": False, "parent_id": MAIN},
        ],
    )
    made.set("listProjectBranchDatabases", databases=[{"name": "shop", "owner_name": "app"}])
    made.set("listProjectBranchRoles", roles=[{"name": "app"}, {"name": "reader"}])
    made.set(
        "listProjectBranchEndpoints", endpoints=[{"id": ENDPOINT, "type": "read_write", "current_state": "active"}]
    )
    return made


@pytest.fixture
def person(cloud: Cloud, tmp_path: Path) -> Iterator[Person]:
    with Scripted(cloud.step) as server:
        yield Person(cloud, server.url, tmp_path)


class TestHistory:
    def test_restore_to_a_point(self, person: Person, cloud: Cloud) -> None:
        words = ("branches", "restore", "dev", "main@2026-01-31T12:00:00Z", "--preserve-under-name", "old", "--yes")
        cloud.set("restoreProjectBranch", branch={"id": DEV, "name": "dev", "parent_id": "br-kept-00000001"})
        cloud.set("getProjectBranch", branch={"id": DEV, "name": "dev", "parent_id": "br-kept-00000001"})
        told = person.json(*words)
        path, _, body = cloud.sent("restoreProjectBranch")
        assert path == f"/branches/{DEV}/restore"
        assert body == {
            "source_branch_id": MAIN,
            "source_timestamp": "2026-01-31T12:00:00Z",
            "preserve_under_name": "old",
        }
        assert told["branch"]["id"] == DEV
        assert "backup" in told

    def test_restore_from_its_own_past(self, person: Person, cloud: Cloud) -> None:
        person("branches", "restore", "dev", "^self@0/1a2b", "--preserve-under-name", "old", "--yes")
        assert cloud.sent("restoreProjectBranch")[2]["source_branch_id"] == DEV
        assert cloud.sent("restoreProjectBranch")[2]["source_lsn"] == "0/1A2B"

    def test_reset_to_the_parent(self, person: Person, cloud: Cloud) -> None:
        cloud.set("getProjectBranch", branch={"id": MAIN, "name": "main"})
        person("branches", "reset", "dev", "--parent", "--yes")
        path, _, body = cloud.sent("restoreProjectBranch")
        assert (path, body) == (f"/branches/{DEV}/restore", {"source_branch_id": MAIN})

    def test_a_root_has_no_parent_to_reset_to(self, person: Person) -> None:
        assert "has no parent" in person("branches", "reset", "main", "--parent", "--yes", status=3).output

    def test_it_is_asked_for(self, person: Person) -> None:
        result = person("branches", "restore", "dev", "main", status=2)
        assert "gets the data of main; what it has is lost" in result.output

    def test_a_branch_of_the_past(self, person: Person, cloud: Cloud) -> None:
        person("branches", "create", "--name", "x", "--parent", "dev@0/1A", "--no-compute", "--schema-only")
        assert cloud.sent("createProjectBranch")[2] == {
            "branch": {"parent_id": DEV, "name": "x", "parent_lsn": "0/1A", "init_source": "schema-only"}
        }

    def test_a_point_alone_is_one_of_the_default_branch(self, person: Person, cloud: Cloud) -> None:
        person("branches", "create", "--parent", "2026-01-31T12:00:00Z", "--suspend-timeout", "never")
        assert cloud.sent("createProjectBranch")[2] == {
            "branch": {"parent_timestamp": "2026-01-31T12:00:00Z"},
            "endpoints": [{"type": "read_write", "suspend_timeout_seconds": -1}],
        }

    def test_recover(self, person: Person, cloud: Cloud) -> None:
        person("branches", "recover", DEV)
        assert cloud.sent("recoverProjectBranch")[0] == f"/branches/{DEV}/recover"


class TestSchemas:
    def test_the_server_compares(self, person: Person, cloud: Cloud) -> None:
        cloud.set("getProjectBranchSchemaComparison", diff="--- a\n+++ b\n")
        assert person("branches", "diff", "main@0/1", "dev@2026-01-31T12:00:00Z").stdout == "--- a\n+++ b\n"
        path, query, _ = cloud.sent("getProjectBranchSchemaComparison")
        assert path == f"/branches/{DEV}/compare_schema"
        assert query == {
            "db_name": "shop",
            "base_branch_id": MAIN,
            "base_lsn": "0/1",
            "timestamp": "2026-01-31T12:00:00Z",
        }

    def test_of_one_branch_its_parent_is_the_base(self, person: Person, cloud: Cloud) -> None:
        cloud.set("getProjectBranch", branch={"id": MAIN, "name": "main"})
        cloud.set("getProjectBranchSchemaComparison", diff="")
        result = person("branches", "diff", "dev", "--exit-code")
        assert "the same" in result.stderr
        assert cloud.sent("getProjectBranchSchemaComparison")[1]["base_branch_id"] == MAIN

    def test_the_server_reads(self, person: Person, cloud: Cloud) -> None:
        cloud.set("getProjectBranchSchema", sql="create table t ();\n")
        assert person("branches", "schema", "dev@0/1A").stdout == "create table t ();\n"
        assert cloud.sent("getProjectBranchSchema")[1] == {"db_name": "shop", "lsn": "0/1A"}


class TestSnapshots:
    def test_taking_one(self, person: Person, cloud: Cloud) -> None:
        person("snapshots", "create", "--branch", "dev", "--name", "s", "--lsn", "0/1A", "--expires-in", "1d")
        path, query, body = cloud.sent("createSnapshot")
        assert (path, body) == (f"/branches/{DEV}/snapshot", None)
        assert (query["name"], query["lsn"]) == ("s", "0/1A")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", query["expires_at"])

    def test_one_is_named_by_id_or_name(self, person: Person, cloud: Cloud) -> None:
        cloud.set(
            "listSnapshots", snapshots=[{"id": "snap-1", "name": "a"}, {"id": "snap-2", "name": "b"},
                                        {"id": "snap-3", "name": "b"}]
        )  # fmt: skip
        assert person.json("snapshots", "get", "a")["id"] == "snap-1"
        assert person.json("snapshots", "get", "snap-2")["name"] == "b"
        assert "snap-2, snap-3" in person("snapshots", "get", "b", status=3).stderr
        person("snapshots", "update", "a", "--name", "c")
        assert cloud.sent("updateSnapshot")[::2] == ("/snapshots/snap-1", {"snapshot": {"name": "c"}})
        person("snapshots", "delete", "a", "--yes")
        assert cloud.sent("deleteSnapshot")[0] == "/snapshots/snap-1"

    def test_restoring_one(self, person: Person, cloud: Cloud) -> None:
        cloud.set("listSnapshots", snapshots=[{"id": "snap-1", "name": "a"}])
        assert (
            "is replaced"
            in person("snapshots", "restore", "a", "--target-branch", "main", "--finalize", status=2).stderr
        )
        person("snapshots", "restore", "a", "--target-branch", "main", "--finalize", "--yes")
        path, query, body = cloud.sent("restoreSnapshot")
        assert (path, query) == ("/snapshots/snap-1/restore", {})
        assert body == {"target_branch_id": MAIN, "finalize_restore": True}

    def test_finalizing(self, person: Person, cloud: Cloud) -> None:
        person("snapshots", "finalize", "dev", "--name", "before", "--yes")
        assert cloud.sent("finalizeRestoreBranch")[::2] == (f"/branches/{DEV}/finalize_restore", {"name": "before"})

    def test_schedules(self, person: Person, cloud: Cloud) -> None:
        cloud.set("getSnapshotSchedule", schedule=[{"frequency": "daily", "hour": 3}])
        assert person.json("snapshots", "schedule", "get") == [{"frequency": "daily", "hour": 3}]
        person("snapshots", "schedule", "set", "--frequency", "daily", "--hour", "3", "--retention", "7d")
        assert cloud.sent("setSnapshotSchedule")[::2] == (
            f"/branches/{MAIN}/backup_schedule",
            {"schedule": [{"frequency": "daily", "hour": 3, "retention_seconds": 604800}]},
        )
        for words in ((), ("--none", "--frequency", "daily"), ("--none", "--hour", "3")):
            person("snapshots", "schedule", "set", *words, status=2)


class TestAccess:
    def test_permissions(self, person: Person, cloud: Cloud) -> None:
        person("projects", "permissions", "grant", "ada@example.com")
        assert cloud.sent("grantPermissionToProject")[::2] == ("/permissions", {"email": "ada@example.com"})

    def test_a_permission_is_revoked_by_its_id(self, person: Person, cloud: Cloud) -> None:
        """Which is found by the address."""
        cloud.set(
            "listProjectPermissions",
            project_permissions=[
                {"id": "perm-1", "granted_to_email": "ada@example.com", "revoked_at": "2026-01-01T00:00:00Z"},
                {"id": "perm-2", "granted_to_email": "ada@example.com"},
                {"id": "perm-3", "granted_to_email": "bob@example.com"},
            ],
        )
        missing = person("projects", "permissions", "revoke", "ada@exmaple.com", "--yes", status=3)
        assert "did you mean 'ada@example.com'" in missing.stderr
        person("projects", "permissions", "revoke", "ada@example.com", status=2)
        person("projects", "permissions", "revoke", "ada@example.com", "--yes")
        assert cloud.sent("revokePermissionFromProject")[::2] == ("/permissions/perm-2", None)

    def test_transfers(self, person: Person, cloud: Cloud) -> None:
        person("projects", "transfer", "create", "--ttl", "2h")
        assert cloud.sent("createProjectTransferRequest")[::2] == ("/transfer_requests", {"ttl_seconds": 7200})
        told = person.json(
            "projects", "transfer", "accept", PROJECT, "0b9f", "--org-id", "org-a-b-12345678", project=False
        )
        assert told["accepted"] is True
        path, _, body = cloud.sent("acceptProjectTransferRequest")
        assert (path, body) == ("/transfer_requests/0b9f", {"org_id": "org-a-b-12345678"})

    def test_a_refused_transfer_says_why(self, person: Person, cloud: Cloud) -> None:
        cloud.refuse("acceptProjectTransferRequest", 406, "the plan has no room")
        result = person("projects", "transfer", "accept", PROJECT, "0b9f", status=1, project=False)
        assert "the plan has no room" in result.stderr

    def test_recovering_a_project(self, person: Person, cloud: Cloud) -> None:
        assert person.json("projects", "recover", PROJECT, project=False)["project"]["id"] == PROJECT
        assert cloud.sent("recoverProject")[0] == "/recover"


class TestOrganizations:
    def test_the_only_organization_is_meant_where_one_is_demanded(self, person: Person, cloud: Cloud) -> None:
        """As Neon's cloud demands it of personal keys."""
        cloud.refuse("createProject", 400, "org_id is required, you can find it on your organization settings page")
        cloud.set("getCurrentUserOrganizations", organizations=[{"id": "org-a-b-12345678"}])
        person("projects", "create", status=1, project=False)
        bodies = [json.loads(asked.body) for id_, asked in cloud.calls if id_ == "createProject"]
        assert [one["project"].get("org_id") for one in bodies] == [None, "org-a-b-12345678"]

    def test_of_several_one_has_to_be_named(self, person: Person, cloud: Cloud) -> None:
        cloud.refuse("listProjects", 400, "org_id is required")
        cloud.set("getCurrentUserOrganizations", organizations=[{"id": "org-a"}, {"id": "org-b"}])
        result = person("projects", "list", status=2, project=False)
        assert "--org-id" in result.stderr
        assert "org-a" in result.stderr


class TestConnections:
    def test_a_past_point(self, person: Person, cloud: Cloud) -> None:
        cloud.set("getConnectionURI", uri=URI)
        uri = person("connection-string", "dev@0/1A").stdout.strip()
        assert uri.startswith(f"postgresql://app:s3cret@{DEV}.us-east-2.aws.neon.tech/shop?")
        assert "options=neon_lsn%3A0%2F1A" in uri

    def test_the_databases_owner_connects(self, person: Person, cloud: Cloud) -> None:
        """Where there are several roles."""
        cloud.set("getConnectionURI", uri=URI)
        assert person("connection-string", "dev", "--pooled").stdout == URI + "\n"
        assert cloud.sent("getConnectionURI")[1] == {
            "branch_id": DEV,
            "endpoint_id": ENDPOINT,
            "database_name": "shop",
            "role_name": "app",
            "pooled": "true",
        }


class TestNotThere:
    def test_what_was_gone_already_is_told_as_deleted(self, person: Person, cloud: Cloud) -> None:
        """204 has no body."""
        cloud.replies["deleteProjectBranch"] = (204, None)
        told = person.json("branches", "delete", "dev", "--yes")
        assert (told["branch"]["id"], told["deleted"], told["operations"]) == (DEV, True, [])

    def test_a_failed_operation_fails_the_command(self, person: Person, cloud: Cloud) -> None:
        broken = {"status": "failed", "error": "no room", "action": "create_branch"}
        cloud.set("createProjectBranch", operations=[broken])
        assert "no room" in person("branches", "create", "--name", "x", status=1).stderr

    def test_a_wait_that_is_too_long(self, person: Person, cloud: Cloud) -> None:
        cloud.set("createProjectBranch", operations=[{"status": "running"}])
        cloud.set("getProjectOperation", operation={"status": "running"})
        assert "Error: " in person("branches", "create", "--name", "x", "--timeout", "0.3", status=7).stderr
