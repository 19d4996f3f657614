"""An endpoint as it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lamplighter.control.features.endpoints.plan import EndpointType

READ_WRITE: EndpointType = "read_write"
READ_ONLY: EndpointType = "read_only"
#: An argument of suspensions, where nobody asked for them.
SLEEP_REASON = "reason"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of `endpoints`."""

    id: str
    project_id: str
    branch_id: str
    name: str | None
    type: EndpointType
    current_state: str
    pending_state: str | None
    autoscaling_limit_min_cu: float
    autoscaling_limit_max_cu: float
    suspend_timeout_seconds: int
    settings: dict[str, Any]
    pooler_mode: str
    disabled: bool
    passwordless_access: bool
    region_id: str
    provisioner: str
    creation_source: str
    port: int
    pooler_port: int | None
    last_active: datetime | None
    started_at: datetime | None
    suspended_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def volume_id(self) -> str:
        """A read-write compute runs on its branch's volume; a standby on a copy of its own."""
        return self.branch_id if self.type == READ_WRITE else self.id
