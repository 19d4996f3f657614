"""`/projects/{project_id}/branches`."""

from __future__ import annotations

from typing import Any

from lamplighter.api.errors import PreconditionFailed
from lamplighter.control.features.branches import store
from lamplighter.control.features.branches.plan import wish
from lamplighter.control.features.branches.service import Branches, NewBranch
from lamplighter.control.features.branches.store import BranchQuery
from lamplighter.control.features.branches.views import show_annotation, show_branch
from lamplighter.control.features.databases.views import show_database
from lamplighter.control.features.endpoints.connection import ConnectionStrings
from lamplighter.control.features.endpoints.views import settings_of, show_endpoint
from lamplighter.control.features.roles.views import show_role
from lamplighter.control.http.calls import Call, Reply, Routes, present
from lamplighter.control.http.pages import BranchCursor
from lamplighter.control.kernel import Kernel, gone

DEFAULT_PAGE = 10_000


def query_of(call: Call) -> BranchQuery:
    """Raises BadRequest for a malformed cursor."""
    query = call.query
    return BranchQuery(
        search=query["search"],
        sort_by=query["sort_by"],
        descending=query["sort_order"] == "desc",
        limit=query["limit"] or DEFAULT_PAGE,
        cursor=BranchCursor.decode(query["cursor"]) if query["cursor"] else None,
    )


async def connection_uris(strings: ConnectionStrings, project_id: str, made: NewBranch) -> dict[str, Any]:
    """The string to a new branch's endpoint; nothing where more than one role or database leaves it open which."""
    if not made.endpoints or len(made.roles) != 1 or len(made.databases) != 1:
        return {}
    try:
        entry = await strings.of_new(project_id, made.endpoints[0], made.roles[0].name, made.databases[0].name)
    except PreconditionFailed:
        # No password is stored, so there is none to show; the branch is made all the same.
        return {}
    return {"connection_uris": [entry]}


def routes(kernel: Kernel, branches: Branches, strings: ConnectionStrings) -> Routes:
    place = kernel.place

    def show_new(made: NewBranch) -> dict[str, Any]:
        return {
            "branch": show_branch(made.branch),
            "endpoints": [show_endpoint(one, place) for one in made.endpoints],
            "operations": made.operations,
            "roles": [show_role(one) for one in made.roles],
            "databases": [show_database(one) for one in made.databases],
        }

    async def list_all(call: Call) -> Reply:
        page = await branches.page(call.caller, call.path["project_id"], query_of(call))
        pagination = None
        if page.branches:
            cursor = store.cursor_after(page.branches[-1], page.query)
            pagination = {"next": cursor.encode(), "sort_by": cursor.sort_by, "sort_order": cursor.sort_order}
        content = {
            "branches": [show_branch(one) for one in page.branches],
            "annotations": {one.id: show_annotation(one) for one in page.branches if one.annotation},
            **present(pagination=pagination),
        }
        return Reply(content)

    async def count(call: Call) -> Reply:
        return Reply({"count": await branches.count(call.caller, call.path["project_id"], call.query["search"])})

    async def get(call: Call) -> Reply:
        branch = await branches.get(call.caller, call.path["project_id"], call.path["branch_id"])
        return Reply({"branch": show_branch(branch), "annotation": show_annotation(branch)})

    async def create(call: Call) -> Reply:
        project_id = call.path["project_id"]
        options = [(one, settings_of(one)) for one in (getattr(call.body, "endpoints", None) or [])]
        made = await branches.create(call.caller, project_id, wish(call.body, now=kernel.now()), options)
        return Reply({**show_new(made), **await connection_uris(strings, project_id, made)}, 201)

    async def update(call: Call) -> Reply:
        branch = await branches.update(call.caller, call.path["project_id"], call.path["branch_id"], call.body.branch)
        return Reply({"branch": show_branch(branch), "operations": []})

    async def set_default(call: Call) -> Reply:
        branch = await branches.set_default(call.caller, call.path["project_id"], call.path["branch_id"])
        return Reply({"branch": show_branch(branch), "operations": []})

    async def delete(call: Call) -> Reply:
        deleted = await branches.delete(call.caller, call.path["project_id"], call.path["branch_id"])
        if deleted is None:
            return gone(place, "branch")
        branch, operations = deleted
        return Reply({"branch": show_branch(branch), "operations": operations})

    return {
        "listProjectBranches": list_all,
        "countProjectBranches": count,
        "getProjectBranch": get,
        "createProjectBranch": create,
        "updateProjectBranch": update,
        "setDefaultProjectBranch": set_default,
        "deleteProjectBranch": delete,
    }
