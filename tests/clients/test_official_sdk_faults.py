"""What PyPI `neon-api` 0.3.0 does wrong, by ours and by theirs, against one server that does as a script says.

Each test shows that ours does it right; and that theirs still fails, so that the test says something.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from neon_api import NeonAPI, exceptions
from pydantic import ValidationError

from lamplighter.client import errors
from lamplighter.testing import example
from support.both import WAYS, one
from support.scripted import Scripted, Step, refuses, says

PROJECT, BRANCH = "calm-lake-00000001", "br-calm-lake-00000001"

#: A server with that script, for as long as the test goes on.
Serve = Callable[..., Scripted]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as servers:
        yield lambda *steps: servers.enter_context(Scripted(*steps))


@pytest.fixture
def theirs() -> Iterator[Callable[[Scripted], NeonAPI]]:
    with contextlib.ExitStack() as sessions:

        def made(server: Scripted) -> NeonAPI:
            api = NeonAPI("napi_theirs", base_url=f"{server.url}/")
            # It has no way of its own, and an open socket is a warning.
            sessions.callback(api._session.close)
            return api

        yield made


Theirs = Callable[[Scripted], NeonAPI]


def routes(server: Scripted) -> list[str]:
    """Method and path of all that was asked."""
    return [f"{asked.method} {asked.target.partition('?')[0].removeprefix('/api/v2')}" for asked in server.asked]


def plain(operation_id: str, **fields: Any) -> Any:
    """The least that Neon answers, as JSON that a test may change."""
    return json.loads(json.dumps(example(operation_id, **fields)))


def operation(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = plain("getProjectOperation")["operation"]
    return {**found, "id": "0b5f2c1e-9a63-4d8e-8f1f-3c2d1e0b5f2c", **fields}


@pytest.mark.parametrize("field", ["action", "status"])
def test_an_operation_of_a_kind_that_came_later(serve: Serve, theirs: Theirs, way: str, field: str) -> None:
    """Neon adds actions without notice: a project whose list has one of them could not be read at all."""
    server = serve(says(200, {"operations": [operation(), operation(**{field: "reticulate_splines"})]}))
    found = one(way, server.url, lambda neon: neon.operations.list(PROJECT).page())
    assert getattr(found.items[1], field) == "reticulate_splines"
    with pytest.raises(ValidationError, match=field):
        theirs(server).operations(PROJECT)


def test_a_field_that_came_later(serve: Serve, theirs: Theirs, way: str) -> None:
    """It is kept: a program can use it before there is a new version of the client."""
    server = serve(says(200, {"operation": operation(cost_cents=7), "warnings": ["slow"]}))
    raw = one(way, server.url, lambda neon: neon.operations.with_raw_response.get(PROJECT, operation()["id"]))
    assert raw.parse().cost_cents == 7
    assert json.loads(raw.content)["warnings"] == ["slow"]
    lost = theirs(server).operation(PROJECT, operation()["id"])
    assert not hasattr(lost.operation, "cost_cents")
    assert not hasattr(lost, "warnings")


def test_an_answer_without_a_body(serve: Serve, theirs: Theirs, way: str) -> None:
    """204: what was to be deleted was gone already."""
    server = serve(says(204))
    assert one(way, server.url, lambda neon: neon.roles.delete(PROJECT, BRANCH, "baker")) is None
    assert one(way, server.url, lambda neon: neon.branches.delete(PROJECT, BRANCH, wait=True)) is None
    with pytest.raises(requests.exceptions.JSONDecodeError):
        theirs(server).role_delete(PROJECT, BRANCH, "baker")


def test_a_password_is_asked_for_as_it_is_answered(serve: Serve, theirs: Theirs, way: str) -> None:
    """With a GET, which may be repeated. There is no such POST."""

    def reveal(connection: Any, asked: Any) -> bool | None:
        step = says(200, {"password": "npg_1"}) if asked.method == "GET" else refuses(405, "method not allowed")
        return step(connection, asked)

    server = serve(reveal)
    assert one(way, server.url, lambda neon: neon.roles.reveal_password(PROJECT, BRANCH, "baker")) == "npg_1"
    with pytest.raises(exceptions.NeonAPIError, match="method not allowed"):
        theirs(server).role_password_reveal(PROJECT, BRANCH, "baker")
    path = f"/projects/{PROJECT}/branches/{BRANCH}/roles/baker/reveal_password"
    assert routes(server) == [f"GET {path}", f"POST {path}"]


def test_a_permission_is_revoked_by_its_id(serve: Serve, theirs: Theirs, way: str) -> None:
    """There is no DELETE of all permissions, and were there one, that would be what was asked for."""
    server = serve(says(200, plain("revokePermissionFromProject")))
    one(way, server.url, lambda neon: neon.permissions.revoke(PROJECT, "perm-1"))
    theirs(server).project_permissions_revoke(PROJECT, email="a@example.com")
    path = f"DELETE /projects/{PROJECT}/permissions"
    assert routes(server) == [f"{path}/perm-1", path]
    assert server.asked[0].body == b""


def test_the_default_branch_is_set_where_there_is_a_route_for_it(serve: Serve, theirs: Theirs, way: str) -> None:
    server = serve(says(200, plain("setDefaultProjectBranch")))
    one(way, server.url, lambda neon: neon.branches.set_default(PROJECT, BRANCH))
    theirs(server).branch_set_as_primary(PROJECT, BRANCH)
    path = f"POST /projects/{PROJECT}/branches/{BRANCH}"
    assert routes(server) == [f"{path}/set_as_default", f"{path}/set_as_primary"]


def paged(names: list[str]) -> Step:
    """Branches, two on a page; the last page names another one, which is empty: as Neon does it."""

    def step(connection: Any, asked: Any) -> bool | None:
        start = int(parse_qs(urlsplit(asked.target).query).get("cursor", ["0"])[0])
        (branch,) = plain("listProjectBranches", branches=[{}])["branches"]
        items = [{**branch, "id": f"br-{name}", "name": name} for name in names[start : start + 2]]
        pagination = {"next": str(start + 2), "sort_by": "updated_at", "sort_order": "DESC"}
        body = {"branches": items, "annotations": {}, **({"pagination": pagination} if items else {})}
        return says(200, body)(connection, asked)

    return step


def test_the_second_page(serve: Serve, theirs: Theirs, way: str) -> None:
    """Theirs drops the cursor: who has more than a page of branches never sees the rest."""
    server = serve(paged(["a", "b", "c"]))
    found = one(way, server.url, lambda neon: neon.branches.list(PROJECT, limit=2).all())
    assert [each.name for each in found] == ["a", "b", "c"]
    first = theirs(server).branches(PROJECT, limit=2)
    assert [each.name for each in first.branches] == ["a", "b"]
    assert not hasattr(first, "pagination")


def test_an_error_has_a_status(serve: Serve, theirs: Theirs, way: str) -> None:
    """And a code and a message: a program need not read it out of a text."""
    step = says(404, {"code": "NOPE", "message": "project not found", "request_id": "r-1"})
    server = serve(step)
    with pytest.raises(errors.NotFound) as ours:
        one(way, server.url, lambda neon: neon.projects.get(PROJECT))
    seen = ours.value
    assert (seen.status, seen.code, seen.message, seen.request_id) == (404, "NOPE", "project not found", "r-1")
    with pytest.raises(exceptions.NeonAPIError) as error:
        theirs(server).project(PROJECT)
    assert error.value.response is None
    assert "404" not in str(error.value)


@pytest.mark.parametrize(
    "refusal",
    [refuses(423), refuses(429, retry_after="0"), refuses(429), refuses(503)],
    ids=["locked", "limited, with a time", "limited", "away"],
)
def test_a_refusal_that_passes_is_waited_out(serve: Serve, theirs: Theirs, way: str, refusal: Step) -> None:
    """The server did nothing, so even a POST is sent again."""
    made = says(201, plain("createProjectBranch"))
    server = serve(refusal, refusal, made)
    assert one(way, server.url, lambda neon: neon.branches.create(PROJECT, name="dev")).branch.id
    assert [asked.json() for asked in server.asked] == [{"branch": {"name": "dev"}}] * 3
    server.then(refusal, made)
    with pytest.raises(exceptions.NeonAPIError):
        theirs(server).branch_create(PROJECT, branch={"name": "dev"})
    assert len(server.asked) == 4


def test_a_creation_says_how_to_connect(serve: Serve, theirs: Theirs, way: str) -> None:
    """Password, connection string and operations are in no other answer."""
    server = serve(says(201, plain("createProject", roles=[{}], operations=[{}], connection_uris=[{}])))
    made = one(way, server.url, lambda neon: neon.projects.create(name="app"))
    assert made.connection_uris[0].connection_uri.startswith("postgresql://")
    assert made.roles
    assert made.operations
    lost = theirs(server).project_create(project={"name": "app"})
    assert not {"connection_uris", "roles", "operations"} & set(vars(lost))


def test_a_name_cannot_lead_elsewhere(serve: Serve, theirs: Theirs, way: str) -> None:
    """A slash or a question mark in a name is part of the name."""
    server = serve(says(200, plain("deleteProjectBranchRole")))
    name = "../../main?x=1"
    one(way, server.url, lambda neon: neon.roles.delete(PROJECT, BRANCH, name))
    theirs(server).role_delete(PROJECT, BRANCH, name)
    ours, wrong = (asked.target.removeprefix(f"/api/v2/projects/{PROJECT}/branches/") for asked in server.asked)
    assert ours == f"{BRANCH}/roles/..%2F..%2Fmain%3Fx%3D1"
    # That is the route that deletes a branch.
    assert wrong == "main?x=1"


@pytest.mark.parametrize("pooled", [True, False])
def test_truth_is_written_as_in_json(serve: Serve, theirs: Theirs, way: str, pooled: bool) -> None:
    server = serve(says(200, {"uri": "postgresql://x"}))
    names = {"database_name": "neondb", "role_name": "neondb_owner"}
    one(way, server.url, lambda neon: neon.projects.connection_uri(PROJECT, **names, pooled=pooled))
    theirs(server).connection_uri(PROJECT, **names, pooled=pooled)
    sent = [parse_qs(urlsplit(asked.target).query)["pooled"] for asked in server.asked]
    assert sent == [[str(pooled).lower()], [str(pooled)]]
