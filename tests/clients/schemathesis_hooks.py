"""Loaded into schemathesis by `test_schemathesis.py`: real resources for its requests, and no trace of them after it.

Ids cannot be guessed, so every other request is led to something that exists, and every fourth of those that delete or
change something for good to what is made for it. A request that changed something is followed by a wait for the
project's operations, so that the next one is not just refused as conflicting. What was asked and answered is written
down for the test to judge.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter, deque
from pathlib import Path
from typing import Any

import requests
import schemathesis

from support.waiting import wait_for

URL, KEY, RECORD = os.environ["LAMP_URL"], os.environ["LAMP_KEY"], Path(os.environ["LAMP_RECORD"])
#: The key that all of this is done with: revoked, every further answer would be a 401.
OWN_KEY_ID = int(os.environ["LAMP_KEY_ID"])
#: How many of each kind are left for later requests. Each may be a postmaster.
KEPT = 3
#: What the projects are for that are not a request's own.
LASTING, TO_BE_CHANGED = "to find things in", "to be changed"
ENDED = {"finished", "failed", "skipped", "cancelled", "error"}
#: What makes a resource, of which kind, and where.
COLLECTIONS = {
    "createProject": ("project", "/projects"),
    "createProjectBranch": ("branch", "/projects/{}/branches"),
    "createProjectEndpoint": ("endpoint", "/projects/{}/endpoints"),
}
#: What changes or deletes a resource for good.
FOR_GOOD = {
    "deleteProject",
    "deleteProjectBranch",
    "updateProjectBranch",
    "deleteProjectBranchDatabase",
    "updateProjectBranchDatabase",
    "deleteProjectBranchRole",
    "deleteProjectEndpoint",
    "updateProjectEndpoint",
    "revokeApiKey",
    "revokeOrgApiKey",
}

session = requests.Session()
session.headers["authorization"] = f"Bearer {KEY}"
asked: Counter[str] = Counter()
projects: dict[str, dict[str, Any]] = {}
#: At which request each of them was last looked at: once for each is enough.
looked: dict[str, int] = {}
made: dict[str, deque[str]] = {kind: deque() for kind, _ in COLLECTIONS.values()}


def send(method: str, path: str, body: Any = None) -> requests.Response:
    """What the platform answers once no other operation is in the way."""
    return wait_for(lambda: _unlocked(session.request(method, URL + path, json=body, timeout=60)), what="its turn")[0]


def _unlocked(reply: requests.Response) -> tuple[requests.Response] | None:
    # In a tuple: a reply that is a refusal counts as false.
    return None if reply.status_code == 423 else (reply,)


def call(method: str, path: str, body: Any = None) -> Any:
    """The answer's JSON. A refusal is an error that shows it."""
    reply = send(method, path, body)
    if not reply.ok:
        raise RuntimeError(f"{method} {path}: {reply.status_code} {reply.text}")
    return reply.json()


def settle(project: str) -> None:
    def ended() -> bool:
        found = send("GET", f"/projects/{project}/operations")
        return not found.ok or all(one["status"] in ENDED for one in found.json()["operations"])

    wait_for(ended, what=f"the operations of {project}")


# What there is to find


@functools.cache
def organization() -> str:
    return str(call("GET", "/users/me/organizations")["organizations"][0]["id"])


def project(purpose: str) -> dict[str, Any]:
    """The project for this purpose, with all that came with it; made again when schemathesis has come upon it."""
    if looked.get(purpose) != asked.total():
        looked[purpose] = asked.total()
        if purpose not in projects or not is_whole(projects[purpose]):
            projects[purpose] = call("POST", "/projects", {"project": {}})
            settle(projects[purpose]["project"]["id"])
    return projects[purpose]


def is_whole(whole: dict[str, Any]) -> bool:
    database, role, endpoint = whole["databases"][0]["name"], whole["roles"][0]["name"], whole["endpoints"][0]["id"]
    query = f"database_name={database}&role_name={role}&endpoint_id={endpoint}"
    return send("GET", f"/projects/{whole['project']['id']}/connection_uri?{query}").ok


def lasting(name: str) -> Any:
    """Something that is there for the whole run."""
    whole = project(LASTING)
    match name:
        case "project_id" | "branch_id" | "endpoint_id":
            kind = name.removesuffix("_id")
            return (whole["endpoints"][0] if kind == "endpoint" else whole[kind])["id"]
        case "database_name":
            return whole["databases"][0]["name"]
        case "role_name":
            return whole["roles"][0]["name"]
        case "operation_id":
            return whole["operations"][0]["id"]
        case "org_id":
            return organization()
    return None


def fresh(operation: str, name: str) -> Any:
    """Something that `operation` may do away with; what else is in its path lasts."""
    place = f"/projects/{lasting('project_id')}"
    branch = f"{place}/branches/{lasting('branch_id')}"
    label = f"fresh{asked.total()}"
    found: Any = None
    match name:
        case "project_id" if operation == "deleteProject":
            return project(label)["project"]["id"]
        case "branch_id" if operation in ("deleteProjectBranch", "updateProjectBranch"):
            found = call("POST", f"{place}/branches", {})["branch"]["id"]
            keep("branch", f"{place}/branches/{found}")
        case "endpoint_id":
            body = {"endpoint": {"branch_id": lasting("branch_id"), "type": "read_only", "disabled": True}}
            found = call("POST", f"{place}/endpoints", body)["endpoint"]["id"]
            keep("endpoint", f"{place}/endpoints/{found}")
        case "database_name":
            body = {"database": {"name": label, "owner_name": lasting("role_name")}}
            found = call("POST", f"{branch}/databases", body)["database"]["name"]
        case "role_name":
            found = call("POST", f"{branch}/roles", {"role": {"name": label}})["role"]["name"]
        case "key_id":
            keys = "/api_keys" if operation == "revokeApiKey" else f"/organizations/{organization()}/api_keys"
            found = call("POST", keys, {"key_name": label})["id"]
    settle(str(lasting("project_id")))
    return lasting(name) if found is None else found


# What schemathesis calls


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    operation = case.operation.definition.raw["operationId"]
    asked[operation] += 1
    if asked[operation] % (4 if operation in FOR_GOOD else 2) == 1:
        lead(operation, case)
    if "key_id" in case.path_parameters:
        with contextlib.suppress(ValueError):
            if int(str(case.path_parameters["key_id"])) == OWN_KEY_ID:
                case.path_parameters["key_id"] = OWN_KEY_ID + 1_000_000
    # Other majors of Postgres would be fetched.
    wanted = case.body.get("project") if isinstance(case.body, dict) else None
    if isinstance(wanted, dict) and wanted.get("pg_version") in (14, 15, 16, 18):
        wanted["pg_version"] = 17


def lead(operation: str, case: Any) -> None:
    """Point the request at what there is."""
    find = functools.partial(fresh, operation) if operation in FOR_GOOD else lasting
    for name in list(case.path_parameters):
        if (found := find(name)) is not None:
            case.path_parameters[name] = found
    if operation == "updateProject":
        # Its defaults for endpoints may be such that no other endpoint can be made in it.
        case.path_parameters["project_id"] = project(TO_BE_CHANGED)["project"]["id"]
    if operation == "getConnectionURI":
        case.query = {name: lasting(name) for name in ("database_name", "role_name")}
    endpoint = case.body.get("endpoint") if isinstance(case.body, dict) else None
    if operation == "createProjectEndpoint" and isinstance(endpoint, dict) and "branch_id" in endpoint:
        endpoint["branch_id"] = lasting("branch_id")
    database = case.body.get("database") if isinstance(case.body, dict) else None
    if isinstance(database, dict) and "owner_name" in database:
        database["owner_name"] = lasting("role_name")


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    operation = case.operation.definition.raw["operationId"]
    with RECORD.open("a") as record:
        record.write(f"{operation} {response.status_code}\n")
    if response.status_code not in (200, 201) or case.method.upper() == "GET" or operation == "deleteProject":
        return
    answer = response.json()
    place = answer["project"]["id"] if operation == "createProject" else case.path_parameters.get("project_id")
    if place is None:
        return
    settle(place)
    if operation in COLLECTIONS:
        kind, collection = COLLECTIONS[operation]
        keep(kind, f"{collection.format(place)}/{answer[kind]['id']}")


def keep(kind: str, path: str) -> None:
    """Remember the newest of a kind, and delete the oldest where there are too many. One that may not go stays."""
    made[kind].append(path)
    while len(made[kind]) > KEPT:
        oldest = made[kind].popleft()
        send("DELETE", oldest)
        if kind != "project":
            settle(oldest.split("/")[2])
