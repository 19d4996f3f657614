"""Every operation that the platform serves, called by `lamp api` with its id, in the life of one project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lamplighter.api.operations import OPERATIONS
from support.lamp import Lamp

from .conftest import Cli


class Caller:
    """Calls operations, waits for what they begin, and remembers which they were."""

    def __init__(self, cli: Cli, lamp: Lamp, config: Path) -> None:
        self.cli = cli
        self.env = {"NEON_API_KEY": lamp.key, "NEON_API_HOST": lamp.url, "XDG_CONFIG_HOME": str(config)}
        self.called: set[str] = set()
        self.path: dict[str, str] = {}

    def __call__(self, operation_id: str, /, *words: str, **path: str) -> Any:
        known = {**self.path, **path}
        places = [each.name for each in OPERATIONS[operation_id].parameters if each.where == "path"]
        given = [word for name in places for word in ("-p", f"{name}={known[name]}")]
        ran = self.cli("api", operation_id, *given, *words, env=self.env)
        assert ran.status == 0, f"{operation_id}: {ran.out}{ran.err}"
        self.called.add(operation_id)
        answer = json.loads(ran.out) if ran.out.strip() else None
        if isinstance(answer, dict) and answer.get("operations") and operation_id != "listProjectOperations":
            ids = [each["id"] for each in answer["operations"]]
            waited = self.cli("operations", "wait", *ids, "--project-id", known["project_id"], env=self.env)
            assert waited.status == 0, waited.err
        return answer

    def settle(self, project_id: str) -> None:
        """Wait for what is under way in a project that was made without `called`."""
        ran = self.cli("operations", "wait", "--project-id", project_id, env=self.env)
        assert ran.status == 0, ran.err


def test_every_served_operation_by_its_id(cli: Cli, lamp: Lamp, tmp_path: Path):
    call = Caller(cli, lamp, tmp_path)
    _account(call)
    made = _project(call)
    _branches(call)
    _endpoints(call)
    _names(call)
    assert call("deleteProject")["project"]["id"] == made["project"]["id"]
    assert call.called == {operation.id for operation in OPERATIONS.values() if operation.served}


def _account(call: Caller) -> None:
    me = call("getCurrentUserInfo")
    assert call("getAuthDetails")["account_id"] == me["id"]
    assert call("getActiveRegions")["regions"]
    [org] = call("getCurrentUserOrganizations")["organizations"]
    call.path["org_id"] = org["id"]
    assert call("getOrganization")["id"] == org["id"]
    assert call("getOrganizationMembers")["members"][0]["member"]["user_id"] == me["id"]
    for make, see, revoke in (
        ("createApiKey", "listApiKeys", "revokeApiKey"),
        ("createOrgApiKey", "listOrgApiKeys", "revokeOrgApiKey"),
    ):
        key = call(make, "-F", "key_name=by id")
        assert key["id"] in [each["id"] for each in call(see)]
        assert call(revoke, key_id=str(key["id"]))["revoked"]


def _project(call: Caller) -> Any:
    ran = call.cli("api", "createProject", "-F", "project.name=by id", env=call.env)
    made = json.loads(ran.out)
    call.called.add("createProject")
    call.path["project_id"] = made["project"]["id"]
    call.settle(made["project"]["id"])
    assert call("updateProject", "-F", "project.name=renamed")["project"]["name"] == "renamed"
    assert call("getProject")["project"]["name"] == "renamed"
    assert made["project"]["id"] in [each["id"] for each in call("listProjects", "-Q", "limit=400")["projects"]]
    assert call("listSharedProjects")["projects"] == []
    uri = call("getConnectionURI", "-Q", "database_name=neondb", "-Q", "role_name=neondb_owner")["uri"]
    assert uri.startswith("postgresql://neondb_owner:")
    operations = call("listProjectOperations")["operations"]
    one = call("getProjectOperation", operation_id=operations[0]["id"])
    assert one["operation"]["status"] == "finished"
    return made


def _branches(call: Caller) -> None:
    [main] = call("listProjectBranches")["branches"]
    made = call("createProjectBranch", "-F", "branch.name=dev")
    assert made["branch"]["parent_id"] == main["id"]
    call.path["branch_id"] = made["branch"]["id"]
    assert call("countProjectBranches")["count"] == 2
    assert call("updateProjectBranch", "-F", "branch.name=next")["branch"]["name"] == "next"
    assert call("getProjectBranch")["branch"]["name"] == "next"
    assert call("setDefaultProjectBranch")["branch"]["default"]
    assert call("setDefaultProjectBranch", branch_id=main["id"])["branch"]["default"]
    spare = call("createProjectBranch", "-F", "branch.name=spare")["branch"]["id"]
    assert call("deleteProjectBranch", branch_id=spare)["branch"]["id"] == spare


def _endpoints(call: Caller) -> None:
    made = call(
        "createProjectEndpoint", "-F", f"endpoint.branch_id={call.path['branch_id']}", "-F", "endpoint.type=read_write"
    )
    call.path["endpoint_id"] = made["endpoint"]["id"]
    assert len(call("listProjectEndpoints")["endpoints"]) == 2
    assert len(call("listProjectBranchEndpoints")["endpoints"]) == 1
    call("suspendProjectEndpoint")
    assert call("getProjectEndpoint")["endpoint"]["current_state"] == "idle"
    call("startProjectEndpoint")
    assert call("getProjectEndpoint")["endpoint"]["current_state"] == "active"
    call("restartProjectEndpoint")
    changed = call("updateProjectEndpoint", "-F", "endpoint.suspend_timeout_seconds=600")
    assert changed["endpoint"]["suspend_timeout_seconds"] == 600


def _names(call: Caller) -> None:
    call("createProjectBranchRole", "-F", "role.name=reader")
    call.path["role_name"] = "reader"
    assert call("getProjectBranchRole")["role"]["name"] == "reader"
    assert "reader" in [each["name"] for each in call("listProjectBranchRoles")["roles"]]
    before = call("getProjectBranchRolePassword")["password"]
    assert call("resetProjectBranchRolePassword")["role"]["password"] != before
    call("createProjectBranchDatabase", "-F", "database.name=shop", "-F", "database.owner_name=reader")
    call.path["database_name"] = "shop"
    assert call("getProjectBranchDatabase")["database"]["owner_name"] == "reader"
    assert len(call("listProjectBranchDatabases")["databases"]) == 2
    assert call("updateProjectBranchDatabase", "-F", "database.name=store")["database"]["name"] == "store"
    assert call("deleteProjectBranchDatabase", database_name="store")["database"]["name"] == "store"
    assert call("deleteProjectBranchRole")["role"]["name"] == "reader"
    assert call("deleteProjectEndpoint")["endpoint"]["id"] == call.path["endpoint_id"]
