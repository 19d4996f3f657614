"""The control plane put together: every operation has its route, and a request without a key gets no further.

Nothing is behind the routes here: what wires the features together touches neither the catalog nor the machine, and a
request that proves nobody is answered before either is asked.
"""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Match, Route

from lamplighter.api.operations import OPERATIONS
from lamplighter.control import app, recipes
from lamplighter.control.http.binding import (
    ANSWER_ID,
    BASE,
    Door,
    TableMismatch,
    application,
    check_table,
    path_order,
    routes,
)
from lamplighter.control.http.calls import EMPTY, Call, Reply
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.model import NewOperation

NOTHING: Any = object()
KERNEL = Kernel(catalog=NOTHING, plane=NOTHING, gateway=NOTHING, wake=NOTHING, sealer=NOTHING)
CONTROL = app.build(KERNEL)
APP = application(CONTROL.routes, Door(KERNEL, CONTROL.usage, None))
OPERATION = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.id)


def client(target: Starlette = APP) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=target), base_url="http://platform")


def route_of(method: str, path: str) -> Route:
    """The route that takes a request, as Starlette chooses it."""
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
    return next(cast("Route", route) for route in APP.routes if route.matches(scope)[0] is Match.FULL)


def example(path: str) -> str:
    """A path with values in it that no literal segment has."""
    return BASE + "/".join("a-value" if part.startswith("{") else part for part in path.split("/"))


# --- the table


def test_the_features_serve_what_the_table_calls_served():
    check_table(CONTROL.routes)
    assert set(CONTROL.routes) == {operation.id for operation in OPERATIONS.values() if operation.served}


async def nothing(_call: Call) -> Reply:
    return EMPTY


def test_a_difference_between_table_and_features_stops_the_platform_and_is_named():
    without = {name: handler for name, handler in CONTROL.routes.items() if name != "getProject"}
    with pytest.raises(TableMismatch) as mismatch:
        routes({**without, "inventProject": nothing}, Door(KERNEL, CONTROL.usage, None))
    assert (mismatch.value.unserved, mismatch.value.unlisted) == ({"getProject"}, {"inventProject"})
    assert "getProject" in str(mismatch.value)
    assert "inventProject" in str(mismatch.value)


@OPERATION
def test_every_operation_is_reached_by_its_own_path(operation):
    route = route_of(operation.method, example(operation.path))
    assert route.path == BASE + operation.path
    assert operation.method in (route.methods or ())


@pytest.mark.parametrize(
    ("path", "operation_id"),
    [
        ("/projects/shared", "listSharedProjects"),
        ("/projects/shared-not", "getProject"),
        ("/projects/p/branches/count", "countProjectBranches"),
        ("/projects/p/branches/b", "getProjectBranch"),
    ],
)
def test_a_literal_segment_is_not_taken_for_a_parameter(path, operation_id):
    assert route_of("GET", BASE + path).path == BASE + OPERATIONS[operation_id].path


def test_literals_come_before_parameters_at_every_place_of_a_path():
    in_order = [operation.path.split("/") for operation in sorted(OPERATIONS.values(), key=path_order)]
    for index, earlier in enumerate(in_order):
        for later in in_order[index + 1 :]:
            pairs = list(zip(earlier, later, strict=False))
            differing = next(((one, other) for one, other in pairs if one != other), ("", ""))
            assert not (differing[0].startswith("{") and not differing[1].startswith("{"))


# --- requests that prove nobody


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic abc"}], ids=["none", "basic"])
async def test_without_a_key_every_operation_answers_401_in_neons_body(headers):
    async with client() as http:
        for operation in OPERATIONS.values():
            answer = await http.request(operation.method, example(operation.path), headers=headers)
            assert answer.status_code == 401, operation.id
            assert answer.json() == {
                "request_id": answer.headers[ANSWER_ID],
                "code": "",
                "message": "supplied credentials do not pass authentication",
            }


async def test_a_request_id_comes_back_in_header_and_body():
    async with client() as http:
        answer = await http.get(f"{BASE}/projects", headers={"X-Request-ID": "mine-1"})
    assert answer.headers[ANSWER_ID] == answer.json()["request_id"] == "mine-1"


async def test_without_one_an_id_is_made():
    async with client() as http:
        answer = await http.get(f"{BASE}/projects")
    assert UUID(answer.headers[ANSWER_ID])


@pytest.mark.parametrize("path", ["/", "/projects", BASE, f"{BASE}/nothing", f"{BASE}/projects/", f"{BASE}/projects//"])
async def test_a_path_that_is_not_there_answers_404_in_neons_body(path):
    async with client() as http:
        answer = await http.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"request_id", "code", "message"}
    assert answer.json()["request_id"] == answer.headers[ANSWER_ID]


async def test_a_method_that_is_not_there_answers_405_and_says_which_are():
    async with client() as http:
        answer = await http.put(f"{BASE}/regions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.json()["message"] == "this method is not allowed on this route"
    assert answer.json()["request_id"] == answer.headers[ANSWER_ID]


async def test_a_path_of_several_operations_says_all_their_methods():
    async with client() as http:
        answer = await http.put(example("/projects/{project_id}"))
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH"


async def test_a_fault_of_ours_answers_500_without_telling_what_it_was():
    # The placeholder is no catalog: a request with a key runs into that.
    async with client() as http:
        answer = await http.get(f"{BASE}/projects", headers={"authorization": "Bearer napi_key"})
    assert answer.status_code == 500
    assert answer.json()["request_id"] == answer.headers[ANSWER_ID]
    assert "object" not in answer.text
    assert "napi_key" not in answer.text


# --- operations of the engine

KINDS = {name: value for name, value in vars(recipes).items() if name.isupper()}


def test_every_kind_of_operation_has_its_recipe_and_every_recipe_its_kind():
    assert set(CONTROL.recipes) == set(KINDS.values())
    assert len(set(KINDS.values())) == len(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS.values()))
def test_a_recipe_is_of_its_kind_and_has_steps_of_different_names(kind):
    recipe = CONTROL.recipes[kind]
    names = [step.name for step in recipe.steps]
    assert recipe.kind == kind
    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "operation",
    [
        recipes.start("br", "ep"),
        recipes.suspend("br", "ep"),
        recipes.configure("br", "ep"),
        recipes.remove_endpoint("br", "ep"),
        recipes.apply("br", "ep"),
        recipes.apply("br", None),
        recipes.remove_branch("br"),
        recipes.remove_project(),
    ],
    ids=lambda operation: operation.kind,
)
def test_what_is_scheduled_can_be_run(operation: NewOperation):
    assert operation.kind in CONTROL.recipes
    assert operation.visible is (operation.kind != recipes.PROJECT_DELETE)
