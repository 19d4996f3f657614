"""`lamp api`: what is meant, and what is said of it. Nothing is called."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from lamplighter.api.operations import OPERATIONS
from lamplighter.cli.answers import items_of, joined
from lamplighter.cli.api import Given, is_changed, operation_of, planned
from lamplighter.cli.catalogue import by_name, by_path, client_name, described, listed, methods_at
from lamplighter.cli.commands import lamp
from lamplighter.cli.errors import Failure
from lamplighter.cli.session import Options, Session

PROJECT = "calm-sun-12345678"


def session(**options: Any) -> Session:
    return Session(Options(**options))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(lamp, ["api", *arguments])


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.id)
def test_every_operation_is_found_and_described(operation: Any) -> None:
    """By its id, by its name in the SDK, and by its path."""
    assert by_name(operation.id) is operation
    assert by_name(operation.id.upper()) is operation
    assert by_name(client_name(operation)) is operation
    assert by_path(operation.method, operation.path) is operation
    facts = described(operation)
    assert facts["text"]
    json.dumps(facts)
    assert {parameter["name"] for parameter in facts["parameters"]} >= {
        parameter.name for parameter in operation.parameters
    }


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.id)
def test_a_path_with_ids_is_the_same_operation(operation: Any) -> None:
    path = operation.path
    for parameter in operation.parameters:
        path = path.replace(f"{{{parameter.name}}}", "some-thing-1")
    assert by_path(operation.method, path) is operation


def test_the_more_literal_path_wins() -> None:
    found = by_path("GET", "/projects/shared")
    assert found is not None
    assert found.id == "listSharedProjects"
    assert methods_at("/projects") == ["GET", "POST"]


def test_the_list_says_what_is_served() -> None:
    rows = listed()
    assert len(rows) == len(OPERATIONS)
    assert {row["id"] for row in rows if row["served"]} == {one.id for one in OPERATIONS.values() if one.served}
    assert {row["id"] for row in listed("SNAPSHOT")} >= {"createSnapshot", "getSnapshotSchedule"}


def test_list_prints_a_table_or_what_was_asked_for() -> None:
    assert run("--list", "snapshot").output.startswith("ID ")
    rows = json.loads(run("--list", "-o", "json").output)
    assert len(rows) == len(OPERATIONS)
    assert run("--list", "-o", "csv").stdout_bytes.startswith(b"id,method,path,name,served\r\n")


def test_describe_shows_types_and_limits() -> None:
    said = run("createProjectBranch", "--describe").output
    assert "POST /projects/{project_id}/branches" in said
    assert "neon.branches.create(...)" in said
    assert "integer -1..604800" in said
    assert "read_only | read_write" in said
    limit = next(row for row in described(OPERATIONS["listProjects"])["parameters"] if row["name"] == "limit")
    assert limit["type"] == "integer 1..400"
    assert not limit["required"]


def test_describe_of_a_path_shows_all_that_is_there() -> None:
    said = run(f"/projects/{PROJECT}", "--describe").output
    assert all(f"{name}: " in said for name in ("getProject", "updateProject", "deleteProject"))
    facts = json.loads(run("/projects", "-X", "POST", "--describe", "-o", "json").output)
    assert facts["id"] == "createProject"
    assert facts["body_required"] is True


def test_a_call_by_id() -> None:
    given = Given(query=("limit=5", "sort_by=name"), params=(f"project_id={PROJECT}",))
    call = planned(session(), "listProjectBranches", given)
    assert (call.method, call.path, call.body) == ("GET", f"/projects/{PROJECT}/branches", None)
    assert call.query == {"limit": ["5"], "sort_by": ["name"]}


def test_a_call_by_path_is_get_or_post() -> None:
    given = Given(fields=("project.name=1",))
    call = planned(session(), "/projects", given)
    assert (call.method, call.path, call.body) == ("POST", "/projects", {"project": {"name": "1"}})
    for path in ("projects/?limit=3", "/api/v2/projects?limit=3"):
        call = planned(session(), path, Given())
        assert (call.method, call.path, call.query) == ("GET", "/projects", {"limit": ["3"]})


def test_places_are_filled_from_options() -> None:
    call = planned(session(project_id=PROJECT, org_id="org-x-1"), "listProjectEndpoints", Given())
    assert call.path == f"/projects/{PROJECT}/endpoints"
    call = planned(session(org_id="org-x-1"), "/organizations/{org_id}/members", Given())
    assert call.path == "/organizations/org-x-1/members"


def test_what_is_changed_is_named_and_what_is_added_to_need_not_be() -> None:
    """Or a forgotten parameter would restore the default branch."""
    branch = "/projects/{project_id}/branches/{branch_id}"
    for method, path in (("POST", "/restore"), ("POST", "/snapshot"), ("PUT", "/backup_schedule"), ("DELETE", "/auth")):
        assert is_changed(method, branch + path, "branch_id"), path
    for method, path in (("POST", "/roles"), ("POST", "/databases"), ("GET", "/schema"), ("POST", "/auth")):
        assert not is_changed(method, branch + path, "branch_id"), path
    assert not is_changed("POST", "/projects/{project_id}/branches", "project_id")
    assert is_changed("PATCH", "/projects/{project_id}", "project_id")


def test_what_goes_into_a_path_is_escaped() -> None:
    params = (f"project_id={PROJECT}", "branch_id=br-x", "role_name=a/../b?c")
    call = planned(session(), "getProjectBranchRole", Given(params=params))
    assert call.path.endswith("/roles/a%2F..%2Fb%3Fc")


def test_what_the_contract_does_not_know_is_sent_as_it_is() -> None:
    call = planned(session(), "/from/the/future", Given(method="PUT", fields=("a=1",)))
    assert (call.method, call.path, call.body, call.operation) == ("PUT", "/from/the/future", {"a": 1}, None)


@pytest.mark.parametrize(
    ("target", "given", "said"),
    [
        ("listProject", Given(), "no operation 'listProject'"),
        ("listProjects", Given(method="POST"), "is a GET"),
        ("/projects/x/branches/y/restore", Given(), "no GET"),
        ("https://host/projects", Given(), "the path alone"),
        ("deleteProjectBranch", Given(params=(f"project_id={PROJECT}",)), "needs branch_id"),
        ("deleteProject", Given(), "needs project_id"),
        ("restoreProjectBranch", Given(params=(f"project_id={PROJECT}",)), "needs branch_id"),
        ("setDefaultProjectBranch", Given(params=(f"project_id={PROJECT}",)), "needs branch_id"),
        ("disableNeonAuth", Given(params=(f"project_id={PROJECT}",)), "needs branch_id"),
        ("getProject", Given(params=("project_id=..",)), "cannot be '..'"),
        ("getProject", Given(params=("project=x",)), "has no {project}"),
        ("listProjects", Given(fields=("a=b",)), "takes no body"),
        ("createProject", Given(fields=("a=b",), data="{}"), "the body once"),
        ("createProject", Given(data="{"), "no JSON"),
    ],
)
def test_calls_that_make_no_sense_are_refused(target: str, given: Given, said: str) -> None:
    """Before anything is sent, as a wrong usage."""
    with pytest.raises(Failure) as caught:
        planned(session(), target, given)
    assert said in caught.value.message
    assert caught.value.exit_code == 2


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(Failure) as caught:
        operation_of("branches.creat", Given())
    assert "branches.create" in caught.value.hint


def test_a_wrong_field_is_a_wrong_usage() -> None:
    result = run("createProject", "-F", "name")
    assert result.exit_code == 2
    assert "name=value" in result.output


def test_pages_are_joined() -> None:
    pages = [
        {"branches": [1, 2], "annotations": {"a": 1}, "pagination": {"next": "x"}},
        {"branches": [3], "annotations": {"b": 2}, "pagination": {"next": "y"}},
    ]
    assert joined(pages) == {"branches": [1, 2, 3], "annotations": {"a": 1, "b": 2}}
    assert joined([[1], [2]]) == [1, 2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"branches": [1], "pagination": {}}, [1]),
        ({"project": {"id": 1}}, {"id": 1}),
        ({"id": 1, "name": "x"}, {"id": 1, "name": "x"}),
        ([1], [1]),
    ],
)
def test_a_table_shows_what_an_answer_is_about(value: Any, shown: Any) -> None:
    assert items_of(value) == shown
