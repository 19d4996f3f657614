"""The naming table has every operation once, and what it says of one is what the operation table says."""

from __future__ import annotations

import keyword
import types
from collections import Counter
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import pytest

from lamplighter.api.models.base import Model
from lamplighter.api.operations import OPERATIONS
from lamplighter.client.names import GROUPS, PLACES, calls
from lamplighter.client.naming import Call

CALLS = [pytest.param(call, id=call.id) for _, call in calls()]
#: Replies of one field that say more as they are: with `wait`, the operations are what the call is about.
KEPT = {"operations"}


def is_model(annotation) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Model)


def bare(annotation):
    """What is in `Maybe[...]`, `Given[...]` and the like."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [each for each in get_args(annotation) if each is not types.NoneType]
        return bare(members[0]) if len(members) == 1 else annotation
    return annotation


def field_type(model, name):
    return bare(get_type_hints(model, include_extras=True)[name])


def queries(call: Call) -> set[str]:
    return {p.name for p in OPERATIONS[call.id].parameters if p.where == "query"}


def leaves(call: Call, model=None, place="") -> list[str]:
    """The fields of the body that are parameters of their own, by name."""
    model = OPERATIONS[call.id].body if model is None else model
    found = []
    for name in get_type_hints(model):
        inside = f"{place}.{name}" if place else name
        found += leaves(call, field_type(model, name), inside) if inside in call.flatten else [name]
    return found


def parameters(call: Call) -> list[str]:
    operation = OPERATIONS[call.id]
    names = [p.name for p in operation.parameters if p.name not in call.left_out]
    names += [call.whole] if call.whole else leaves(call) if operation.body else []
    halves = {name: at.parameter for at in call.at for name in (at.lsn, at.timestamp)}
    names = [halves.get(name, name) for name in names if name not in {at.timestamp for at in call.at}]
    return [call.renames.get(name, name) for name in names]


def test_every_operation_is_one_method():
    assert {call.id for _, call in calls()} == set(OPERATIONS)
    assert len(list(calls())) == len(OPERATIONS) == len(PLACES)


def test_groups_and_methods_have_names_of_their_own():
    assert len({group.class_name for group in GROUPS.values()}) == len(GROUPS)
    for name, group in GROUPS.items():
        assert name == group.name
        counted = Counter(call.method for call in group.calls)
        assert counted.most_common(1)[0][1] == 1, name
        for each in (name, *counted):
            assert each.isidentifier()
            assert not keyword.iskeyword(each)
            assert not each.startswith("_")
            assert each not in {"with_raw_response", "wait", "get_or_create"}


@pytest.mark.parametrize("call", CALLS)
def test_its_text_is_a_sentence_that_fits_a_line(call: Call):
    assert call.doc[0].isupper()
    assert call.doc.endswith(".")
    assert len(call.doc) <= 109
    assert not call.note or call.note.endswith(".")


@pytest.mark.parametrize("call", CALLS)
def test_parameters_are_told_apart(call: Call):
    names = parameters(call)
    assert len(set(names)) == len(names), names
    assert not set(names) & {"self", "wait"}
    assert not any(keyword.iskeyword(name) for name in names)


@pytest.mark.parametrize("call", CALLS)
def test_what_it_says_of_the_request_is_in_the_operation(call: Call):
    operation = OPERATIONS[call.id]
    optional = {p.name for p in operation.parameters if p.where == "query" and not p.required}
    fields = set(leaves(call)) if operation.body and not call.whole else set()
    names = queries(call) | fields
    assert call.left_out <= optional
    assert set(call.renames) | call.times <= names
    assert {name for at in call.at for name in (at.lsn, at.timestamp)} <= names
    assert call.whole is None or operation.body is not None
    for place in call.flatten:
        model = operation.body
        for part in place.split("."):
            model = field_type(model, part)
        assert is_model(model), place


@pytest.mark.parametrize("call", CALLS)
def test_what_it_says_of_the_reply_is_in_the_operation(call: Call):
    reply = OPERATIONS[call.id].reply
    if call.unwrap:
        assert call.unwrap in reply.model_fields
        assert call.paged is None
    if call.paged is None:
        return
    assert OPERATIONS[call.id].safe
    assert get_origin(field_type(reply, call.paged.items) if call.paged.items else reply) is list
    assert (call.paged.cursor is not None) == ("cursor" in queries(call))
    at = reply
    for part in (call.paged.cursor or "").split(".") if call.paged.cursor else ():
        at = field_type(at, part)
    assert call.paged.cursor is None or at is str


@pytest.mark.parametrize("call", CALLS)
def test_a_reply_of_one_field_is_that_field(call: Call):
    reply = OPERATIONS[call.id].reply
    if call.paged or not is_model(reply) or len(reply.model_fields) != 1:
        return
    (name,) = reply.model_fields
    assert call.unwrap == (None if name in KEPT else name)


@pytest.mark.parametrize("call", CALLS)
def test_every_list_is_paged(call: Call):
    """A reading whose reply is a list, or holds just one and says where it goes on."""
    operation = OPERATIONS[call.id]
    listed = operation.id.startswith("list") or get_origin(operation.reply) is list or "cursor" in queries(call)
    assert not listed or call.paged is not None


@pytest.mark.parametrize(
    ("id_", "place"),
    [
        ("createProject", "projects.create"),
        ("createProjectBranch", "branches.create"),
        ("setDefaultProjectBranch", "branches.set_default"),
        ("countProjectBranches", "branches.count"),
        ("restoreProjectBranch", "branches.restore"),
        ("startProjectEndpoint", "endpoints.start"),
        ("resetProjectBranchRolePassword", "roles.reset_password"),
        ("getProjectBranchRolePassword", "roles.reveal_password"),
        ("createApiKey", "api_keys.create"),
        ("createOrgApiKey", "organizations.create_api_key"),
        ("getOrganizationMembers", "organizations.members"),
        ("revokePermissionFromProject", "permissions.revoke"),
        ("getCurrentUserInfo", "users.me"),
        ("getConnectionURI", "projects.connection_uri"),
        ("acceptProjectTransferRequest", "transfers.accept"),
    ],
)
def test_names_that_users_rely_on(id_: str, place: str):
    group, call = PLACES[id_]
    assert f"{group.name}.{call.method}" == place
