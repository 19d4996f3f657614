"""Spans of time as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.keys.duration import parse_duration, show_duration
from lamplighter.keys.errors import PolicyError


@given(seconds=st.integers(0, 10**9))
def test_what_is_shown_is_read_back(seconds: int) -> None:
    span = timedelta(seconds=seconds)
    assert parse_duration(show_duration(span)) == span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90d", timedelta(days=90)),
        ("1h30m", timedelta(minutes=90)),
        ("2w", timedelta(days=14)),
        (" 45s ", timedelta(seconds=45)),
        ("0", timedelta()),
    ],
)
def test_spans_that_people_write(text: str, span: timedelta) -> None:
    assert parse_duration(text) == span


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5h", "30m1h", "1 d", "1y", "٣d", "9999999d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        parse_duration(text)
