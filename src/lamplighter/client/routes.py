"""Which operation a request by path is: the limits count by operation, however a request was written."""

from __future__ import annotations

import re
from functools import cache

_PLACE = re.compile(r"{\w+}")


def route_of(method: str, path: str) -> str:
    """The id of the operation, or method and path where the table knows none."""
    for known, pattern, name in _patterns():
        if known == method and pattern.fullmatch(path):
            return name
    return f"{method} {path}"


@cache
def _patterns() -> list[tuple[str, re.Pattern[str], str]]:
    # All models come with the table: who never asks by path does not wait for them.
    from lamplighter.api.operations import OPERATIONS  # noqa: PLC0415

    # Fixed paths before those with a name in their place.
    known = sorted(OPERATIONS.values(), key=lambda operation: operation.path.count("{"))
    return [(each.method, _pattern(each.path), each.id) for each in known]


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("[^/]+".join(re.escape(part) for part in _PLACE.split(path)))
