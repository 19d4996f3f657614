"""Values as people write them: durations, points in time of a branch, compute sizes. Pure, but for click's types."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_DURATION = re.compile(r"(?:\d{1,9}[smhdw])+", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}", re.ASCII)
#: Ten years: more is a slip of the finger, and far below what a datetime cannot hold.
_LONGEST = 10 * 366 * 86400

SELF = "^self"
PARENT = "^parent"


def parse_duration(text: str) -> int:
    """Seconds of `90s`, `5m`, `2h30m`, `7d`, `1w`. A number needs a unit. Raises ValueError."""
    compact = text.strip().replace(" ", "").lower()
    if not _DURATION.fullmatch(compact):
        raise ValueError(f"{text!r} is no duration: write numbers with units, such as 90s, 5m, 2h30m or 7d")
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(compact))
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"{text!r} is no duration that can be used: give more than nothing and at most ten years")
    return seconds


def parse_suspend_timeout(text: str) -> int:
    """Seconds of a duration or of a plain number; `never` is -1 and `default` is 0. Raises ValueError."""
    word = text.strip().lower()
    named = {"never": -1, "-1": -1, "default": 0, "0": 0}
    if word in named:
        return named[word]
    if re.fullmatch(r"\d{1,9}", word, re.ASCII):
        return int(word)
    try:
        return parse_duration(word)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time to suspend after: write seconds or a duration such as 5m, or never, or default"
        ) from None


def parse_cu(text: str) -> tuple[float, float]:
    """Least and most compute units of `2` or of `0.25-2`. Raises ValueError."""
    least, dash, most = text.strip().partition("-")
    try:
        sizes = (float(least), float(most if dash else least))
    except ValueError:
        sizes = (math.nan, math.nan)
    if not (0 < sizes[0] <= sizes[1] and math.isfinite(sizes[1])):
        raise ValueError(f"{text!r} is no size of a compute: write one such as 2, or the least and the most: 0.25-2")
    return sizes


def parse_moment(text: str, *, now: datetime) -> datetime:
    """A time with its zone (`2026-01-31T12:00:00Z`), or `15m ago`. In UTC. Raises ValueError."""
    word = text.strip()
    if word.lower().endswith("ago"):
        return (now.astimezone(UTC) - timedelta(seconds=parse_duration(word[:-3]))).replace(microsecond=0)
    try:
        if _MOMENT.fullmatch(word):
            # From 3.11 on it takes Z and fractions, of which it keeps microseconds.
            return datetime.fromisoformat(word.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r} is no time: write it with its zone, such as 2026-01-31T12:00:00Z, or 15m ago")


def parse_point(text: str, *, now: datetime) -> str | datetime:
    """A point of a branch's history: an LSN (`0/1A2B3C4`, given back in capitals) or a time. Raises ValueError."""
    word = text.strip()
    if _LSN.fullmatch(word):
        return word.upper()
    try:
        return parse_moment(word, now=now)
    except ValueError:
        raise ValueError(
            f"{text!r} is no point in time: write a time with its zone (2026-01-31T12:00:00Z), 15m ago, "
            "or an LSN (0/1A2B3C4)"
        ) from None


@dataclass(frozen=True, slots=True)
class Source:
    """A branch by name or id, `^self` or `^parent`, and the point of it that is meant (None: as it is now)."""

    branch: str
    point: str | datetime | None = None


def parse_source(text: str, *, now: datetime) -> Source:
    """Of `NAME`, or `NAME@POINT`. What follows the last `@` but is no point belongs to the name. Raises ValueError."""
    name, at, point = text.rpartition("@")
    if at:
        try:
            if name:
                return Source(name, parse_point(point, now=now))
        except ValueError:
            pass
    if not text:
        raise ValueError("a branch has a name: give that, or its id")
    return Source(text)


def parse_parent(text: str, *, now: datetime) -> Source:
    """As `parse_source`; a point alone is one of the default branch, which has the name "" here."""
    try:
        return Source("", parse_point(text, now=now))
    except ValueError:
        return parse_source(text, now=now)


def expiry(*, at: datetime | None, within: int | None, now: datetime) -> datetime | None:
    """When something ends: at that time, or so many seconds from now, in whole seconds. Raises ValueError for both."""
    if at is not None and within is not None:
        raise ValueError("give --expires-at or --expires-in, not both")
    if within is not None:
        return (now.astimezone(UTC) + timedelta(seconds=within)).replace(microsecond=0)
    return at


def as_lsn_or_time(point: str | datetime | None) -> tuple[str | None, datetime | None]:
    """A point as the two fields of the API: LSN, timestamp."""
    if isinstance(point, str):
        return point, None
    return None, point


class _Said(click.ParamType[Any]):
    """An option's value, read by one of the functions above."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def read(self, text: str) -> Any:
        raise NotImplementedError


class Duration(_Said):
    """Seconds."""

    name = "duration"

    def read(self, text: str) -> int:
        return parse_duration(text)


class SuspendTimeout(_Said):
    """Seconds, as the API counts them."""

    name = "duration"

    def read(self, text: str) -> int:
        return parse_suspend_timeout(text)


class ComputeSize(_Said):
    """Least and most compute units."""

    name = "size"

    def read(self, text: str) -> tuple[float, float]:
        return parse_cu(text)


class Moment(_Said):
    """A time in UTC."""

    name = "time"

    def read(self, text: str) -> datetime:
        return parse_moment(text, now=datetime.now(UTC))


class Point(_Said):
    """An LSN or a time in UTC."""

    name = "point"

    def read(self, text: str) -> str | datetime:
        return parse_point(text, now=datetime.now(UTC))


class BranchAt(_Said):
    """A branch and perhaps a point of its history."""

    name = "branch"

    def read(self, text: str) -> Source:
        return parse_source(text, now=datetime.now(UTC))


class ParentAt(_Said):
    """A branch to begin from, a point of its history, or both."""

    name = "branch"

    def read(self, text: str) -> Source:
        return parse_parent(text, now=datetime.now(UTC))
