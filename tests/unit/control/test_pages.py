"""Cursors and the search of branches."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.errors import BadRequest
from lamplighter.control.features.branches.model import Branch
from lamplighter.control.features.branches.store import BranchQuery, _cursor_value, _pattern, cursor_after
from lamplighter.control.http.pages import BranchCursor

AT = datetime(2026, 11, 21, 12, 30, 1, 250, tzinfo=UTC)
BRANCH = Branch(
    id="br-noisy-breeze-a5e59rrb",
    project_id="old-violet-32930710",
    parent_id=None,
    parent_timestamp=None,
    name="main",
    is_default=True,
    protected=False,
    current_state="ready",
    pending_state=None,
    state_changed_at=AT,
    init_source="parent-data",
    creation_source="console",
    created_by_name="somebody",
    logical_size=None,
    expires_at=None,
    ttl_interval_seconds=None,
    annotation={},
    created_at=AT,
    updated_at=AT + timedelta(seconds=1),
)
QUERY = BranchQuery(search=None, sort_by="created_at", descending=True, limit=10, cursor=None)
CURSOR = BranchCursor(BRANCH.id, "name", "main", "ASC")

storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
cursors = st.builds(BranchCursor, storable, storable, storable, storable)


def packed(value) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


# --- the cursor


@given(cursors)
def test_a_cursor_reads_back_as_it_was(cursor):
    assert BranchCursor.decode(cursor.encode()) == cursor


def test_a_cursor_is_neons_own_form():
    assert json.loads(base64.b64decode(CURSOR.encode())) == {
        "branch_id": BRANCH.id,
        "sort_by": "name",
        "sort_by_value": "main",
        "sort_order": "ASC",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.one_of(
        st.text(st.characters(), max_size=60),
        st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode()),
        json_values.map(packed),
        st.fixed_dictionaries(dict.fromkeys(asdict(CURSOR), json_values)).map(packed),
    )
)
def test_any_text_is_a_storable_cursor_or_a_bad_request(text):
    try:
        cursor = BranchCursor.decode(text)
    except BadRequest:
        return
    for value in asdict(cursor).values():
        assert isinstance(value, str)
        assert "\x00" not in value
        value.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64!",
        "bWFpbg",
        packed("main"),
        packed([]),
        packed(None),
        packed({}),
        packed(asdict(CURSOR) | {"more": "x"}),
        packed(asdict(CURSOR) | {"branch_id": 1}),
        packed(asdict(CURSOR) | {"sort_by_value": None}),
        packed(asdict(CURSOR) | {"sort_by_value": "\x00"}),
        packed(asdict(CURSOR) | {"sort_by_value": "\ud800"}),
        base64.b64encode(b"[" * 100_000).decode(),
        base64.b64encode(b'{"a":' * 100_000).decode(),
        base64.b64encode(b"9" * 10_000).decode(),
        base64.b64encode(b"\xff\xfe").decode(),
    ],
    ids=range(16),
)
def test_what_encode_did_not_make_is_a_bad_request(text):
    with pytest.raises(BadRequest, match=r"invalid cursor: pass the value of pagination\.next"):
        BranchCursor.decode(text)


# --- where a page of branches ends


zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=zones,
)


@given(moments, st.sampled_from(["created_at", "updated_at"]))
def test_a_time_is_found_again_to_the_microsecond(at, column):
    cursor = cursor_after(replace(BRANCH, **{column: at}), replace(QUERY, sort_by=column))
    assert _cursor_value(BranchCursor.decode(cursor.encode())) == at


@given(storable)
def test_a_name_is_found_again_even_where_it_looks_like_a_time(name):
    cursor = cursor_after(replace(BRANCH, name=name), replace(QUERY, sort_by="name"))
    assert _cursor_value(BranchCursor.decode(cursor.encode())) == name


def test_the_cursor_remembers_id_and_direction():
    assert cursor_after(BRANCH, QUERY).branch_id == BRANCH.id
    assert cursor_after(BRANCH, QUERY).sort_order == "DESC"
    assert cursor_after(BRANCH, replace(QUERY, descending=False)).sort_order == "ASC"


@given(storable)
def test_any_value_of_a_time_cursor_is_a_time_with_a_zone_or_a_bad_request(text):
    try:
        moment = _cursor_value(replace(CURSOR, sort_by="created_at", sort_by_value=text))
    except BadRequest:
        return
    assert isinstance(moment, datetime)
    assert moment.tzinfo is not None


def test_a_time_without_a_zone_is_taken_for_utc():
    assert _cursor_value(replace(CURSOR, sort_by="updated_at", sort_by_value="2026-11-21T12:30:01.000250")) == AT


# --- the search


def like(pattern: str) -> re.Pattern[str]:
    """What a LIKE pattern finds, with Postgres's default escape."""
    parts = []
    letters = iter(pattern)
    for letter in letters:
        match letter:
            case "\\":
                parts.append(re.escape(next(letters)))
            case "%":
                parts.append(".*")
            case "_":
                parts.append(".")
            case _:
                parts.append(re.escape(letter))
    return re.compile("".join(parts), re.DOTALL)


wild = st.text("ab%_\\", max_size=6)


@given(wild.filter(bool), wild)
def test_a_search_finds_its_text_anywhere_and_takes_wildcards_literally(search, name):
    pattern = _pattern(search)
    assert pattern is not None
    assert bool(like(pattern).fullmatch(name)) is (search in name)


@pytest.mark.parametrize("search", [None, ""])
def test_no_search_is_no_pattern(search):
    assert _pattern(search) is None
