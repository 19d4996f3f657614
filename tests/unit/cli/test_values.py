"""What people write for durations, sizes and points in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.values import (
    BranchAt,
    ComputeSize,
    Duration,
    Moment,
    Point,
    Source,
    SuspendTimeout,
    as_lsn_or_time,
    expiry,
    parse_cu,
    parse_duration,
    parse_moment,
    parse_point,
    parse_source,
    parse_suspend_timeout,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=UTC)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("2h30m", 9000), ("2h 30m", 9000), ("7D", 604800), ("1w", 604800), (" 1d ", 86400)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "-5m", "5x", "1.5h", "0s", "5m ago", "99999w", "٣m", "9" * 5000 + "d", "5 minutes"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert seconds > 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("300", 300), ("5m", 300), ("never", -1), ("-1", -1), ("default", 0), ("0", 0), ("Never", -1)]
)
def test_times_to_suspend_after(text: str, seconds: int) -> None:
    assert parse_suspend_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "-2", "soon", "1.5", "9" * 5000])
def test_what_is_no_time_to_suspend_after(text: str) -> None:
    with pytest.raises(ValueError, match="never"):
        parse_suspend_timeout(text)


@pytest.mark.parametrize(
    ("text", "sizes"), [("2", (2, 2)), ("0.25-2", (0.25, 2)), ("0.5 - 3", (0.5, 3)), ("1-1", (1, 1))]
)
def test_sizes_of_computes(text: str, sizes: tuple[float, float]) -> None:
    assert parse_cu(text) == sizes


@pytest.mark.parametrize("text", ["", "-", "2-1", "0", "-1", "nan", "inf", "1-inf", "1-2-3", "small", "0.25-"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size of a compute"):
        parse_cu(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31t12:00:00z",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00Z",
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T12:00:00.000Z",
    ],
)
def test_moments_are_in_utc(text: str) -> None:
    moment = parse_moment(text, now=NOW)
    assert moment == NOON
    assert moment.tzinfo is UTC


def test_a_moment_may_be_a_while_ago() -> None:
    assert parse_moment("15m ago", now=NOW) == datetime(2026, 3, 1, 11, 45, tzinfo=UTC)
    assert parse_moment("1h30m  ago", now=NOW) == datetime(2026, 3, 1, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "2026-01-31", "2026-01-31T12:00:00", "2026-13-01T00:00:00Z", "1769860800", "ago", "yesterday",
             "0001-01-01T00:00:00+23:00"]
)  # fmt: skip
def test_what_is_no_moment(text: str) -> None:
    """A time without a zone could mean two things."""
    with pytest.raises(ValueError, match=r"duration|is no time"):
        parse_moment(text, now=NOW)


def test_points_are_lsns_or_times() -> None:
    assert parse_point("0/1a2b3c4", now=NOW) == "0/1A2B3C4"
    assert parse_point("2026-01-31T12:00:00Z", now=NOW) == NOON
    for text in ("main", "1/", "0/123456789", "", "1/2/3"):
        with pytest.raises(ValueError, match="no point in time"):
            parse_point(text, now=NOW)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("main", Source("main")),
        ("main@0/1A", Source("main", "0/1A")),
        ("main@2026-01-31T12:00:00Z", Source("main", NOON)),
        ("me@work", Source("me@work")),
        ("me@work@0/1A", Source("me@work", "0/1A")),
        ("^parent@0/1A", Source("^parent", "0/1A")),
        ("@0/1A", Source("@0/1A")),
        ("main@", Source("main@")),
    ],
)
def test_sources(text: str, source: Source) -> None:
    """An @ may be part of a name; what follows it counts only when it is a point."""
    assert parse_source(text, now=NOW) == source


@given(st.text(min_size=1), st.one_of(st.from_regex(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}", fullmatch=True)))
def test_a_name_and_a_point_are_told_apart_again(name: str, point: str) -> None:
    assert parse_source(f"{name}@{point}", now=NOW) == Source(name, point)


@given(st.text(min_size=1))
def test_every_name_without_a_point_stays_whole(name: str) -> None:
    source = parse_source(name, now=NOW)
    assert source.point is not None or source.branch == name


def test_a_source_has_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        parse_source("", now=NOW)


def test_expiry() -> None:
    assert expiry(at=None, within=None, now=NOW) is None
    assert expiry(at=NOON, within=None, now=NOW) == NOON
    assert expiry(at=None, within=7200, now=NOW) == datetime(2026, 3, 1, 14, tzinfo=UTC)
    local = NOW.astimezone(timezone(timedelta(hours=5)))
    assert expiry(at=None, within=7200, now=local) == datetime(2026, 3, 1, 14, tzinfo=UTC)
    with pytest.raises(ValueError, match="not both"):
        expiry(at=NOON, within=1, now=NOW)


def test_points_as_the_api_has_them() -> None:
    assert as_lsn_or_time("0/1A") == ("0/1A", None)
    assert as_lsn_or_time(NOON) == (None, NOON)
    assert as_lsn_or_time(None) == (None, None)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Duration(), "5m", "x"),
        (SuspendTimeout(), "never", "x"),
        (ComputeSize(), "1-2", "x"),
        (Moment(), "1h ago", "x"),
        (Point(), "0/1", "x"),
        (BranchAt(), "main", ""),
    ],
)
def test_options_complain_in_words(kind: click.ParamType, good: str, bad: str) -> None:
    """And take what was read already."""
    read = kind.convert(good, None, None)
    assert kind.convert(read, None, None) == read or isinstance(read, str)
    with pytest.raises(click.BadParameter):
        kind.convert(bad, None, None)
