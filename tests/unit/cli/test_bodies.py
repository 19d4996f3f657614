"""Bodies from fields on a command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.operations import OPERATIONS
from lamplighter.cli.bodies import BadField, build_body, parse_field, parse_pair
from lamplighter.cli.catalogue import body_types

BRANCH = body_types(OPERATIONS["createProjectBranch"])


def body(*written: str, types: Any = BRANCH) -> Any:
    return build_body([parse_field(each) for each in written], types=types)


def test_fields_are_typed_as_the_contract_says() -> None:
    made = body(
        "branch.name=123",
        "branch.protected=true",
        "endpoints.0.type=read_write",
        "endpoints.0.autoscaling_limit_min_cu=0.25",
        "endpoints.0.suspend_timeout_seconds=300",
        "endpoints.1.type=read_only",
        "annotation_value.team=7",
    )
    assert made == {
        "branch": {"name": "123", "protected": True},
        "endpoints": [
            {"type": "read_write", "autoscaling_limit_min_cu": 0.25, "suspend_timeout_seconds": 300},
            {"type": "read_only"},
        ],
        "annotation_value": {"team": "7"},
    }


def test_a_nullable_field_takes_null() -> None:
    types = body_types(OPERATIONS["updateProjectBranch"])
    assert body("branch.expires_at=null", types=types) == {"branch": {"expires_at": None}}


def test_json_is_taken_as_it_is() -> None:
    made = body('branch:={"name": "x"}', "endpoints:=[]")
    assert made == {"branch": {"name": "x"}, "endpoints": []}


def test_what_the_contract_does_not_know_is_json_where_it_is_json() -> None:
    made = body("a=1", "b=true", "c=null", "d=word", 'e={"f": [1]}', "g.h=", types={})
    assert made == {"a": 1, "b": True, "c": None, "d": "word", "e": {"f": [1]}, "g": {"h": ""}}


def test_raw_fields_are_texts() -> None:
    assert build_body([parse_field("a.b=1", kind="text")], types={}) == {"a": {"b": "1"}}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["name"], "write a field as"),
        (["=x"], "write a field as"),
        (["a..b=x"], "write a field as"),
        (["branch.protected=maybe"], "branch.protected takes boolean, not 'maybe'"),
        (["branch.protected=1"], "takes boolean"),
        (["endpoints.0.suspend_timeout_seconds=1.5"], "takes integer"),
        (["branch:={"], "branch takes JSON"),
        (["branch.name=a", "branch.name=b"], "given twice"),
        (["branch:={}", "branch.name=b"], "has a value of its own"),
        (["branch.name=b", "branch:={}"], "given twice"),
        (["endpoints.1.type=read_only"], "endpoints: number its parts"),
        (["endpoints.0.type=read_only", "endpoints.x.type=read_only"], "endpoints: number its parts"),
    ],
)
def test_fields_that_make_no_sense_are_refused(written: list[str], said: str) -> None:
    with pytest.raises(BadField, match=said):
        body(*written)


NAMES = st.from_regex(r"[a-z_][a-z_0-9]{0,8}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAMES, inner, min_size=1, max_size=3),
)


def leaves(value: Any, path: tuple[str, ...]) -> list[str]:
    if isinstance(value, dict):
        return [leaf for name, each in value.items() for leaf in leaves(each, (*path, name))]
    if isinstance(value, list):
        return [leaf for place, each in enumerate(value) for leaf in leaves(each, (*path, str(place)))]
    return [f"{'.'.join(path)}:={json.dumps(value)}"]


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
def test_any_json_can_be_written_field_by_field(value: Any) -> None:
    assert body(*leaves(value, ()), types={}) == value


@pytest.mark.parametrize(("written", "pair"), [("a=b", ("a", "b")), ("a=", ("a", "")), ("a=b=c", ("a", "b=c"))])
def test_pairs(written: str, pair: tuple[str, str]) -> None:
    assert parse_pair(written) == pair


@pytest.mark.parametrize("written", ["", "a", "=b"])
def test_what_is_no_pair_is_refused(written: str) -> None:
    with pytest.raises(BadField):
        parse_pair(written)
