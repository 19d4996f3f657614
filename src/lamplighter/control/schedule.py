"""How a feature schedules operations, and how it shows them."""

from __future__ import annotations

from collections.abc import Sequence

from lamplighter.api.models.operations import Operation as WireOperation
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.http.calls import present
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations import store
from lamplighter.control.operations.model import NewOperation, Operation


async def schedule(
    kernel: Kernel, conn: Connection, project_id: str, operations: Sequence[NewOperation], *, running: int = 1
) -> list[WireOperation]:
    """Write the operations of one request, in the caller's transaction; only the visible ones come back.

    The caller has locked the project and called `require_idle`, and wakes the engine once it has committed. The first
    `running` of them are answered as running, as Neon does.
    """
    rows = await store.enqueue(
        conn, project_id, operations, group_id=kernel.uuid(), ids=kernel.uuid, now=kernel.now(), running=running
    )
    return [show(row) for row in rows if row.visible]


def show(row: Operation) -> WireOperation:
    """An operation as the API gives it."""
    return WireOperation(
        id=str(row.id),
        project_id=row.project_id,
        action=row.action,
        status=row.status,
        failures_count=row.failures_count,
        created_at=row.created_at,
        updated_at=row.updated_at,
        total_duration_ms=row.total_duration_ms,
        **present(branch_id=row.branch_id, endpoint_id=row.endpoint_id, error=row.error, retry_at=row.retry_at),
    )
