"""`/projects/{project_id}/branches/{branch_id}/roles`."""

from __future__ import annotations

from lamplighter.api.errors import NotFound
from lamplighter.control.changes import changing, reading
from lamplighter.control.features.names import check_role_name
from lamplighter.control.features.roles.service import Roles
from lamplighter.control.features.roles.views import show_role
from lamplighter.control.http.calls import Call, Reply, Routes
from lamplighter.control.kernel import Kernel, gone


def routes(kernel: Kernel, roles: Roles) -> Routes:
    def place(call: Call) -> tuple[str, str]:
        return call.path["project_id"], call.path["branch_id"]

    async def list_all(call: Call) -> Reply:
        async with reading(kernel, call.caller, *place(call)) as view:
            return Reply({"roles": [show_role(role) for role in await roles.of_branch(view.conn, view.branch.id)]})

    async def get(call: Call) -> Reply:
        async with reading(kernel, call.caller, *place(call)) as view:
            return Reply({"role": show_role(await roles.get(view.conn, view.branch.id, call.path["role_name"]))})

    async def create(call: Call) -> Reply:
        wanted = call.body.role
        name = check_role_name(wanted.name)
        async with changing(kernel, call.caller, *place(call)) as change:
            role, password = await roles.create(change.conn, change.branch.id, name, login=not wanted.no_login)
            operations = await change.apply()
        return Reply({"role": show_role(role, password), "operations": operations}, 201)

    async def delete(call: Call) -> Reply:
        async with changing(kernel, call.caller, *place(call)) as change:
            try:
                role = await roles.delete(change.conn, change.branch.id, call.path["role_name"])
            except NotFound:
                return gone(kernel.place, "role")
            operations = await change.apply()
        return Reply({"role": show_role(role), "operations": operations})

    async def reveal(call: Call) -> Reply:
        async with reading(kernel, call.caller, *place(call)) as view:
            password = await roles.password(
                view.conn, view.branch.id, call.path["role_name"], stored=view.project.store_passwords
            )
        return Reply({"password": password.reveal()})

    async def reset(call: Call) -> Reply:
        async with changing(kernel, call.caller, *place(call)) as change:
            role, password = await roles.reset_password(change.conn, change.branch.id, call.path["role_name"])
            operations = await change.apply()
        return Reply({"role": show_role(role, password), "operations": operations})

    return {
        "listProjectBranchRoles": list_all,
        "getProjectBranchRole": get,
        "createProjectBranchRole": create,
        "deleteProjectBranchRole": delete,
        "getProjectBranchRolePassword": reveal,
        "resetProjectBranchRolePassword": reset,
    }
