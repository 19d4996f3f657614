"""A branch as it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Branch:
    """A row of `branches`."""

    id: str
    project_id: str
    parent_id: str | None
    parent_timestamp: datetime | None
    name: str
    is_default: bool
    protected: bool
    current_state: str
    pending_state: str | None
    state_changed_at: datetime
    init_source: str
    creation_source: str
    created_by_name: str
    logical_size: int | None
    expires_at: datetime | None
    ttl_interval_seconds: int | None
    annotation: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    #: In this month so far; `transferred` are bytes to clients.
    active_seconds: int = 0
    compute_seconds: int = 0
    transferred: int = 0
