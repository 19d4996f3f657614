"""Examples: for every operation a reply that the contract allows, whatever fields a test asks for."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter

from lamplighter.api.models.branches import Branch
from lamplighter.api.operations import OPERATIONS
from lamplighter.testing import example
from lamplighter.testing.examples import build

WITH_REPLY = [name for name, operation in OPERATIONS.items() if operation.reply is not None]


@pytest.mark.parametrize("name", WITH_REPLY)
def test_the_example_of_every_operation_is_what_the_contract_says(name):
    """Read as strictly as can be: no null, no unknown value of an enum, no time without a zone."""
    reply = json.dumps(example(name))

    TypeAdapter(OPERATIONS[name].reply).validate_json(reply, strict=True)


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if operation.reply is None])
def test_an_operation_without_a_reply_has_no_example_fields(name):
    assert example(name) is None
    with pytest.raises(TypeError, match="answers without fields"):
        example(name, name="app")


def test_a_field_goes_to_the_one_resource_that_has_it():
    assert example("getProject", name="app")["project"]["name"] == "app"
    assert example("getProject", name="app") == example("getProject", project={"name": "app"})


def test_fields_of_a_resource_and_the_resource_itself_go_together():
    branch = example("createProjectBranch", branch={"protected": True}, name="dev")["branch"]

    assert (branch["protected"], branch["name"]) == (True, "dev")


def test_a_field_at_the_top_of_the_reply_stays_there():
    assert example("countProjectBranches", count=7) == {"count": 7}


def test_a_field_that_several_resources_have_is_refused_with_the_ways_to_say_it():
    with pytest.raises(TypeError, match=r"say which: branch=\{'name': ...\} or project=\{'name': ...\}"):
        example("createProject", name="app")


def test_a_field_that_the_reply_does_not_have_is_refused_with_those_that_it_has():
    with pytest.raises(TypeError, match="no field nmae; at its top are project"):
        example("getProject", nmae="app")


def test_an_unknown_operation_is_refused_with_those_that_are_near():
    with pytest.raises(ValueError, match="did you mean getProject "):
        example("getProjct")


def test_items_of_a_list_are_completed_and_differ_in_their_ids():
    page = example("listProjectBranches", branches=[{"name": "main"}, {"name": "dev"}])

    assert [branch["name"] for branch in page["branches"]] == ["main", "dev"]
    assert len({branch["id"] for branch in page["branches"]}) == 2
    assert len({branch["project_id"] for branch in page["branches"]}) == 1


def test_a_reply_that_is_a_list_takes_no_fields():
    assert example("listApiKeys") == []
    with pytest.raises(TypeError, match="list"):
        example("listApiKeys", name="ci")


def test_nothing_is_left_to_wait_for():
    """A client that waits for what an example started must not wait for ever."""
    reply = example("createProjectBranch", operations=[{}], endpoints=[{}])

    assert reply["operations"][0]["status"] == "finished"
    assert reply["endpoints"][0]["current_state"] == "active"
    assert reply["branch"]["current_state"] == "ready"


def test_models_and_times_are_taken_as_fields():
    moment = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
    branch = TypeAdapter(Branch).validate_python(build(Branch, {"name": "dev"}))

    assert example("getProjectBranch", expires_at=moment)["branch"]["expires_at"] == "2026-05-01T12:30:00Z"
    assert example("getProjectBranch", branch=branch)["branch"]["name"] == "dev"


def test_what_has_no_form_in_json_is_refused():
    with pytest.raises(TypeError, match="set has no form in JSON"):
        example("getProject", name={"a"})


def test_an_optional_part_is_left_out_until_it_is_given_and_then_completed():
    assert "pagination" not in example("listProjects")
    assert example("listProjects", pagination={})["pagination"] == {"cursor": "cursor-1"}


def test_of_two_forms_the_one_that_fits_is_completed():
    """An email server is either one's own, with all its fields, or Neon's shared one, with none."""
    assert example("getNeonAuthEmailProvider").keys() >= {"host", "port"}
    own = example("getNeonAuthPluginConfigs", email_provider={"host": "mail.example.test"})["email_provider"]
    assert own.keys() >= {"host", "port", "username"}
