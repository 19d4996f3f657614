"""What leaves as an answer, and what a request is told that cannot be answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import PoolTimeout
from starlette.requests import Request

from lamplighter.api.errors import ApiError, Locked, NotFound, NotServed, PayloadTooLarge, TooManyRequests, Unavailable
from lamplighter.api.models.base import Model, Timestamp
from lamplighter.api.operations import OPERATIONS
from lamplighter.control.errors import ProjectBusy
from lamplighter.control.http.binding import (
    ANSWER_ID,
    as_api_error,
    error_response,
    read_body,
    render,
    request_id_of,
    unserved,
)
from lamplighter.control.http.calls import EMPTY, NEVER_ENABLED, Reply, present, to_wire
from lamplighter.control.http.parsing import MAX_BODY
from lamplighter.control.kernel import Place, gone

AT = datetime(2026, 11, 21, 12, 30, 1, 999_999, tzinfo=UTC)


class Sample(Model):
    at: Timestamp
    note: str | None = None


moments = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    moments,
    st.builds(Sample, at=moments, note=st.none() | st.text()),
)
contents = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(MappingProxyType),
    ),
    max_leaves=8,
)


# --- answers


@given(contents)
def test_whatever_a_feature_answers_is_json(content):
    wire = to_wire(content)
    # What JSON reads back is what was to be said: nothing was turned into something else on the way.
    assert json.loads(json.dumps(wire)) == wire
    assert to_wire(wire) == wire


@given(moments)
def test_a_time_is_told_in_utc_and_whole_seconds(moment):
    told = to_wire(moment)
    assert datetime.fromisoformat(told) == moment.astimezone(UTC).replace(microsecond=0)
    assert told.endswith("Z")
    assert to_wire({"sample": [Sample(at=moment)]}) == {"sample": [{"at": told}]}


def test_a_time_of_another_zone_is_moved():
    assert to_wire(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31T23:00:00Z"


def test_fields_that_nobody_set_are_left_out():
    assert to_wire(Sample(at=AT)) == {"at": "2026-11-21T12:30:01Z"}
    assert to_wire(Sample(at=AT, note=None)) == {"at": "2026-11-21T12:30:01Z", "note": None}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.one_of(st.none(), st.integers(), st.just(""))))
def test_only_fields_with_a_value_are_present(fields):
    shown = present(**fields)
    assert None not in shown.values()
    assert {**dict.fromkeys(fields), **shown} == fields


def test_an_answer_carries_its_request_id_and_an_empty_one_no_body():
    response = render(Reply({"at": AT}, 201), "id-1")
    assert (response.status_code, response.headers[ANSWER_ID]) == (201, "id-1")
    assert json.loads(response.body) == {"at": "2026-11-21T12:30:01Z"}
    assert (render(EMPTY, "id-2").status_code, render(EMPTY, "id-2").body) == (204, b"")


def test_deleting_what_is_not_there_is_answered_as_the_platform_is_set():
    assert gone(Place(), "branch") is EMPTY
    with pytest.raises(NotFound, match="branch not found"):
        gone(Place(missing_is_404=True), "branch")


# --- requests


def request(*, headers: dict[str, str] | None = None, chunks: tuple[bytes, ...] = ()) -> Request:
    async def stream() -> AsyncIterator[dict[str, object]]:
        for chunk in chunks:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive=stream().__anext__)


@given(st.text(st.characters(max_codepoint=255), max_size=140))
def test_a_plain_request_id_is_kept_and_any_other_replaced(given_id):
    kept = request_id_of(request(headers={"X-Request-ID": given_id}))
    if 0 < len(given_id) <= 128 and all(" " <= letter <= "~" for letter in given_id):
        assert kept == given_id
    else:
        assert str(UUID(kept)) == kept


def test_requests_without_an_id_get_one_each():
    assert request_id_of(request()) != request_id_of(request())


async def test_a_body_is_read_whole():
    assert await read_body(request(chunks=(b"a", b"", b"bc"))) == b"abc"
    assert len(await read_body(request(chunks=(b"x" * MAX_BODY,)))) == MAX_BODY


async def test_a_body_that_says_it_is_too_large_is_not_read():
    too_large = request(headers={"content-length": str(MAX_BODY + 1)}, chunks=(b"never",))
    with pytest.raises(PayloadTooLarge):
        await read_body(too_large)
    assert await too_large.body() == b"never"


async def test_a_body_that_is_larger_than_it_said_is_given_up():
    taken = 0

    async def receive() -> dict[str, object]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 400_000, "more_body": True}

    endless = Request({"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"5")]}, receive)
    with pytest.raises(PayloadTooLarge):
        await read_body(endless)
    assert taken == 3


@pytest.mark.parametrize("length", ["", "-1", "1e9", "\xb2", "ten", "0x10", "9" * 5000])
async def test_a_length_that_is_no_number_is_not_believed(length):
    assert await read_body(request(headers={"content-length": length}, chunks=(b"abc",))) == b"abc"


# --- errors


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (NotFound("x"), 404),
        (ProjectBusy("p"), 423),
        (psycopg.errors.UniqueViolation(), 409),
        (psycopg.errors.NumericValueOutOfRange(), 400),
        (psycopg.errors.InvalidTextRepresentation(), 400),
        (psycopg.errors.LockNotAvailable(), 423),
        (psycopg.OperationalError(), 503),
        (PoolTimeout(), 503),
    ],
)
def test_faults_that_pass_or_are_the_clients_are_told_as_such(fault, status):
    known = as_api_error(fault)
    assert known is not None
    assert known.status == status


@pytest.mark.parametrize("fault", [ValueError("x"), KeyError("x"), psycopg.errors.UndefinedTable(), RecursionError()])
def test_faults_of_ours_are_not_passed_on(fault):
    assert as_api_error(fault) is None


def test_a_busy_project_is_told_in_neons_words():
    known = as_api_error(ProjectBusy("p"))
    assert isinstance(known, Locked)
    assert known.message == "project already has running conflicting operations, scheduling of new ones is prohibited"


@pytest.mark.parametrize("error", [TooManyRequests(retry_after=3), Unavailable(retry_after=3)])
def test_when_to_come_again_is_a_header(error):
    response = error_response(error, "id-1")
    assert response.headers["retry-after"] == "3"
    assert response.headers[ANSWER_ID] == "id-1"
    assert json.loads(response.body)["request_id"] == "id-1"


@pytest.mark.parametrize("error", [Unavailable(), NotFound(), ApiError(status=418)])
def test_an_error_that_does_not_know_when_says_nothing_of_it(error):
    response = error_response(error, "id-1")
    assert "retry-after" not in response.headers
    assert response.status_code == error.status
    assert json.loads(response.body) == {"request_id": "id-1", "code": "", "message": error.message}


def test_what_is_not_served_is_not_available_and_what_was_never_enabled_not_found():
    for operation in OPERATIONS.values():
        refusal = unserved(operation)
        assert operation.id in refusal.message
        assert "not available" in refusal.message
        assert isinstance(refusal, NotFound if operation.id in NEVER_ENABLED else NotServed)


def test_what_was_never_enabled_is_of_the_contract_and_not_served():
    assert all(not OPERATIONS[operation_id].served for operation_id in NEVER_ENABLED)
