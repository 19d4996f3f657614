"""`/projects/{project_id}/branches`."""

from __future__ import annotations

from typing import Any

from lamplighter.api.errors import ApiError
from lamplighter.api.models import branches as wire
from lamplighter.control.features.branches import store
from lamplighter.control.features.branches.plan import wish
from lamplighter.control.features.branches.service import Branches, NewBranch
from lamplighter.control.features.branches.store import Branch, BranchQuery
from lamplighter.control.features.connection import ConnectionStrings
from lamplighter.control.features.databases.routes import show_database
from lamplighter.control.features.endpoints.routes import settings_of, show_endpoint
from lamplighter.control.features.roles.routes import show_role
from lamplighter.control.http.calls import Call, Reply, Routes, present
from lamplighter.control.http.pages import BranchCursor
from lamplighter.control.kernel import Kernel, gone

DEFAULT_PAGE = 10_000


def show_branch(branch: Branch) -> wire.Branch:
    return wire.Branch(
        id=branch.id,
        project_id=branch.project_id,
        name=branch.name,
        current_state=branch.current_state,
        state_changed_at=branch.state_changed_at,
        creation_source=branch.creation_source,
        primary=branch.is_default,
        default=branch.is_default,
        protected=branch.protected,
        cpu_used_sec=0,
        compute_time_seconds=0,
        active_time_seconds=0,
        written_data_bytes=0,
        data_transfer_bytes=0,
        created_at=branch.created_at,
        updated_at=branch.updated_at,
        init_source=branch.init_source,
        created_by=wire.BranchCreator(name=branch.created_by_name, image=""),
        **present(
            parent_id=branch.parent_id,
            parent_timestamp=branch.parent_timestamp,
            pending_state=branch.pending_state,
            logical_size=branch.logical_size,
            expires_at=branch.expires_at,
            ttl_interval_seconds=branch.ttl_interval_seconds,
        ),
    )


def show_annotation(branch: Branch) -> dict[str, Any]:
    return {
        "object": {"type": "console/branch", "id": branch.id},
        "value": branch.annotation,
        "created_at": branch.created_at,
        "updated_at": branch.created_at,
    }


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
        content = show_new(made)
        if made.endpoints and len(made.roles) == 1 and len(made.databases) == 1:
            # No password to show, where none is stored, means no string to give; the branch is made all the same.
            try:
                uri = await strings.of_new(project_id, made.endpoints[0], made.roles[0].name, made.databases[0].name)
            except ApiError:
                return Reply(content, 201)
            content["connection_uris"] = [uri]
        return Reply(content, 201)

    async def update(call: Call) -> Reply:
        branch = await branches.update(
            call.caller, call.path["project_id"], call.path["branch_id"], call.body.branch
        )
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
