"""An operation's cursor and its duration."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.errors import BadRequest
from lamplighter.control.operations.model import COLUMNS, Operation, parse_cursor
from lamplighter.control.operations.states import Status

AT = datetime(2026, 11, 21, 12, 30, 1, 250, tzinfo=UTC)
ROW = {
    "id": UUID(int=1),
    "seq": 7,
    "project_id": "old-violet-32930710",
    "branch_id": "br-noisy-breeze-a5e59rrb",
    "endpoint_id": None,
    "kind": "create_branch",
    "action": "create_branch",
    "status": "running",
    "visible": True,
    "blocking": True,
    "group_id": UUID(int=2),
    "arguments": {"name": "dev"},
    "steps_done": ["clone"],
    "error": None,
    "failures_count": 0,
    "retry_at": None,
    "created_at": AT,
    "updated_at": AT,
    "started_at": None,
    "finished_at": None,
    "lease_owner": "somebody",
}


def operation(**changes) -> Operation:
    return dataclasses.replace(Operation.from_row(ROW), **changes)


def test_a_row_becomes_an_operation_without_the_columns_that_are_the_engines():
    op = operation()
    assert op.status is Status.RUNNING
    assert op.steps_done == ("clone",)
    assert "lease_owner" not in COLUMNS
    assert set(COLUMNS) < set(ROW)


def test_the_cursor_is_the_time_of_creation_with_microseconds():
    assert operation().cursor == "2026-11-21T12:30:01.000250Z"


aware = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


@given(aware)
def test_a_cursor_reads_back_to_the_microsecond(at):
    assert parse_cursor(operation(created_at=at).cursor) == at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T12:30:01Z", AT.replace(microsecond=0)),
        ("2026-11-21T14:30:01.00025+02:00", AT),
    ],
)
def test_other_ways_to_write_the_time_are_read_too(text, expected):
    assert parse_cursor(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2026-11-21",
        "2026-11-21T12:30:01",
        "2026-11-21 12:30:01Z",
        "2026-13-21T12:30:01Z",
        "2026-11-21T25:30:01Z",
        "2026-11-21T12:30:01.1234567Z",
        "2026-11-21T12:30:01+99:99",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "٢٠٢٦-11-21T12:30:01Z",
        "2026-11-21T12:30:01Z\n",
        "2026-11-21T12:30:01Z\x00",
    ],
)
def test_a_malformed_cursor_is_a_bad_request(text):
    with pytest.raises(BadRequest, match="invalid cursor"):
        parse_cursor(text)


@given(st.text())
def test_any_text_is_a_time_or_a_bad_request(text):
    with suppress(BadRequest):
        assert parse_cursor(text).tzinfo is UTC


def test_the_duration_runs_from_the_first_try_to_the_end_and_is_never_negative():
    assert operation(started_at=AT).total_duration_ms == 0
    assert operation(finished_at=AT).total_duration_ms == 0
    assert operation(started_at=AT, finished_at=AT + timedelta(milliseconds=1234.4)).total_duration_ms == 1234
    assert operation(started_at=AT, finished_at=AT - timedelta(seconds=1)).total_duration_ms == 0


def test_an_operation_is_terminal_when_its_status_is():
    assert not operation().is_terminal
    assert operation(status=Status.SKIPPED).is_terminal
