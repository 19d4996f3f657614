"""What each kind of key may do: the matrix of Neon's documentation, asked of every operation that is served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from lamplighter.api.operations import OPERATIONS, Operation
from support.lamp import Lamp
from support.tidy import only_for_now

SERVED = [operation for operation in OPERATIONS.values() if operation.served]

#: A refusal: status and text. What is not listed for a kind of key, that kind may do.
Refusal = tuple[int, str]
NOT_FOR_ORGANIZATIONS: Refusal = (404, "not allowed for organization API keys")
OUTSIDE: Refusal = (
    404,
    'not allowed to perform actions outside the project this key is scoped to; subject_project_id:"',
)

ORGANIZATION: dict[str, Refusal] = dict.fromkeys(
    ["listApiKeys", "createApiKey", "revokeApiKey", "getCurrentUserInfo", "getActiveRegions", "createOrgApiKey"],
    NOT_FOR_ORGANIZATIONS,
)
PROJECT: dict[str, Refusal] = {
    **dict.fromkeys(
        [
            "listApiKeys",
            "createApiKey",
            "revokeApiKey",
            "getCurrentUserInfo",
            "getCurrentUserOrganizations",
            "getActiveRegions",
            "getOrganization",
            "getOrganizationMembers",
            "listOrgApiKeys",
            "createOrgApiKey",
            "revokeOrgApiKey",
            "listProjects",
            "listSharedProjects",
            "deleteProject",
        ],
        OUTSIDE,
    ),
    "createProject": (403, "project-scoped keys are not allowed to create projects"),
}


@dataclass(frozen=True)
class World:
    """A project of the keys' own, another one, and a key of each kind."""

    client: httpx2.Client
    org_id: str
    own: str
    other: str
    keys: dict[str, str]

    def ask(self, operation: Operation, kind: str, *, project: str) -> httpx2.Response:
        """Ask for something that would not change anything: what it names is not there, or its body is not right."""
        values = {"org_id": self.org_id, "project_id": project, "key_id": "987654321"}
        values["operation_id"] = "00000000-0000-4000-8000-000000000000"
        path = re.sub(r"{(\w+)}", lambda found: values.get(found[1], "no-such-thing"), operation.path)
        headers = {"authorization": f"Bearer {self.keys[kind]}"}
        content = None if operation.method == "GET" else b"not JSON"
        return self.client.request(operation.method, path, headers=headers, content=content)


@pytest.fixture(autouse=True)
def tidy(lamp: Lamp) -> Iterator[None]:
    with only_for_now(lamp):
        yield


@pytest.fixture(scope="module")
def world(lamp: Lamp) -> Iterator[World]:
    own, other = lamp.project()["project"], lamp.project()["project"]
    keys = f"/organizations/{own['org_id']}/api_keys"
    with httpx2.Client(base_url=lamp.url, timeout=60) as client:
        yield World(
            client,
            own["org_id"],
            own["id"],
            other["id"],
            {
                "personal": lamp.key,
                "organization": lamp.call("POST", keys, {"key_name": "wide"})["key"],
                "project": lamp.call("POST", keys, {"key_name": "scoped", "project_id": own["id"]})["key"],
            },
        )


REFUSED: dict[str, dict[str, Refusal]] = {"personal": {}, "organization": ORGANIZATION, "project": PROJECT}
#: Nothing in a request for `deleteProject` could be wrong, so it would be done: by those who may, it is, further below.
ASKED = [
    (operation, kind)
    for operation in SERVED
    for kind, refused in REFUSED.items()
    if operation.id != "deleteProject" or operation.id in refused
]


@pytest.mark.parametrize(("operation", "kind"), ASKED, ids=lambda value: getattr(value, "id", value))
def test_what_a_key_may_do(world: World, operation: Operation, kind: str):
    """Refused as Neon refuses it, or answered as the owner's own key is."""
    expected = REFUSED[kind].get(operation.id)
    answer = world.ask(operation, kind, project=world.own)
    if expected is not None:
        status, text = expected
        assert (answer.status_code, answer.json()["message"][: len(text)]) == (status, text)
        return
    asked_by_owner = world.ask(operation, "personal", project=world.own)
    assert answer.status_code == asked_by_owner.status_code
    if not answer.is_success:
        assert answer.json()["message"] == asked_by_owner.json()["message"]


@pytest.mark.parametrize(
    "operation", [one for one in SERVED if "{project_id}" in one.path], ids=lambda operation: operation.id
)
def test_a_scoped_key_knows_of_no_other_project(world: World, operation: Operation):
    """Another project is answered like one that does not exist."""
    answer = world.ask(operation, "project", project=world.other)
    assert answer.status_code == 404
    unknown = world.ask(operation, "project", project="no-such-project-00000000")
    assert answer.json()["message"] == unknown.json()["message"]
    if operation.id not in PROJECT:
        assert answer.json()["message"] == "project not found"


def test_an_operation_that_is_not_served_is_so_for_every_key(world: World):
    for kind in world.keys:
        assert world.ask(OPERATIONS["listSnapshots"], kind, project=world.own).status_code == 501


def test_a_scoped_key_works_in_its_project(lamp: Lamp, world: World):
    """It makes branches, roles and databases there."""
    project = f"/projects/{world.own}"

    def ask(method: str, path: str, body: object = None) -> httpx2.Response:
        answer = lamp.request(method, project + path, body, key=world.keys["project"])
        lamp.settle(world.own)
        return answer

    branch = ask("POST", "/branches", {"branch": {"name": "scoped"}})
    assert branch.status_code == 201
    place = f"/branches/{branch.json()['branch']['id']}"
    assert ask("POST", f"{place}/roles", {"role": {"name": "baker"}}).status_code == 201
    body = {"database": {"name": "orders", "owner_name": "baker"}}
    assert ask("POST", f"{place}/databases", body).status_code == 201
    assert ask("DELETE", place).status_code == 200
    assert ask("PATCH", "", {"project": {"name": "renamed"}}).json()["project"]["name"] == "renamed"


def test_an_organization_key_makes_and_deletes_projects_of_its_organization(lamp: Lamp, world: World):
    """The organization is the key's own, without being named."""
    key = world.keys["organization"]
    made = lamp.request("POST", "/projects", {"project": {}}, key=key)
    assert made.status_code == 201
    project = made.json()["project"]
    assert project["org_id"] == world.org_id
    lamp.settle(project["id"])
    listed = lamp.request("GET", "/projects", key=key, limit=400).json()["projects"]
    assert {world.own, world.other, project["id"]} <= {one["id"] for one in listed}
    assert lamp.request("GET", "/users/me/organizations", key=key).json()["organizations"][0]["id"] == world.org_id
    assert lamp.request("GET", "/auth", key=key).json() == {"account_id": world.org_id, "auth_method": "api_key_org"}
    assert lamp.request("DELETE", f"/projects/{project['id']}", key=key).status_code == 200
    revoked = lamp.call("POST", f"/organizations/{world.org_id}/api_keys", {"key_name": "to go"})
    path = f"/organizations/{world.org_id}/api_keys/{revoked['id']}"
    assert lamp.request("DELETE", path, key=key).json()["revoked"] is True
    assert lamp.request("GET", "/projects", key=revoked["key"]).status_code == 401


def test_one_organization_does_not_reach_into_another(lamp: Lamp, world: World):
    """Unknown organizations and those of others: 404 and 403, never an answer."""
    for key in (world.keys["personal"], world.keys["organization"]):
        answer = lamp.request("GET", "/organizations/org-no-such-00000000", key=key)
        assert answer.status_code in (403, 404)
        answer = lamp.request("GET", "/projects", key=key, org_id="org-no-such-00000000")
        assert answer.status_code in (403, 404)


def test_keys_are_shown_once_and_never_by_a_list(lamp: Lamp, world: World):
    """Lists show neither the token nor `project_id` of a key that has none; the newest comes first."""
    listed = lamp.call("GET", f"/organizations/{world.org_id}/api_keys")
    assert all("key" not in one for one in listed)
    assert [one["id"] for one in listed] == sorted((one["id"] for one in listed), reverse=True)
    by_name = {one["name"]: one for one in listed}
    assert by_name["scoped"]["project_id"] == world.own
    assert "project_id" not in by_name["wide"]
    for one in listed:
        assert isinstance(one["created_by"], dict)


def test_the_use_of_a_key_is_noted(lamp: Lamp):
    made = lamp.call("POST", "/api_keys", {"key_name": "used"})

    def listed() -> dict[str, object]:
        return next(one for one in lamp.call("GET", "/api_keys") if one["id"] == made["id"])

    assert (listed()["last_used_at"], listed()["last_used_from_addr"]) == (None, "")
    assert lamp.request("GET", "/users/me", key=made["key"]).status_code == 200
    assert listed()["last_used_at"] is not None
    assert listed()["last_used_from_addr"] == "127.0.0.1"
