"""Spans of time as people write them in a policy: `90d`, `1h30m`, `45s`. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from lamplighter.keys.errors import PolicyError

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_WHOLE: Final = re.compile(r"(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Weeks, days, hours, minutes and seconds, in this order, each a whole number; `0` is none. Raises PolicyError."""
    written = text.strip()
    found = _WHOLE.fullmatch(written)
    if written == "0":
        return timedelta()
    if not written or found is None:
        raise PolicyError(f"{text!r} is no span of time: write it like 90d, 12h, 1h30m or 45s")
    numbers = zip(found.groups(), _UNITS.values(), strict=True)
    return timedelta(seconds=sum(int(number) * unit for number, unit in numbers if number))


def show_duration(span: timedelta) -> str:
    """The shortest text that `parse_duration` reads as this span, rounded down to seconds."""
    left, parts = max(0, int(span.total_seconds())), []
    for letter, unit in _UNITS.items():
        count, left = divmod(left, unit)
        # 7 days are said as days: only whole weeks and nothing else are said as weeks.
        if letter == "w" and left:
            left += count * unit
            continue
        if count:
            parts.append(f"{count}{letter}")
    return "".join(parts) or "0"
