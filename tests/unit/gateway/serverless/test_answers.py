"""Bodies of answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.serverless.answers import ERROR_FIELDS, Field, command_and_count, error, result, row_writer
from lamplighter.gateway.serverless.values import quoted


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("SELECT 3", ("SELECT", 3)),
        ("INSERT 0 5", ("INSERT", 5)),
        ("UPDATE 0", ("UPDATE", 0)),
        ("CREATE TABLE", ("CREATE", None)),
        ("BEGIN", ("BEGIN", None)),
        ("", ("", None)),
    ],
)
def test_tags(tag: str, said: tuple[str, int | None]):
    assert command_and_count(tag) == said


@given(st.lists(st.tuples(st.text(), st.none() | st.text()), max_size=6))
def test_a_row_is_an_array_or_an_object(columns: list[tuple[str, str | None]]):
    """Whatever the columns' names; of two with one name the last is there."""
    names, values = [name for name, _ in columns], [value for _, value in columns]
    converters = [quoted] * len(columns)
    assert json.loads(row_writer(names, converters, array=True)(values)) == values
    assert json.loads(row_writer(names, converters, array=False)(values)) == dict(columns)


@given(st.text(), st.lists(st.text(), max_size=3))
def test_a_result_is_json(name: str, tags: list[str]):
    field = Field(name, 25, 0, 0, -1, -1)
    said = json.loads(result(" ".join(tags), [field], ["[1]", "[2]"], array=True))
    assert said["rows"] == [[1], [2]]
    assert said["fields"] == [
        {
            "name": name,
            "dataTypeID": 25,
            "tableID": 0,
            "columnID": 0,
            "dataTypeSize": -1,
            "dataTypeModifier": -1,
            "format": "text",
        }
    ]
    assert said["rowAsArray"] is True


def test_an_error_has_all_fields():
    said = json.loads(error("no", {"code": "42P01", "unheard": "of"}))
    assert said == {"message": "no", **dict.fromkeys(ERROR_FIELDS), "code": "42P01"}
