"""From Postgres' text to JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.serverless.values import (
    BUILT_IN,
    FLOAT8,
    INT4,
    JSONB,
    ArrayType,
    UnbalancedArray,
    array_to_json,
    converter,
    quoted,
    unknown,
)

Nested = Any


def written(value: Nested, delimiter: str = ",") -> str:
    """As Postgres' array_out writes it, but with all strings in quotes."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "{" + delimiter.join(written(one, delimiter) for one in value) + "}"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


leaves = st.none() | st.text()
arrays = st.recursive(st.lists(leaves), lambda inner: st.lists(inner, min_size=1), max_leaves=20).filter(
    lambda value: isinstance(value, list)
)


@given(arrays, st.sampled_from([",", ";"]))
def test_an_array_of_any_depth_is_read_as_it_was_written(value: Nested, delimiter: str):
    assert json.loads(array_to_json(written(value, delimiter), quoted, delimiter)) == value


@given(st.text(alphabet='{}",\\[]=:N1 ', max_size=30))
def test_anything_else_is_refused_or_is_json(text: str):
    """No text makes it run on, or answer what is no JSON."""
    try:
        out = array_to_json(text, quoted)
    except UnbalancedArray:
        return
    assert isinstance(json.loads(out), list)


@pytest.mark.parametrize("text", ["", "x", "{", "}", '{"a', '{"a\\', "{1}}", "{1", "[1:2]", "{}{}"])
def test_broken_arrays_are_refused(text: str):
    with pytest.raises(UnbalancedArray):
        array_to_json(text, quoted)


@pytest.mark.parametrize(
    ("oid", "text", "value"),
    [
        (16, "t", True),
        (16, "f", False),
        (21, "-3", -3),
        (23, "42", 42),
        (20, "9007199254740993", "9007199254740993"),
        (1700, "1.50", "1.50"),
        (700, "1", 1.0),
        (701, "1e+20", 1e20),
        (701, "-0.5", -0.5),
        (701, "NaN", "NaN"),
        (701, "Infinity", "Infinity"),
        (701, "-Infinity", "-Infinity"),
        (114, '{"a": [1, null]}', {"a": [1, None]}),
        (3802, '"x"', "x"),
        (1082, "2020-01-02", "2020-01-02"),
        (25, 'a "word"\n☃', 'a "word"\n☃'),
        (17, "\\x00ff", "\\x00ff"),
        (22, "1 2", "1 2"),
        (1007, "[0:1]={7,8}", [7, 8]),
        (1007, "{{1,2},{3,NULL}}", [[1, 2], [3, None]]),
        (1016, "{1,2}", ["1", "2"]),
        (1000, "{t,f,NULL}", [True, False, None]),
        (1022, "{1.5,NaN}", [1.5, "NaN"]),
        (3807, '{"{\\"a\\": 1}",null}', [{"a": 1}, None]),
        (1009, '{NULL,"NULL","",a b}', [None, "NULL", "", "a b"]),
        (1009, "{}", []),
        (1020, "{(1,1),(0,0);(3,3),(2,2)}", ["(1,1),(0,0)", "(3,3),(2,2)"]),
        (99999, "{1,2}", "{1,2}"),
    ],
)
def test_values_by_type(oid: int, text: str, value: Any):
    """As Neon answers: what JSON's numbers would lose stays text."""
    got = json.loads(converter(oid, {})(text))
    assert got == value
    assert type(got) is type(value)


def test_types_of_the_database_itself():
    """Those that were looked up count as arrays if they are."""
    known = {16400: ArrayType(INT4), 16401: None, 16402: ArrayType(16401, ";")}
    assert unknown([25, 16400, 16401]) == {16400, 16401}
    assert converter(16400, known)("{1,2}") == "[1,2]"
    assert converter(16401, known)("{1,2}") == '"{1,2}"'
    assert converter(16402, known)("{a;b}") == '["a","b"]'


def test_the_table_has_what_it_converts():
    assert BUILT_IN[1007] == ArrayType(INT4)
    assert BUILT_IN[3807] == ArrayType(JSONB)
    assert 6157 in BUILT_IN


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_their_value(value: float):
    text = repr(value)
    got = json.loads(converter(FLOAT8, {})(text))
    assert isinstance(got, float)
    assert got == value or math.isclose(got, value)
