"""An operation as a value, and the cursor that a page of operations ends with. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from lamplighter.api.errors import BadRequest
from lamplighter.api.ids import BranchId, EndpointId, ProjectId
from lamplighter.control.operations.states import TERMINAL, Status

_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})")


@dataclass(frozen=True, slots=True)
class NewOperation:
    """What a request schedules.

    `kind` names the recipe that the engine runs, `action` is what clients see (Neon's OperationAction). `arguments`
    must be JSON; they are kept, so no secrets in them. An invisible operation locks the project like any other.
    """

    kind: str
    action: str
    branch_id: str | None = None
    endpoint_id: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    visible: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of `operations`. `seq` is the order in which operations run, `steps_done` what never runs again.

    One that is not `blocking` is tried again in the background, after it failed for its client (see `engine.Recipe`).
    """

    id: UUID
    seq: int
    project_id: ProjectId
    branch_id: BranchId | None
    endpoint_id: EndpointId | None
    kind: str
    action: str
    status: Status
    visible: bool
    blocking: bool
    group_id: UUID
    arguments: Mapping[str, Any]
    steps_done: tuple[str, ...]
    error: str | None
    failures_count: int
    retry_at: datetime | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From a row with (at least) the columns `COLUMNS`."""
        values = {name: row[name] for name in COLUMNS}
        values["status"] = Status(values["status"])
        values["steps_done"] = tuple(values["steps_done"])
        return cls(**values)

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def total_duration_ms(self) -> int:
        """From the first try to the end, in milliseconds; 0 before the end and for what never began."""
        if self.started_at is None or self.finished_at is None:
            return 0
        return max(0, round((self.finished_at - self.started_at).total_seconds() * 1000))

    @property
    def cursor(self) -> str:
        """What the page after this operation begins with: its `created_at`, which no other of the project shares."""
        return self.created_at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


COLUMNS = tuple(column.name for column in fields(Operation))


def parse_cursor(text: str) -> datetime:
    """The time that `Operation.cursor` wrote. Raises BadRequest for what is no RFC 3339 time."""
    if _RFC3339.fullmatch(text):
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise BadRequest("invalid cursor: pass the value of pagination.cursor of the page before")
