"""One request as a feature sees it: parsed, authenticated and allowed; and what the feature answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from lamplighter.api.models.base import wire_time
from lamplighter.control.caller import Caller


@dataclass(frozen=True, slots=True)
class Call:
    """Parameters and body are already of the types that the operation table names; absent ones have their default."""

    caller: Caller
    path: Mapping[str, Any]
    query: Mapping[str, Any]
    body: Any
    request_id: str


@dataclass(frozen=True, slots=True)
class Reply:
    """`content` may hold models anywhere; None is an empty body."""

    content: Any
    status: int = 200


EMPTY = Reply(None, 204)

#: Not served, and yet answered 404: Neon's CLI reads these for `status` and `env pull`, takes 404 for a service that
#: nobody enabled on the branch (which is so), and gives up at 501.
NEVER_ENABLED = frozenset({"getNeonAuth", "getProjectBranchDataAPI"})

Handler = Callable[[Call], Awaitable[Reply]]
Routes = Mapping[str, Handler]


def to_wire(value: Any) -> Any:
    """Models as plain JSON values. Fields that nobody set are left out: clients tell absent from null."""
    match value:
        case BaseModel():
            return value.model_dump(mode="json", exclude_unset=True, by_alias=True)
        case Mapping():
            return {key: to_wire(item) for key, item in value.items()}
        case list() | tuple():
            return [to_wire(item) for item in value]
        case datetime():
            return wire_time(value)
        case _:
            return value


def present(**fields: Any) -> dict[str, Any]:
    """The fields that have a value. An optional field of the contract is absent, never null."""
    return {name: value for name, value in fields.items() if value is not None}
