"""Tracebacks without the frames that know the key: those of the HTTP library, below the place where it was called."""

from __future__ import annotations

from types import TracebackType
from typing import Final, TypeVar

E = TypeVar("E", bound=BaseException)

_LIBRARIES: Final = frozenset(
    {
        "anyio",
        "asyncio",
        "h11",
        "h2",
        "hpack",
        "httpcore2",
        "httpx2",
        "selectors",
        "socksio",
        "ssl",
        "trio",
        "truststore",
    }
)


def without_library(error: E) -> E:
    """The error, to be raised on: its own frames and those of what caused it are ours and the user's alone."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        found.__traceback__ = _filtered(found.__traceback__)
        found = found.__cause__ or found.__context__
    return error


def _filtered(trace: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    inside = False
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        inside = inside or package.startswith("http")
        if not (inside and package in _LIBRARIES):
            kept.append(trace)
        trace = trace.tb_next
    result: TracebackType | None = None
    for each in reversed(kept):
        result = TracebackType(result, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return result
