"""Whatever a client sends becomes typed values or a bad request, and never a fault of ours."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.datastructures import QueryParams

from lamplighter.api.errors import ApiError, BadRequest, PayloadTooLarge
from lamplighter.api.operations import OPERATIONS
from lamplighter.control.features.branches import plan as branch_plan
from lamplighter.control.features.projects import plan as project_plan
from lamplighter.control.http.calls import to_wire
from lamplighter.control.http.parsing import MAX_BODY, parse_body, parse_parameters

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SERVED = [operation for operation in OPERATIONS.values() if operation.served]
WITH_BODY = [operation for operation in SERVED if operation.body is not None]
CREATE, BRANCH = OPERATIONS["createProject"], OPERATIONS["createProjectBranch"]

OPERATION = pytest.mark.parametrize("operation", SERVED, ids=lambda operation: operation.id)
OPERATION_WITH_BODY = pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.id)


# --- what clients may send


def models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models(inner)]


def field_names(model: type[BaseModel]) -> set[str]:
    return {
        name
        for field, info in model.model_fields.items()
        for name in {field}.union(*(field_names(inner) for inner in models(info.annotation)))
    }


texts = st.one_of(
    st.sampled_from(["", "main", "br-a-b-c", "org-a", "read_write", "schema-only", "2026-11-22T12:00:00Z", "postgres"]),
    st.text(max_size=8),
)
floats = st.one_of(st.sampled_from([0.25, 1.0, 2.0, 8.0]), st.floats())
integers = st.one_of(st.integers(-2, 20), st.integers(), st.sampled_from([2**63, 10**400]))
scalars = st.one_of(st.none(), st.booleans(), integers, floats, texts)
PLAIN = {
    str: texts,
    datetime: texts,
    int: integers,
    float: floats,
    bool: st.booleans(),
    type(None): st.none(),
    Any: scalars,
}


def typed(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of about the right type: within no limits, and sometimes of no sense."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return objects(annotation)
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind in (Union, types.UnionType):
        return st.one_of(*(typed(one) for one in inner))
    if kind is list:
        return st.lists(typed(inner[0]), max_size=2)
    if kind is dict:
        return st.dictionaries(texts, typed(inner[1]), max_size=2)
    return typed(inner[0])


def objects(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: typed(info.annotation) for name, info in model.model_fields.items()}
    required = {name: strategy for name, strategy in fields.items() if model.model_fields[name].is_required()}
    return st.fixed_dictionaries(
        required, optional={**{name: one for name, one in fields.items() if name not in required}, "unknown": scalars}
    )


def junk(operation) -> st.SearchStrategy[Any]:
    """Any JSON, with the names that the operation knows."""
    names = st.sampled_from(sorted(field_names(operation.body))) | st.text(max_size=3)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=8,
    )


def outcome(call: Callable[[], Any]) -> tuple[BadRequest | None, Any]:
    """How a call ends: with a bad request or with a value. Nothing else may happen."""
    try:
        return None, call()
    except BadRequest as error:
        return error, None


def mangled(raw: bytes, at: float, new: bytes) -> bytes:
    place = int(at * len(raw))
    return raw[:place] + new + raw[place + 1 :]


# --- bodies


@OPERATION_WITH_BODY
@given(st.data())
@settings(max_examples=40)
def test_any_bytes_are_a_body_of_the_operations_model_or_refused(operation, data):
    value = st.one_of(typed(operation.body), junk(operation))
    as_json = st.builds(lambda value, ascii_: json.dumps(value, ensure_ascii=ascii_), value, st.booleans())
    encoded = as_json.map(lambda text: text.encode("utf-8", "surrogatepass"))
    raw = data.draw(
        st.one_of(
            st.binary(max_size=40),
            encoded,
            st.builds(mangled, encoded, st.floats(0, 1), st.binary(max_size=3)),
        )
    )
    refused, body = outcome(lambda: parse_body(operation, raw))
    if refused is not None:
        assert refused.message.startswith("invalid request: decode application/json: invalid: ")
    elif body is None:
        assert not operation.body_required
        assert not raw.strip()
    else:
        assert isinstance(body, operation.body)


@given(typed(CREATE.body))
@settings(max_examples=200)
def test_a_project_that_can_be_read_is_planned_or_refused(value):
    try:
        body = parse_body(CREATE, json.dumps(value).encode())
        made = project_plan.wish(body.project, default_region="aws-us-east-2")
    except ApiError:
        return
    size = made.default_endpoint_settings
    assert 0.25 <= size["autoscaling_limit_min_cu"] <= size["autoscaling_limit_max_cu"] <= 56
    assert not made.settings["allowed_ips"].get("ips")


@given(typed(BRANCH.body))
@settings(max_examples=200)
def test_a_branch_that_can_be_read_is_planned_or_refused(value):
    try:
        made = branch_plan.wish(parse_body(BRANCH, json.dumps(value).encode()), now=NOW)
    except ApiError:
        return
    assert made.expires_at is None or made.expires_at > NOW
    assert not (made.expires_at and made.protected)


@OPERATION_WITH_BODY
@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"project":' * 5_000,
        b'{"a":' + b"9" * 10_000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'{"a":"\x00"}',
        b'{"a":NaN}',
        b'{"a":[-Infinity]}',
        b"\xef\xbb\xbf{}",
        b"nonsense",
        b'{"a":1}{"b":2}',
        b'"text"',
        b"[]",
        b"7",
    ],
    ids=range(14),
)
def test_what_is_no_object_of_storable_json_is_refused(operation, raw):
    with pytest.raises(BadRequest):
        parse_body(operation, raw)


@OPERATION_WITH_BODY
@pytest.mark.parametrize("raw", [b"", b"  \n\t "])
def test_an_empty_body_is_none_where_the_body_may_be_left_out(operation, raw):
    if operation.body_required:
        with pytest.raises(BadRequest, match="a body is required"):
            parse_body(operation, raw)
    else:
        assert parse_body(operation, raw) is None


def test_an_operation_without_a_body_does_not_look_at_one():
    assert parse_body(OPERATIONS["getProject"], b"not json") is None


def test_the_largest_body_is_read_and_a_larger_one_refused():
    raw = b'{"project":{"name":"a"}}'
    assert parse_body(CREATE, raw + b" " * (MAX_BODY - len(raw))).project.name == "a"
    with pytest.raises(PayloadTooLarge):
        parse_body(CREATE, raw + b" " * (MAX_BODY - len(raw) + 1))


@given(st.lists(st.text("ab\x00\\u0", max_size=4), max_size=4), st.booleans())
def test_a_nul_is_refused_wherever_it_is_and_its_look_alike_is_not(parts, as_key):
    text = "".join(parts)
    unknown = {text or "x": 1} if as_key else [text]
    raw = json.dumps({"project": {"name": "a", "unknown": {"deep": unknown}}}).encode()
    if "\x00" in text:
        with pytest.raises(BadRequest, match="NUL"):
            parse_body(CREATE, raw)
    else:
        assert parse_body(CREATE, raw).project.name == "a"


def test_a_backslash_before_u0000_is_text():
    assert parse_body(CREATE, b'{"project":{"name":"a\\\\u0000"}}').project.name == "a\\u0000"


def test_text_that_mentions_what_is_no_number_is_text():
    assert parse_body(CREATE, b'{"project":{"name":"NaN, or Infinity"}}').project.name == "NaN, or Infinity"


def test_unknown_fields_are_kept():
    body = parse_body(CREATE, b'{"project":{"settings":{"later":{"a":1}}},"more":true}')
    assert to_wire(body) == {"project": {"settings": {"later": {"a": 1}}}, "more": True}


@pytest.mark.parametrize(
    ("raw", "explained"),
    [
        (b"{}", "project (field required)"),
        (b'{"project":{"name":1}}', "project.name (input should be a valid string)"),
        (b'{"project":{"name":null}}', "project.name (input should be a valid string)"),
        (b'{"project":{"branch":{"name":""}}}', "project.branch.name (string should have at least 1 character)"),
        (b'{"project":{"settings":{"quota":{"active_time_seconds":"1"}}}}', "project.settings.quota"),
    ],
)
def test_a_fault_is_told_as_neon_tells_it(raw, explained):
    with pytest.raises(BadRequest) as refused:
        parse_body(CREATE, raw)
    assert refused.value.message.startswith(f"invalid request: decode application/json: invalid: {explained}")


# --- parameters

sent = st.one_of(
    texts, st.sampled_from(["1", "0", "true", "True", "asc", "name", "5", "400", "1e3", " 1", "1_0", "٣"]), st.text()
)


@OPERATION
@given(st.data())
@settings(max_examples=25)
def test_any_parameters_are_typed_or_a_bad_request(operation, data):
    queries = [one.name for one in operation.parameters if one.where == "query"]
    names = st.one_of(*([st.sampled_from(queries)] * 3 if queries else []), st.text(max_size=4))
    query = QueryParams(data.draw(st.lists(st.tuples(names, sent), max_size=4)))
    path = {one.name: data.draw(sent) for one in operation.parameters if one.where == "path"}
    refused, read = outcome(lambda: parse_parameters(operation, path, query))
    if refused is not None:
        assert refused.message.startswith("invalid request: decode params: ")
        return
    in_path, in_query = read
    assert set(in_path) == set(path)
    assert set(in_query) == set(queries)
    strings = [value for value in (*in_path.values(), *in_query.values()) if isinstance(value, str)]
    assert not any("\x00" in value for value in strings)


def query_of(operation_id: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    return parse_parameters(OPERATIONS[operation_id], {}, QueryParams(list(pairs)))[1]


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)]
)
def test_a_truth_is_read_in_every_way_that_clients_write_it(text, value):
    assert query_of("listProjects", ("recoverable", text))["recoverable"] is value


@pytest.mark.parametrize("text", ["", "maybe", "2", "None"])
def test_what_is_no_truth_is_refused(text):
    with pytest.raises(BadRequest, match="query: recoverable"):
        query_of("listProjects", ("recoverable", text))


@pytest.mark.parametrize("text", ["0", "401", "-1", "ten", "1.5", "", "9" * 5000])
def test_a_limit_is_held_to_its_bounds(text):
    with pytest.raises(BadRequest, match="query: limit"):
        query_of("listProjects", ("limit", text))


def test_absent_parameters_have_their_defaults():
    assert query_of("listProjects") == {
        "cursor": None,
        "limit": 10,
        "search": None,
        "org_id": None,
        "timeout": None,
        "recoverable": False,
    }


def test_of_a_parameter_that_is_sent_twice_the_last_counts_and_undeclared_ones_do_not():
    assert query_of("listProjects", ("limit", "bad"), ("limit", "7"), ("colour", "red"))["limit"] == 7


def test_a_parameter_that_has_to_be_there_is_named():
    with pytest.raises(BadRequest, match=r"query: database_name \(field required\)"):
        parse_parameters(OPERATIONS["getConnectionURI"], {"project_id": "a"}, QueryParams(""))


@pytest.mark.parametrize("project_id", ["", "UPPER", "a/b", "a" * 61, "a\n", "a_b", "\x00"])
def test_an_id_that_cannot_be_is_refused(project_id):
    with pytest.raises(BadRequest, match="path: project_id"):
        parse_parameters(OPERATIONS["getProject"], {"project_id": project_id}, QueryParams(""))


def test_a_nul_in_a_search_is_refused():
    with pytest.raises(BadRequest, match="NUL"):
        query_of("listProjects", ("search", "a\x00b"))
