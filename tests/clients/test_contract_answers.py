"""Every operation of the table by plain HTTP: what is served answers as the table says, what is not says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel, TypeAdapter

from lamplighter.api.operations import OPERATIONS, Operation
from support.lamp import Lamp

SERVED = [operation for operation in OPERATIONS.values() if operation.served]
UNSERVED = [operation for operation in OPERATIONS.values() if not operation.served]
#: What nobody has enabled is not there: Neon's CLI takes that well, and a 501 badly.
NEVER_ENABLED = {"getNeonAuth", "getProjectBranchDataAPI"}

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def by_id(operation: Operation) -> str:
    return operation.id


@dataclass
class Tour:
    """Calls operations by their id and keeps every answer, refused or not."""

    lamp: Lamp
    client: httpx2.Client
    answers: dict[str, list[httpx2.Response]] = field(default_factory=dict)

    def __call__(self, operation_id: str, body: Any = None, /, **values: Any) -> Any:
        operation = OPERATIONS[operation_id]
        path = operation.path.format(**values)
        query = {name: value for name, value in values.items() if f"{{{name}}}" not in operation.path}
        answer = self.client.request(operation.method, path, json=body, params=query)
        self.answers.setdefault(operation_id, []).append(answer)
        return answer.json() if answer.content else None


def account(tour: Tour) -> dict[str, Any]:
    """Who one is, keys and the organization. Answers where the organization is."""
    tour("getCurrentUserInfo")
    tour("getAuthDetails")
    tour("getActiveRegions")
    org_id = tour("getCurrentUserOrganizations")["organizations"][0]["id"]
    tour("getOrganization", org_id=org_id)
    tour("getOrganizationMembers", org_id=org_id)
    key = tour("createApiKey", {"key_name": "tour"})
    tour("listApiKeys")
    tour("revokeApiKey", key_id=key["id"])
    return {"org_id": org_id}


def project(tour: Tour, org_id: str) -> dict[str, Any]:
    """A project, its settings and keys. Answers the path of its default branch."""
    made = tour("createProject", {"project": {"name": "tour", "branch": {"annotations": {"a": "b"}}}})
    place = {"project_id": made["project"]["id"]}
    tour.lamp.settle(place["project_id"])
    key = tour("createOrgApiKey", {"key_name": "scoped", "project_id": place["project_id"]}, org_id=org_id)
    tour("createOrgApiKey", {"key_name": "wide"}, org_id=org_id)
    tour("listOrgApiKeys", org_id=org_id)
    tour("revokeOrgApiKey", org_id=org_id, key_id=key["id"])
    tour("listProjects", limit=400)
    tour("listProjects", cursor="zzzz")
    tour("listSharedProjects")
    tour("getProject", **place)
    tour("updateProject", {"project": {"name": "tour again"}}, **place)
    tour("getConnectionURI", **place, database_name="neondb", role_name="neondb_owner")
    operations = tour("listProjectOperations", **place)["operations"]
    tour("getProjectOperation", **place, operation_id=operations[0]["id"])
    return {**place, "branch_id": made["branch"]["id"]}


def branches(tour: Tour, place: Mapping[str, Any]) -> str:
    """A branch with a compute and what may be done with it. Answers its endpoint's id."""
    project_id = place["project_id"]
    wanted = {
        "branch": {"name": "dev", "expires_at": "2099-01-01T00:00:00Z"},
        "endpoints": [{"type": "read_write"}],
        "annotation_value": {"owner": "tests"},
    }
    tour("createProjectBranch", wanted, project_id=project_id)  # too far ahead: a refusal is an answer too
    del wanted["branch"]["expires_at"]
    made = tour("createProjectBranch", wanted, project_id=project_id)
    tour.lamp.settle(project_id)
    dev = {"project_id": project_id, "branch_id": made["branch"]["id"]}
    tour("listProjectBranches", project_id=project_id)
    tour("countProjectBranches", project_id=project_id)
    tour("getProjectBranch", **dev)
    tour("updateProjectBranch", {"branch": {"name": "test", "expires_at": None}}, **dev)
    tour("setDefaultProjectBranch", **dev)
    tour("setDefaultProjectBranch", **place)
    tour("listProjectBranchEndpoints", **dev)
    bare = tour("createProjectBranch", project_id=project_id)
    tour.lamp.settle(project_id)
    tour("deleteProjectBranch", project_id=project_id, branch_id=bare["branch"]["id"])
    tour.lamp.settle(project_id)
    tour("deleteProjectBranch", project_id=project_id, branch_id=bare["branch"]["id"])
    return str(made["endpoints"][0]["id"])


def roles_and_databases(tour: Tour, place: Mapping[str, Any]) -> None:
    def changing(operation_id: str, body: Any = None, /, **values: Any) -> None:
        tour(operation_id, body, **place, **values)
        tour.lamp.settle(place["project_id"])

    changing("createProjectBranchRole", {"role": {"name": "baker"}})
    changing("createProjectBranchRole", {"role": {"name": "group", "no_login": True}})
    tour("listProjectBranchRoles", **place)
    tour("getProjectBranchRole", **place, role_name="baker")
    tour("getProjectBranchRolePassword", **place, role_name="baker")
    changing("resetProjectBranchRolePassword", role_name="baker")
    changing("createProjectBranchDatabase", {"database": {"name": "orders", "owner_name": "baker"}})
    tour("listProjectBranchDatabases", **place)
    tour("getProjectBranchDatabase", **place, database_name="orders")
    changing("updateProjectBranchDatabase", {"database": {"name": "sales"}}, database_name="orders")
    changing("deleteProjectBranchDatabase", database_name="sales")
    changing("deleteProjectBranchDatabase", database_name="sales")
    changing("deleteProjectBranchRole", role_name="baker")
    changing("deleteProjectBranchRole", role_name="baker")


def endpoints(tour: Tour, place: Mapping[str, Any], read_write: str) -> None:
    project_id = place["project_id"]

    def changing(operation_id: str, body: Any = None, /, **values: Any) -> Any:
        answer = tour(operation_id, body, project_id=project_id, **values)
        tour.lamp.settle(project_id)
        return answer

    wanted = {"endpoint": {"branch_id": place["branch_id"], "type": "read_only"}}
    made = changing("createProjectEndpoint", wanted)
    tour("listProjectEndpoints", project_id=project_id)
    tour("getProjectEndpoint", project_id=project_id, endpoint_id=made["endpoint"]["id"])
    changing("suspendProjectEndpoint", endpoint_id=read_write)
    tour("getProjectEndpoint", project_id=project_id, endpoint_id=read_write)
    changing("startProjectEndpoint", endpoint_id=read_write)
    changing("restartProjectEndpoint", endpoint_id=read_write)
    changing("updateProjectEndpoint", {"endpoint": {"autoscaling_limit_max_cu": 0.5}}, endpoint_id=read_write)
    changing("deleteProjectEndpoint", endpoint_id=made["endpoint"]["id"])
    changing("deleteProjectEndpoint", endpoint_id=made["endpoint"]["id"])


@pytest.fixture(scope="module")
def client(lamp: Lamp) -> Iterator[httpx2.Client]:
    """A client without a key."""
    with httpx2.Client(base_url=lamp.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def tour(lamp: Lamp) -> Iterator[Tour]:
    """The answers to one way through all that is served."""
    headers = {"authorization": f"Bearer {lamp.key}"}
    with httpx2.Client(base_url=lamp.url, headers=headers, timeout=60) as client:
        made = Tour(lamp, client)
        organization = account(made)
        place = project(made, **organization)
        endpoint = branches(made, place)
        roles_and_databases(made, place)
        endpoints(made, place, endpoint)
        made("deleteProject", project_id=place["project_id"])
        yield made


@pytest.mark.parametrize("operation", SERVED, ids=by_id)
def test_an_answer_is_what_the_table_says(tour: Tour, operation: Operation):
    """Its status, and a body that is strictly of the reply model: no type bent, no null too many, no field unknown."""
    answers = tour.answers.get(operation.id, [])
    done = [answer for answer in answers if answer.status_code in operation.statuses]
    assert {answer.status_code for answer in done} == set(operation.statuses), [one.text for one in answers]
    for answer in done:
        if answer.status_code == 204:
            assert answer.content == b""
            continue
        assert answer.headers["content-type"] == "application/json"
        model = TypeAdapter(operation.reply).validate_json(answer.content, strict=True)
        assert unknown_fields(model) == []
        assert times_of_another_form(answer.json()) == []


@pytest.mark.parametrize("operation", SERVED, ids=by_id)
def test_an_answer_names_its_request(tour: Tour, operation: Operation):
    assert all(UUID.fullmatch(answer.headers["x-neon-ret-request-id"]) for answer in tour.answers[operation.id])


def test_what_was_refused_on_the_way_says_why(tour: Tour):
    refusals = [answer for answers in tour.answers.values() for answer in answers if not answer.is_success]
    assert [answer.json()["message"] for answer in refusals] == ["expires_at must be at most 30 days ahead"]
    assert all(set(answer.json()) == {"request_id", "code", "message"} for answer in refusals)


def unknown_fields(value: Any, place: str = "") -> list[str]:
    """Fields that no model knows, by where they are."""
    match value:
        case BaseModel():
            inner = [one for name in type(value).model_fields for one in unknown_fields(getattr(value, name), name)]
            return [f"{place}.{name}" for name in value.model_extra or {}] + inner
        case list():
            return [one for item in value for one in unknown_fields(item, place)]
        case _:
            return []


def times_of_another_form(value: Any) -> list[str]:
    """Moments that are not whole seconds in UTC."""
    match value:
        case dict():
            wrong = [
                f"{name}: {item}"
                for name, item in value.items()
                if name.endswith("_at") and isinstance(item, str) and not SECONDS.fullmatch(item)
            ]
            return wrong + [one for item in value.values() for one in times_of_another_form(item)]
        case list():
            return [one for item in value for one in times_of_another_form(item)]
        case _:
            return []


def anywhere(operation: Operation) -> str:
    """A path of the operation; where it leads does not matter."""
    return re.sub(r"{\w+}", "x-1", operation.path)


@pytest.mark.parametrize("operation", UNSERVED, ids=by_id)
def test_what_is_not_served_says_so(lamp: Lamp, client: httpx2.Client, operation: Operation):
    headers = {"authorization": f"Bearer {lamp.key}"}
    answer = client.request(operation.method, anywhere(operation), headers=headers)
    assert answer.status_code == (404 if operation.id in NEVER_ENABLED else 501)
    assert answer.json()["message"].startswith(f"{operation.id} is not ")
    assert answer.json()["message"].endswith("not available on this server")
    assert answer.json()["code"] == ""


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=by_id)
def test_nothing_is_told_without_a_key(lamp: Lamp, client: httpx2.Client, operation: Operation):
    """A missing key, a wrong one and another scheme are answered alike, whatever is asked for."""
    for headers in ({}, {"authorization": "Bearer napi_wrong"}, {"authorization": f"Basic {lamp.key}"}):
        answer = client.request(operation.method, anywhere(operation), headers=headers)
        assert answer.status_code == 401
        assert answer.json()["message"] == "supplied credentials do not pass authentication"
        assert answer.json()["code"] == ""
