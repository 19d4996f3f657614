"""Rates and the screen of `lamp endpoints top`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.output import Screen, table_text
from lamplighter.cli.terminal import width
from lamplighter.cli.top_view import RATES, Look, columns_of, frame, look_of, rows_of, shown, summary

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def endpoint(id_: str = "ep-a", *, state: str = "active", **more: Any) -> dict[str, Any]:
    common = {"id": id_, "project_id": "p", "branch_id": "br", "name": None, "state": state, "connections": 0}
    totals = {"accepted": 0, "bytes_in": 0, "bytes_out": 0, "wakes": 0, "last_wake_ms": None}
    times = {"started_at": "2026-01-31T11:00:00Z", "last_active": "2026-01-31T11:59:50Z", "suspended_at": None}
    return {**common, **totals, **times, **more}


def look(*endpoints: dict[str, Any], at: float = 0.0) -> Look:
    return look_of({"endpoints": list(endpoints)}, at=at)


def test_rates_are_of_the_time_between_two_looks() -> None:
    before = look(endpoint(bytes_in=100, bytes_out=1000, accepted=4), at=10.0)
    (row,) = rows_of(before, look(endpoint(bytes_in=300, bytes_out=1000, accepted=5), at=12.0))
    assert (row["bytes_in_per_second"], row["bytes_out_per_second"], row["accepted_per_second"]) == (100, 0, 0.5)


def test_one_look_has_no_rates() -> None:
    (row,) = rows_of(None, look(endpoint(bytes_in=100)))
    assert row["bytes_in_per_second"] is None
    assert row["bytes_in"] == 100


def test_a_new_endpoint_began_at_nothing() -> None:
    (row,) = rows_of(look(), look(endpoint(bytes_in=100), at=2.0))
    assert row["bytes_in_per_second"] == 50


def test_a_platform_that_started_anew_counts_from_nothing() -> None:
    (row,) = rows_of(look(endpoint(bytes_in=1000)), look(endpoint(bytes_in=10), at=1.0))
    assert row["bytes_in_per_second"] == 10


def test_the_busiest_comes_first() -> None:
    before = look(endpoint("ep-a"), endpoint("ep-b"), endpoint("ep-c"), endpoint("ep-d"))
    after = look(
        endpoint("ep-b"), endpoint("ep-a"), endpoint("ep-c", connections=3), endpoint("ep-d", bytes_out=9), at=1.0
    )
    assert [row["id"] for row in rows_of(before, after)] == ["ep-d", "ep-c", "ep-a", "ep-b"]


def test_one_project_alone() -> None:
    reply = {"endpoints": [endpoint("ep-a"), endpoint("ep-b", project_id="other")]}
    assert list(look_of(reply, at=0, project_id="other").endpoints) == ["ep-b"]


@pytest.mark.parametrize("reply", [None, [], {}, {"endpoints": None}, {"endpoints": [1]}, {"endpoints": [{"id": 5}]}])
def test_an_answer_of_another_kind(reply: Any) -> None:
    with pytest.raises(ValueError, match="no endpoints"):
        look_of(reply, at=0)


def test_the_table() -> None:
    before = look(endpoint(), endpoint("ep-b", state="idle"))
    after = look(
        endpoint(connections=2, bytes_in=2048, bytes_out=5, wakes=3, last_wake_ms=47),
        endpoint("ep-b", state="idle"),
        at=1.0,
    )
    rows = rows_of(before, after)
    assert frame(rows, now=NOW, screen=Screen(), lines=24).splitlines() == [
        "12:00:00  2 endpoints, 1 active, 2 connections, in 2.0 KiB/s, out 5 B/s",
        "",
        "ENDPOINT  STATE   CONNS     IN/S  OUT/S  ACTIVE FOR  LAST USED  WAKES   WAKE",
        "ep-a      active      2  2.0 KiB    5 B         1 h       10 s      3  47 ms",
        "ep-b      idle        0      0 B    0 B           -       10 s      0      -",
    ]


def test_names_have_a_column_where_there_are_any() -> None:
    rows = rows_of(None, look(endpoint(name="reports")))
    assert "reports" in table_text(rows, columns_of(rows, now=NOW), screen=Screen())


def test_no_endpoints() -> None:
    assert frame([], now=NOW, screen=Screen(), lines=24) == "12:00:00  0 endpoints, 0 active, 0 connections\n"


def test_trouble_is_told_above() -> None:
    text = frame(rows_of(None, look(endpoint())), now=NOW, screen=Screen(), lines=24, note="no answer")
    assert text.splitlines()[0].endswith("(no answer)")


def test_what_a_server_says_cannot_move_the_cursor() -> None:
    rows = rows_of(None, look(endpoint("ep-\x1b[2J", name="\x1b]0;x\x07", state="\x9b1m")))
    assert "\x1b" not in frame(rows, now=NOW, screen=Screen(columns=200), lines=24)
    assert "\x9b" not in frame(rows, now=NOW, screen=Screen(columns=200), lines=24)


numbers = st.none() | st.integers(-5, 2**60)
endpoints = st.builds(
    endpoint,
    st.sampled_from(["ep-a", "ep-quiet-moon-12345678", "ep-c", "ep-d", "ep-e"]),
    state=st.sampled_from(["active", "idle", "init", "", "x" * 90]),
    name=st.none() | st.text(max_size=60),
    connections=numbers,
    bytes_in=numbers,
    bytes_out=numbers,
    wakes=numbers,
    last_wake_ms=numbers,
    started_at=st.sampled_from([None, "", "nonsense", "2026-01-31T11:00:00Z", "2027-01-31T11:00:00"]),
)
looks = st.lists(endpoints, max_size=30)


@given(looks, looks, st.integers(20, 250), st.integers(1, 60), st.text(max_size=300))
def test_a_frame_fits_its_terminal(
    before: list[dict[str, Any]], after: list[dict[str, Any]], columns: int, lines: int, note: str
) -> None:
    """Whatever a server says: no line is wider, and there are no more lines than fit, but those without which it
    would say nothing.
    """
    rows = rows_of(look(*before), look(*after, at=2.0))
    text = frame(rows, now=NOW, screen=Screen(columns=columns), lines=lines, note=note.replace("\n", " "))
    assert all(width(line) <= columns for line in text.split("\n"))
    assert text.count("\n") <= max(4, lines - 1)


@given(looks, looks)
def test_rates_are_never_negative(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    def counted(each: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**one, **{total: abs(one[total] or 0) for total in RATES}} for one in each]

    rows = rows_of(look(*counted(before)), look(*counted(after), at=0.5))
    assert {row["id"] for row in rows} == {one["id"] for one in after}
    for row in rows:
        assert all(row[rate] >= 0 for rate in RATES.values())
        assert shown(row)["id"] == row["id"]
    assert summary(rows)
