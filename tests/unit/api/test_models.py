import importlib
import json
import pkgutil
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lamplighter.api import models
from lamplighter.api.models.api_keys import ApiKeyCreateRequest, ApiKeysListResponseItem, OrgApiKeysListResponseItem
from lamplighter.api.models.base import Model, OneOf, Timestamp, wire_time
from lamplighter.api.models.branches import AnnotatedBranchCreateRequest, Branch, BranchUpdateRequest
from lamplighter.api.models.databases import DatabaseCreateRequest
from lamplighter.api.models.endpoints import Endpoint, EndpointCreateRequest, EndpointUpdateRequest
from lamplighter.api.models.operations import Operation
from lamplighter.api.models.organizations import OrganizationInviteCreateRequest, TransferProjectsToOrganizationRequest
from lamplighter.api.models.projects import Project, ProjectCreateRequest, ProjectUpdateRequest
from lamplighter.api.models.roles import RoleCreateRequest
from lamplighter.api.models.snapshots import BackupSchedule

STRINGS = {
    "date-time": "2026-01-31T12:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/x",
    "uuid": "01234567-89ab-4def-8123-456789abcdef",
    "binary": "AA==",
}


def modules():
    return [
        importlib.import_module(f"{models.__name__}.{found.name}") for found in pkgutil.iter_modules(models.__path__)
    ]


def every_model() -> list[type[Model]]:
    return [
        kind
        for module in modules()
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, Model)
        and kind.__module__ == module.__name__
        and kind is not Model
    ]


def example(schema: dict[str, Any], defs: dict[str, Any]) -> Any:
    """A value that the schema allows, with every field that it knows."""
    if "$ref" in schema:
        return example(defs[schema["$ref"].rsplit("/", 1)[-1]], defs)
    if "anyOf" in schema:
        return example(schema["anyOf"][0], defs)
    make = {"object": example_object, "array": lambda node, defs: [example(node["items"], defs)]}
    return make.get(schema["type"], example_scalar)(schema, defs)


def example_object(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    if "properties" in schema:
        return {name: example(field, defs) for name, field in schema["properties"].items()}
    values = schema.get("additionalProperties")
    return {"key": example(values, defs) if isinstance(values, dict) else "value"}


def example_scalar(schema: dict[str, Any], _defs: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "string":
        return STRINGS.get(schema.get("format", ""), "some-text-1")
    return {"integer": max(1, schema.get("minimum", 1)), "number": 2.5, "boolean": True}[schema["type"]]


def example_of(kind: type[Model]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    return example(
        schema if "properties" in schema or "$ref" in schema else {**schema, "properties": {}}, schema.get("$defs", {})
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
UNKNOWN = st.dictionaries(st.from_regex(r"x_[a-z]{1,10}", fullmatch=True), JSON_VALUES, min_size=1, max_size=3)

ENUMS = {
    (module.__name__, name): value
    for module in modules()
    for name, value in vars(module).items()
    if get_origin(value) is Annotated and any(isinstance(each, OneOf) for each in value.__metadata__)
}
BY_NAME = sorted(every_model(), key=lambda kind: kind.__name__)


def test_no_two_models_share_a_name():
    names = [kind.__name__ for kind in every_model()]
    assert len(names) == len(set(names)) > 240


@pytest.mark.parametrize("kind", BY_NAME, ids=lambda kind: kind.__name__)
def test_a_model_gives_back_what_it_read(kind):
    """All fields at once, read as a server and as a client, come out as they went in."""
    sample = example_of(kind)
    assert kind.from_request(json.dumps(sample)).model_dump(mode="json", exclude_unset=True) == sample
    assert kind.model_validate(sample).model_dump(mode="json", exclude_unset=True) == sample
    assert json.loads(kind.model_validate(sample).model_dump_json()) == sample


@given(data=st.data(), unknown=UNKNOWN)
def test_unknown_fields_are_kept(data, unknown):
    kind = data.draw(st.sampled_from(BY_NAME))
    sample = {**example_of(kind), **unknown}
    assert kind.from_request(json.dumps(sample)).model_dump(mode="json", exclude_unset=True) == sample
    assert kind.model_validate(sample).model_dump(mode="json", exclude_unset=True) == sample


@given(unknown=UNKNOWN)
def test_unknown_fields_are_kept_in_nested_objects(unknown):
    sample = example_of(ProjectCreateRequest)
    sample["project"]["settings"]["quota"] |= unknown
    assert ProjectCreateRequest.from_request(json.dumps(sample)).model_dump(mode="json", exclude_unset=True) == sample


@pytest.mark.parametrize("name", ENUMS, ids=lambda name: name[1])
def test_an_enum_takes_a_value_that_a_newer_server_knows_but_not_in_a_request(name):
    adapter = TypeAdapter(ENUMS[name])
    assert adapter.validate_json('"of_tomorrow"') == "of_tomorrow"
    with pytest.raises(ValidationError):
        adapter.validate_json('"of_tomorrow"', strict=True)
    values = adapter.json_schema()["enum"]
    assert values
    assert all(adapter.validate_python(value, strict=True) == value for value in values)


def test_all_named_enums_were_found():
    assert len(ENUMS) >= 20
    assert ("lamplighter.api.models.operations", "OperationStatus") in ENUMS


def test_a_newer_servers_replies_can_be_read():
    """Limits, ids and enums that are not known yet do not stop a client."""
    project = Project.model_validate({**example_of(Project), "pg_version": 19, "id": "Not_An_Id"})
    endpoint = Endpoint.model_validate({**example_of(Endpoint), "autoscaling_limit_min_cu": 0.1, "type": "proxy"})
    operation = Operation.model_validate({**example_of(Operation), "action": "fly", "branch_id": None})
    assert (project.pg_version, project.id) == (19, "Not_An_Id")
    assert (endpoint.autoscaling_limit_min_cu, endpoint.type) == (0.1, "proxy")
    assert (operation.action, operation.branch_id) == ("fly", None)


NAME_257 = "n" * 257
REFUSED = [
    (ApiKeyCreateRequest, {}, ("key_name",)),
    (ApiKeyCreateRequest, {"key_name": 5}, ("key_name",)),
    (ApiKeyCreateRequest, {"key_name": None}, ("key_name",)),
    (ApiKeyCreateRequest, {"key_name": "k" * 65}, ("key_name",)),
    (ApiKeyCreateRequest, [], ()),
    (ProjectCreateRequest, {}, ("project",)),
    (ProjectCreateRequest, {"project": "p"}, ("project",)),
    (ProjectCreateRequest, {"project": None}, ("project",)),
    (ProjectCreateRequest, {"project": {"name": ""}}, ("project", "name")),
    (ProjectCreateRequest, {"project": {"name": NAME_257}}, ("project", "name")),
    (ProjectCreateRequest, {"project": {"name": None}}, ("project", "name")),
    (ProjectCreateRequest, {"project": {"pg_version": "17"}}, ("project", "pg_version")),
    (ProjectCreateRequest, {"project": {"pg_version": 17.5}}, ("project", "pg_version")),
    (ProjectCreateRequest, {"project": {"pg_version": True}}, ("project", "pg_version")),
    (ProjectCreateRequest, {"project": {"pg_version": 13}}, ("project", "pg_version")),
    (ProjectCreateRequest, {"project": {"pg_version": 19}}, ("project", "pg_version")),
    (ProjectCreateRequest, {"project": {"store_passwords": "true"}}, ("project", "store_passwords")),
    (ProjectCreateRequest, {"project": {"store_passwords": 1}}, ("project", "store_passwords")),
    (ProjectCreateRequest, {"project": {"org_id": "Not An Id"}}, ("project", "org_id")),
    (ProjectCreateRequest, {"project": {"org_id": "o" * 61}}, ("project", "org_id")),
    (ProjectCreateRequest, {"project": {"branch": {"name": NAME_257}}}, ("project", "branch", "name")),
    (
        ProjectCreateRequest,
        {"project": {"default_endpoint_settings": {"autoscaling_limit_min_cu": 0.2}}},
        ("project", "default_endpoint_settings", "autoscaling_limit_min_cu"),
    ),
    (
        ProjectCreateRequest,
        {"project": {"default_endpoint_settings": {"pg_settings": {"work_mem": 4}}}},
        ("project", "default_endpoint_settings", "pg_settings", "work_mem"),
    ),
    (
        ProjectCreateRequest,
        {"project": {"settings": {"audit_log_level": "loud"}}},
        ("project", "settings", "audit_log_level"),
    ),
    (
        ProjectCreateRequest,
        {"project": {"settings": {"quota": {"logical_size_bytes": -1}}}},
        ("project", "settings", "quota", "logical_size_bytes"),
    ),
    (
        ProjectCreateRequest,
        {"project": {"settings": {"quota": {"logical_size_bytes": 2**63}}}},
        ("project", "settings", "quota", "logical_size_bytes"),
    ),
    (
        ProjectUpdateRequest,
        {"project": {"history_retention_seconds": 2592001}},
        ("project", "history_retention_seconds"),
    ),
    (ProjectUpdateRequest, {"project": {"history_retention_seconds": -1}}, ("project", "history_retention_seconds")),
    (AnnotatedBranchCreateRequest, {"branch": {"name": NAME_257}}, ("branch", "name")),
    (AnnotatedBranchCreateRequest, {"branch": {"expires_at": None}}, ("branch", "expires_at")),
    (AnnotatedBranchCreateRequest, {"branch": {"expires_at": 1893456000}}, ("branch", "expires_at")),
    (AnnotatedBranchCreateRequest, {"branch": {"expires_at": "1893456000"}}, ("branch", "expires_at")),
    (AnnotatedBranchCreateRequest, {"branch": {"expires_at": "2030-01-01"}}, ("branch", "expires_at")),
    (AnnotatedBranchCreateRequest, {"branch": {"expires_at": "2030-01-01T00:00:00"}}, ("branch", "expires_at")),
    (AnnotatedBranchCreateRequest, {"branch": {"expires_at": "2030-02-30T00:00:00Z"}}, ("branch", "expires_at")),
    (AnnotatedBranchCreateRequest, {"branch": {"expires_at": "0001-01-01T00:00:00+05:00"}}, ("branch", "expires_at")),
    (AnnotatedBranchCreateRequest, {"branch": {"expires_at": "tomorrow"}}, ("branch", "expires_at")),
    (AnnotatedBranchCreateRequest, {"endpoints": [{"type": "write_only"}]}, ("endpoints", 0, "type")),
    (AnnotatedBranchCreateRequest, {"endpoints": [{}]}, ("endpoints", 0, "type")),
    (AnnotatedBranchCreateRequest, {"endpoints": {}}, ("endpoints",)),
    (AnnotatedBranchCreateRequest, {"annotation_value": {"k": 1}}, ("annotation_value", "k")),
    (EndpointCreateRequest, {"endpoint": {"type": "read_write"}}, ("endpoint", "branch_id")),
    (EndpointUpdateRequest, {"endpoint": {"name": "e" * 65}}, ("endpoint", "name")),
    (EndpointUpdateRequest, {"endpoint": {"suspend_timeout_seconds": -2}}, ("endpoint", "suspend_timeout_seconds")),
    (EndpointUpdateRequest, {"endpoint": {"suspend_timeout_seconds": 604801}}, ("endpoint", "suspend_timeout_seconds")),
    (DatabaseCreateRequest, {"database": {"name": "d"}}, ("database", "owner_name")),
    (RoleCreateRequest, {"role": {"name": "r", "no_login": "yes"}}, ("role", "no_login")),
    (OrganizationInviteCreateRequest, {"email": "nobody", "role": "member"}, ("email",)),
    (TransferProjectsToOrganizationRequest, {"destination_org_id": "org-a", "project_ids": []}, ("project_ids",)),
    (BackupSchedule, {"schedule": [{"frequency": "daily", "hour": 24}]}, ("schedule", 0, "hour")),
]


@pytest.mark.parametrize(("kind", "body", "place"), REFUSED, ids=lambda value: str(value)[:60])
def test_bad_requests_are_refused_where_they_are_wrong(kind, body, place):
    with pytest.raises(ValidationError) as caught:
        kind.from_request(json.dumps(body))
    assert [error["loc"] for error in caught.value.errors()] == [place]


@pytest.mark.parametrize("text", ["", "{", "nul", '{"project": NaN}', '"', "\x00"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValidationError):
        ProjectCreateRequest.from_request(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(number):
    with pytest.raises(ValidationError):
        EndpointUpdateRequest.from_request(f'{{"endpoint": {{"autoscaling_limit_max_cu": {number}}}}}')


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ProjectCreateRequest, {"project": {}}),
        (ProjectCreateRequest, {"project": {"name": "n" * 256, "pg_version": 14, "branch": {}}}),
        (ProjectCreateRequest, {"project": {"history_retention_seconds": 0}}),
        (AnnotatedBranchCreateRequest, {}),
        (AnnotatedBranchCreateRequest, {"branch": {}, "endpoints": [], "annotation_value": {}}),
        (EndpointUpdateRequest, {"endpoint": {"autoscaling_limit_max_cu": 1, "suspend_timeout_seconds": -1}}),
        (EndpointUpdateRequest, {"endpoint": {}}),
        (ApiKeyCreateRequest, {"key_name": ""}),
    ],
    ids=str,
)
def test_what_clients_send_is_taken(kind, body):
    assert kind.from_request(json.dumps(body)).model_dump(mode="json", exclude_unset=True) == body


def test_null_clears_where_the_contract_says_so_and_is_told_from_left_out():
    cleared = BranchUpdateRequest.from_request('{"branch": {"expires_at": null}}').branch
    untouched = BranchUpdateRequest.from_request('{"branch": {}}').branch
    assert (cleared.expires_at, "expires_at" in cleared.model_fields_set) == (None, True)
    assert (untouched.expires_at, "expires_at" in untouched.model_fields_set) == (None, False)


def test_absent_fields_are_left_out_and_only_the_nullable_are_null():
    branch = Branch.model_validate({**example_of(Branch), "parent_id": None, "expires_at": None, "primary": None})
    key = ApiKeysListResponseItem.model_validate({**example_of(ApiKeysListResponseItem), "last_used_at": None})
    scoped = OrgApiKeysListResponseItem.model_validate({**example_of(ApiKeysListResponseItem), "project_id": None})
    assert not {"parent_id", "expires_at", "primary"} & set(branch.model_dump(mode="json"))
    assert not {"parent_id", "expires_at", "primary"} & set(branch.model_dump(mode="json", exclude_unset=True))
    assert json.loads(key.model_dump_json())["last_used_at"] is None
    assert "project_id" not in json.loads(scoped.model_dump_json())


MOMENTS = st.datetimes(
    datetime(2, 1, 2),  # noqa: DTZ001 - the offset is added by `timezones`
    datetime(9998, 12, 30),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
WIRE = TypeAdapter(Timestamp)


@given(moment=MOMENTS)
def test_times_go_over_the_wire_in_utc_and_whole_seconds(moment):
    text = WIRE.dump_python(moment, mode="json")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    assert WIRE.validate_json(json.dumps(text), strict=True) == moment.astimezone(UTC).replace(microsecond=0)


@given(moment=MOMENTS)
def test_times_are_read_with_any_offset_and_fraction(moment):
    text = json.dumps(moment.isoformat())
    assert WIRE.validate_json(text, strict=True) == WIRE.validate_json(text) == moment


def test_a_time_without_a_zone_in_a_reply_is_utc():
    assert WIRE.validate_python("2026-01-31T12:00:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert wire_time(datetime(1, 1, 1)) == "0001-01-01T00:00:00Z"  # noqa: DTZ001 - that is the point
