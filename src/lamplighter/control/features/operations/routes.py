"""`/projects/{project_id}/operations`."""

from __future__ import annotations

from uuid import UUID

from lamplighter.control.http.calls import Call, Reply, Routes, present
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations import store
from lamplighter.control.schedule import show
from lamplighter.control.scope import find_project

#: Neon's default is not documented; clients that page pass their own.
DEFAULT_PAGE = 100


def routes(kernel: Kernel) -> Routes:
    async def list_operations(call: Call) -> Reply:
        async with kernel.catalog.connection() as conn:
            project = await find_project(conn, call.caller, call.path["project_id"])
            found, cursor = await store.page(
                conn, project.id, limit=call.query["limit"] or DEFAULT_PAGE, cursor=call.query["cursor"]
            )
        pagination = {"cursor": cursor} if cursor is not None else None
        return Reply({"operations": [show(one) for one in found], **present(pagination=pagination)})

    async def get_operation(call: Call) -> Reply:
        async with kernel.catalog.connection() as conn:
            project = await find_project(conn, call.caller, call.path["project_id"])
            found = await store.get(conn, project.id, UUID(call.path["operation_id"]))
        return Reply({"operation": show(found)})

    return {"listProjectOperations": list_operations, "getProjectOperation": get_operation}
