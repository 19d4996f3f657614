"""What changed in a project between two looks at it, and when to look again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

#: Seconds between two looks while something happens, and at most. A look is two requests: 240 a minute of Neon's 700.
SHORTEST: Final = 0.5
LONGEST: Final = 10.0
_GROWTH: Final = 1.5

ENDED: Final = frozenset({"finished", "failed", "error", "cancelled", "skipped"})
DELETED: Final = "deleted"


@dataclass(frozen=True, slots=True)
class Look:
    """What was there at one time: JSON of endpoints and operations by id."""

    endpoints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    operations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def under_way(self) -> frozenset[str]:
        """Operations that have not ended."""
        return frozenset(id_ for id_, one in self.operations.items() if one["status"] not in ENDED)

    @property
    def idle(self) -> bool:
        """Whether no operation is under way, and no endpoint changes."""
        changing = any(one.get("pending_state") not in (None, one["current_state"]) for one in self.endpoints.values())
        return not changing and not self.under_way


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of `lamp watch`. `before` is None for what was not there."""

    kind: str
    id: str
    state: str
    before: str | None
    branch_id: str | None = None
    endpoint_id: str | None = None
    action: str | None = None
    failures: int = 0
    error: str | None = None
    duration_ms: int | None = None


def changes(before: Look, after: Look) -> list[Change]:
    """What happened: operations in the order in which they changed, then endpoints."""
    found = []
    for one in sorted(after.operations.values(), key=lambda op: (op.get("updated_at") or "", op["created_at"])):
        old = before.operations.get(one["id"])
        if old is None or _progress(old) != _progress(one):
            found.append(_of_operation(one, old))
    for id_, endpoint in after.endpoints.items():
        known = before.endpoints.get(id_)
        if known is None or state_of(known) != state_of(endpoint):
            found.append(_of_endpoint(endpoint, state_of(endpoint), known))
    for id_, endpoint in before.endpoints.items():
        if id_ not in after.endpoints:
            found.append(_of_endpoint(endpoint, DELETED, endpoint))
    return found


def state_of(endpoint: Mapping[str, Any]) -> str:
    """`idle`, or `idle > active` while it changes."""
    current, pending = endpoint["current_state"], endpoint.get("pending_state")
    return f"{current} > {pending}" if pending not in (None, current) else str(current)


def next_pause(pause: float, *, changed: bool) -> float:
    """Seconds until the next look: the shortest after a change, longer and longer without one."""
    return SHORTEST if changed else min(LONGEST, max(SHORTEST, pause) * _GROWTH)


def as_dict(change: Change, *, at: datetime) -> dict[str, Any]:
    """For programs; always the same names."""
    return {
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "kind": change.kind,
        "id": change.id,
        "action": change.action,
        "state": change.state,
        "before": change.before,
        "branch_id": change.branch_id,
        "endpoint_id": change.endpoint_id,
        "failures_count": change.failures,
        "duration_ms": change.duration_ms,
        "error": change.error,
    }


def as_text(change: Change, *, at: datetime, branches: Mapping[str, str]) -> str:
    """For people: a line, with branches by name where that is known."""
    where = branches.get(change.branch_id, change.branch_id) if change.branch_id else ""
    if change.kind == "endpoint":
        what = f"endpoint   {change.id}"
        state = change.state if change.before in (None, change.state) else f"{change.state} (was {change.before})"
        tail = f"branch {where}"
    else:
        what = f"operation  {change.action}"
        state = change.state
        tail = f"{change.endpoint_id} of branch {where}" if change.endpoint_id else f"branch {where}" if where else ""
        if change.state in ENDED and change.duration_ms is not None:
            tail += f", {change.duration_ms / 1000:.1f} s"
        if change.failures:
            tail += f", failed {change.failures} times"
        if change.error:
            tail += f": {change.error}"
    return f"{at:%H:%M:%S}  {what}  {state}  {tail}".rstrip()


def _progress(operation: Mapping[str, Any]) -> tuple[Any, Any]:
    return operation["status"], operation.get("failures_count", 0)


def _of_operation(one: Mapping[str, Any], old: Mapping[str, Any] | None) -> Change:
    return Change(
        kind="operation",
        id=one["id"],
        action=one["action"],
        state=one["status"],
        before=None if old is None else old["status"],
        branch_id=one.get("branch_id"),
        endpoint_id=one.get("endpoint_id"),
        failures=one.get("failures_count") or 0,
        error=one.get("error"),
        duration_ms=one.get("total_duration_ms"),
    )


def _of_endpoint(one: Mapping[str, Any], state: str, old: Mapping[str, Any] | None) -> Change:
    return Change(
        kind="endpoint",
        id=one["id"],
        state=state,
        before=None if old is None else state_of(old),
        branch_id=one.get("branch_id"),
        endpoint_id=one["id"],
    )
