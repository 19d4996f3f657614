"""Tables, JSON, YAML and CSV of what a server answered."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lamplighter.api.models.branches import Branch
from lamplighter.api.models.roles import Role
from lamplighter.cli.harmless import is_harmless
from lamplighter.cli.output import (
    Column,
    Screen,
    at,
    cell,
    columns_of,
    csv_text,
    fitted,
    json_text,
    plain_of,
    redact,
    rendered,
    table_text,
    without_password,
    yaml_text,
)

SPECIAL = "\x00\x07\t\n\r\x1b[31m\x7f\x85\x9b\u202e\u2028漢字e\u0301👨\u200d👩🏽 \",;'"
#: No halves of characters: no JSON that a server sends as UTF-8 has them by themselves.
TEXTS = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters(codec="utf-8")), max_size=40)
VALUES = st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
NESTED = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))
FIELDS = ("id", "name", "settings.quota", "parent_id")
ROWS = st.lists(
    st.fixed_dictionaries({"id": TEXTS, "name": VALUES, "settings": st.fixed_dictionaries({"quota": NESTED})}),
    min_size=1,
    max_size=6,
)
COLUMNS = [Column(field) for field in FIELDS]
SCREENS = st.builds(Screen, columns=st.integers(10, 200))


@given(ROWS, SCREENS)
def test_a_table_is_never_wider_than_the_terminal(rows: list[Any], screen: Screen) -> None:
    """Nor does anything in it break the line or reach the terminal as a control."""
    assert screen.columns is not None
    text = table_text(rows, COLUMNS, screen=screen)
    lines = text.splitlines()
    assert len(lines) == len(rows) + 1
    assert all(cell_len(line) <= screen.columns for line in lines)
    assert is_harmless(text)


@given(ROWS)
def test_nothing_is_cut_where_there_is_no_terminal(rows: list[Any]) -> None:
    lines = table_text(rows, COLUMNS, screen=Screen()).splitlines()
    for row, line in zip(rows, lines[1:], strict=True):
        for column in COLUMNS:
            assert cell(row, column).strip() in line


@given(ROWS)
def test_cells_of_a_column_begin_at_the_same_place(rows: list[Any]) -> None:
    columns = [Column("name"), Column("id", show=lambda _: "|")]
    lines = table_text(rows, columns, screen=Screen()).splitlines()
    assert len({cell_len(line.rpartition("|")[0]) for line in lines[1:]}) == 1


@given(ROWS)
def test_csv_is_read_back_as_it_was(rows: list[Any]) -> None:
    """RFC 4180: CRLF, quotes doubled; whatever is in the cells."""
    text = csv_text(rows, [Column("id"), Column("name")], screen=Screen())
    assert text.startswith("id,name\r\n")
    assert text.endswith("\r\n")
    read = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert [line[0] for line in read[1:]] == [row["id"] for row in rows]
    for row, line in zip(rows, read[1:], strict=True):
        name = row["name"]
        if isinstance(name, str):
            assert line[1] == name
        elif name is not None:
            assert json.loads(line[1]) == name
        else:
            assert line[1] == ""


@given(ROWS, SCREENS)
def test_csv_on_a_terminal_holds_no_controls(rows: list[Any], screen: Screen) -> None:
    assert is_harmless(csv_text(rows, COLUMNS, screen=screen).replace("\r\n", "\n"))


@given(NESTED)
def test_json_and_yaml_mean_the_value(value: Any) -> None:
    """And hold nothing that a terminal would obey."""
    assert json.loads(json_text(value)) == value
    assert yaml.safe_load(yaml_text(value)) == value
    assert is_harmless(json_text(value))
    assert is_harmless(yaml_text(value))


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=8).flatmap(
        lambda widths: st.tuples(
            st.just(widths), st.lists(st.booleans(), min_size=len(widths), max_size=len(widths)), st.integers(1, 300)
        )
    )
)
def test_columns_give_only_what_is_needed(case: tuple[list[int], list[bool], int]) -> None:
    natural, keep, columns = case
    widths = fitted(natural, keep=keep, columns=columns)
    gaps = 2 * (len(natural) - 1)
    assert all(least >= given_ for least, given_ in zip(natural, widths, strict=True))
    if sum(natural) + gaps <= columns:
        assert widths == natural
    elif sum(min(width, 6) for width in natural) + gaps <= columns:
        assert sum(widths) + gaps == columns
    if any(width < before for width, before, kept in zip(widths, natural, keep, strict=True) if kept):
        assert all(width <= 6 for width, kept in zip(widths, keep, strict=True) if not kept)


def test_ids_are_cut_last() -> None:
    rows = [{"id": "br-calm-sun-12345678", "name": "a name that is rather long for a table"}]
    text = table_text(rows, [Column("id"), Column("name")], screen=Screen(columns=40))
    assert text == "ID                    NAME\nbr-calm-sun-12345678  a name that is ra…\n"


def test_one_object_is_shown_field_by_field() -> None:
    plain = {"id": "br-1", "default": True, "uri": "x" * 200, "tags": [], "parent": {"name": "main"}}
    columns = [Column("id"), Column("default"), Column("parent.name", "Parent"), Column("tags"), Column("uri", "URI")]
    text = rendered(plain, columns, output="table", screen=Screen(columns=40))
    assert text.splitlines() == [
        "id       br-1",
        "default  yes",
        "Parent   main",
        "tags     -",
        "URI      " + "x" * 200,
    ]


def test_figures_stand_to_the_right() -> None:
    text = table_text([{"n": 5}, {"n": 12345}], [Column("n", right=True)], screen=Screen())
    assert text == "    N\n    5\n12345\n"


def test_colour_only_where_it_is_wanted() -> None:
    rows = [{"id": "x"}]
    assert "\x1b" not in table_text(rows, [Column("id")], screen=Screen(columns=80))
    assert table_text(rows, [Column("id")], screen=Screen(columns=80, colour=True)).startswith("\x1b[1mID\x1b[0m")


@pytest.mark.parametrize(
    ("path", "found"),
    [("a.b", 1), ("c.0.d", 2), ("c.1", None), ("a.b.c", None), ("x", None), ("", {"a": {"b": 1}, "c": [{"d": 2}]})],
)
def test_paths_lead_into_the_json(path: str, found: Any) -> None:
    assert at({"a": {"b": 1}, "c": [{"d": 2}]}, path) == found


def test_a_model_is_shown_as_it_was_sent() -> None:
    """With fields that we do not know, and without those that were not there."""
    sent = {"id": "br-calm-sun-12345678", "name": "dev", "from_the_future": [1]}
    branch = Branch.model_construct(**sent)
    assert plain_of([branch]) == [sent]


def test_times_are_as_the_api_writes_them() -> None:
    role = Role.model_validate(
        {
            "branch_id": "br-x",
            "name": "me",
            "protected": False,
            "created_at": "2026-01-31T12:00:00Z",
            "updated_at": "2026-01-31T13:00:00+01:00",
        }
    )
    assert plain_of(role)["created_at"] == "2026-01-31T12:00:00Z"
    assert plain_of(role)["updated_at"] == "2026-01-31T12:00:00Z"


def test_secrets_are_hidden_wherever_they_are() -> None:
    uri = "postgresql://me:sekret@host/db?sslmode=require"
    value = {
        "roles": [{"name": "me", "password": "sekret"}],
        "connection_uris": [{"connection_uri": uri, "connection_parameters": {"password": "sekret", "role": "me"}}],
        "key": "sekret",
        "uri": uri,
        "name": "key",
    }
    hidden = redact(value)
    assert "sekret" not in json.dumps(hidden)
    assert hidden["uri"] == "postgresql://me:***@host/db?sslmode=require"
    assert hidden["roles"][0] == {"name": "me", "password": "***"}
    assert hidden["name"] == "key"


@given(
    st.text(st.characters(codec="utf-8"), min_size=4).filter(lambda word: word not in "postgresql://user:***@host/db")
)
def test_no_password_is_left_in_a_connection_string(password: str) -> None:
    assert password not in without_password(f"postgresql://user:{password}@host/db")
    assert password not in without_password(f"host=h password={password}")
    assert password not in without_password(f"postgresql://host/db?password={password}")


def test_a_connection_string_without_a_password_stays() -> None:
    assert without_password("postgresql://me@host/db") == "postgresql://me@host/db"


def test_columns_are_made_of_what_is_there() -> None:
    assert [column.field for column in columns_of([{"a": 1, "b": 2}, {"c": 3, "a": 4}])] == ["a", "b", "c"]
