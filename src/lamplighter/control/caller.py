"""Who asks: what an API key proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

KeyKind = Literal["personal", "organization", "project"]


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a request's key. `org_id` is set for organization and project keys, `project_id` for the latter."""

    key_id: int
    kind: KeyKind
    user_id: UUID
    org_id: str | None
    project_id: str | None

    @property
    def account(self) -> str:
        """Whose rate limit a request counts against."""
        return self.org_id if self.org_id is not None else str(self.user_id)
