"""Which operation a request is: the operation table read from the side of the server. Pure."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import unquote

from lamplighter.api.operations import OPERATIONS, Operation

#: Where all operations are below; what a client puts before it (a host, a prefix of a proxy) is its own business.
BASE = "/api/v2/"


@dataclass(frozen=True, slots=True)
class Match:
    """An operation, and the parameters in the path by name, decoded."""

    operation: Operation
    path: Mapping[str, str]


def operation_of(operation_id: str) -> Operation:
    """The operation of that id. Raises ValueError, with ids that are near."""
    try:
        return OPERATIONS[operation_id]
    except KeyError:
        near = difflib.get_close_matches(operation_id, OPERATIONS, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"{operation_id!r} is no operation of Neon's API{hint}") from None


def match(method: str, raw_path: str) -> Match | None:
    """The operation that a request asks for, or None. `raw_path` is as it was sent: %-encoded, without the query."""
    _, found, rest = raw_path.partition(BASE)
    segments = tuple((rest if found else raw_path.lstrip("/")).split("/"))
    for operation, parts in _routes().get((method, len(segments)), ()):
        values = _values(parts, segments)
        if values is not None:
            return Match(operation, MappingProxyType(values))
    return None


def _values(parts: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    values: dict[str, str] = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            values[part[1:-1]] = unquote(segment)
        elif part != segment:
            return None
    return values


@functools.cache
def _routes() -> Mapping[tuple[str, int], list[tuple[Operation, tuple[str, ...]]]]:
    """By method and number of segments; names before parameters, so that `/projects/shared` is not taken for an id."""
    routes: dict[tuple[str, int], list[tuple[Operation, tuple[str, ...]]]] = {}
    for operation in OPERATIONS.values():
        parts = tuple(operation.path.lstrip("/").split("/"))
        routes.setdefault((operation.method, len(parts)), []).append((operation, parts))
    for found in routes.values():
        found.sort(key=lambda route: [part.startswith("{") for part in route[1]])
    return routes
