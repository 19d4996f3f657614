import json
import re

import pytest
from pydantic import TypeAdapter

from lamplighter.api.errors import NotServed
from lamplighter.api.operations import OPERATIONS
from lamplighter.control.http.openapi import document, errors_of, summary

DOCUMENT = document(server_url="http://127.0.0.1:8080/", version="1.2.3")
SCHEMAS = DOCUMENT["components"]["schemas"]

every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.id)


def described(operation):
    return DOCUMENT["paths"][operation.path][operation.method.lower()]


def walk(node):
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def resolve(reference):
    node = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def fields(schema):
    return set(resolve(schema["$ref"]).get("properties", {})) if "$ref" in schema else set()


def test_says_what_it_is_and_where():
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    assert DOCUMENT["servers"] == [{"url": "http://127.0.0.1:8080/api/v2"}]
    assert document(version="1")["servers"] == [{"url": "/api/v2"}]


def test_holds_the_table_and_nothing_else():
    listed = [described["operationId"] for item in DOCUMENT["paths"].values() for described in item.values()]
    assert sorted(listed) == sorted(OPERATIONS)


def test_is_plain_json():
    assert json.loads(json.dumps(DOCUMENT, allow_nan=False)) == DOCUMENT


def test_every_reference_leads_somewhere_and_every_component_is_used():
    references = {
        node["$ref"] for node in walk(DOCUMENT) if isinstance(node, dict) and isinstance(node.get("$ref"), str)
    }
    assert all(resolve(reference) for reference in references)
    assert {f"#/components/schemas/{name}" for name in SCHEMAS} <= references


@every_operation
def test_an_operation_is_described_whole(operation):
    told = described(operation)
    assert told["x-lamplighter-served"] is operation.served
    assert told["x-lamplighter-keys"] == sorted(operation.callers)
    assert told.get("deprecated", False) is operation.deprecated
    assert [(p["name"], p["in"], p["required"]) for p in told.get("parameters", [])] == [
        (p.name, p.where, p.required) for p in operation.parameters
    ]
    assert ("requestBody" in told) == (operation.body is not None)
    if operation.body is not None:
        assert told["requestBody"]["required"] is operation.body_required
        assert list(told["requestBody"]["content"]) == [operation.body_media]
    successes = {int(status) for status in told["responses"] if status.startswith("2")}
    assert successes == set(operation.statuses)
    assert "content" not in told["responses"].get("204", {})
    assert "default" in told["responses"]


@every_operation
def test_what_is_not_served_says_501_and_what_is_does_not(operation):
    assert ("501" in described(operation)["responses"]) is not operation.served
    assert (NotServed in errors_of(operation)) is not operation.served


@every_operation
def test_bodies_and_replies_have_the_fields_of_their_models(operation):
    told = described(operation)
    if operation.body is not None and hasattr(operation.body, "model_fields"):
        schema = told["requestBody"]["content"][operation.body_media]["schema"]
        assert fields(schema) == {field.alias or name for name, field in operation.body.model_fields.items()}
    if operation.reply is not None and hasattr(operation.reply, "model_fields"):
        schema = told["responses"][str(operation.status)]["content"]["application/json"]["schema"]
        assert fields(schema) == {field.alias or name for name, field in operation.reply.model_fields.items()}


@every_operation
def test_what_a_parameter_may_be_is_told(operation):
    for parameter, told in zip(operation.parameters, described(operation).get("parameters", []), strict=True):
        assert told["schema"]
        assert told["schema"].get("default") == parameter.default
        assert told["schema"]["type"] == TypeAdapter(parameter.type).json_schema()["type"]


def test_every_enum_lists_its_values():
    assert set(SCHEMAS["Operation"]["properties"]["status"]["enum"]) == {
        "scheduling",
        "running",
        "finished",
        "failed",
        "error",
        "cancelling",
        "cancelled",
        "skipped",
    }
    assert len(SCHEMAS["Operation"]["properties"]["action"]["enum"]) == 33


def test_only_what_the_contract_calls_nullable_may_be_null():
    nullable = {
        (name, field)
        for name, schema in SCHEMAS.items()
        for field, told in schema.get("properties", {}).items()
        if {"type": "null"} in told.get("anyOf", ())
    }
    assert ("BranchUpdate", "expires_at") in nullable
    assert ("ApiKeysListResponseItem", "last_used_at") in nullable
    assert ("BranchCreate", "expires_at") not in nullable
    assert ("Branch", "parent_id") not in nullable
    assert len(nullable) == 12


def test_no_default_is_null_and_nothing_is_named_twice():
    assert not [
        node for node in walk(SCHEMAS) if isinstance(node, dict) and "default" in node and node["default"] is None
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9]+", name) for name in SCHEMAS)


def test_errors_all_have_neons_body():
    for status in ("400", "404", "409", "423", "429", "default"):
        told = described(OPERATIONS["createProjectBranch"])["responses"][status]
        content = resolve(told["$ref"])["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/GeneralError"}
    assert set(SCHEMAS["GeneralError"]["required"]) == {"code", "message"}


@pytest.mark.parametrize(
    ("operation_id", "words"),
    [
        ("listProjects", "List projects"),
        ("getConnectionURI", "Get connection URI"),
        ("listOrganizationVPCEndpoints", "List organization VPC endpoints"),
        ("getConsumptionHistoryPerBranchV2", "Get consumption history per branch V2"),
    ],
)
def test_summaries_are_the_ids_in_words(operation_id, words):
    assert summary(operation_id) == words
