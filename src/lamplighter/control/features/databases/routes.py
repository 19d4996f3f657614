"""`/projects/{project_id}/branches/{branch_id}/databases`."""

from __future__ import annotations

from lamplighter.api.errors import NotFound
from lamplighter.control.changes import changing, reading
from lamplighter.control.features.databases.service import Databases
from lamplighter.control.features.databases.views import show_database
from lamplighter.control.features.names import check_database_name
from lamplighter.control.http.calls import Call, Reply, Routes
from lamplighter.control.kernel import Kernel, gone


def routes(kernel: Kernel, databases: Databases) -> Routes:
    def place(call: Call) -> tuple[str, str]:
        return call.path["project_id"], call.path["branch_id"]

    async def list_all(call: Call) -> Reply:
        async with reading(kernel, call.caller, *place(call)) as view:
            found = await databases.of_branch(view.conn, view.branch.id)
        return Reply({"databases": [show_database(one) for one in found]})

    async def get(call: Call) -> Reply:
        async with reading(kernel, call.caller, *place(call)) as view:
            found = await databases.get(view.conn, view.branch.id, call.path["database_name"])
        return Reply({"database": show_database(found)})

    async def create(call: Call) -> Reply:
        wanted = call.body.database
        name = check_database_name(wanted.name)
        async with changing(kernel, call.caller, *place(call)) as change:
            database = await databases.create(change.conn, change.branch.id, name=name, owner=wanted.owner_name)
            operations = await change.apply()
        return Reply({"database": show_database(database), "operations": operations}, 201)

    async def update(call: Call) -> Reply:
        wanted = call.body.database
        new_name = None if wanted.name is None else check_database_name(wanted.name)
        async with changing(kernel, call.caller, *place(call)) as change:
            database = await databases.update(
                change.conn, change.branch.id, call.path["database_name"], new_name=new_name, owner=wanted.owner_name
            )
            operations = await change.apply()
        return Reply({"database": show_database(database), "operations": operations})

    async def delete(call: Call) -> Reply:
        async with changing(kernel, call.caller, *place(call)) as change:
            try:
                database = await databases.delete(change.conn, change.branch.id, call.path["database_name"])
            except NotFound:
                return gone(kernel.place, "database")
            operations = await change.apply()
        return Reply({"database": show_database(database), "operations": operations})

    return {
        "listProjectBranchDatabases": list_all,
        "getProjectBranchDatabase": get,
        "createProjectBranchDatabase": create,
        "updateProjectBranchDatabase": update,
        "deleteProjectBranchDatabase": delete,
    }
