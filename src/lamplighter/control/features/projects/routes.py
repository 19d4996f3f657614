"""`/projects`, `/projects/shared` and connection strings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from lamplighter.api.models import projects as wire
from lamplighter.api.models.settings import DefaultEndpointSettings, ProjectSettingsData
from lamplighter.control.features.branches.views import show_branch
from lamplighter.control.features.databases.views import show_database
from lamplighter.control.features.endpoints.connection import ConnectionStrings
from lamplighter.control.features.endpoints.views import show_endpoint
from lamplighter.control.features.projects.plan import wish
from lamplighter.control.features.projects.service import NewProject, Projects
from lamplighter.control.features.projects.store import Project
from lamplighter.control.features.roles.views import show_role
from lamplighter.control.http.calls import Call, Reply, Routes, present
from lamplighter.control.kernel import Kernel, Place

#: Neon's word for the cloud below; here it is the machine.
PLATFORM = "aws"
PLAN = "scale"
SIZE_LIMIT_MIB = 512
NOWHEN = datetime(1, 1, 1, tzinfo=UTC)


def _common(project: Project, place: Place) -> dict[str, Any]:
    return {
        "id": project.id,
        "platform_id": PLATFORM,
        "region_id": project.region_id,
        "name": project.name,
        "provisioner": project.provisioner,
        "default_endpoint_settings": DefaultEndpointSettings.model_validate(project.default_endpoint_settings),
        "settings": ProjectSettingsData.model_validate(project.settings),
        "pg_version": project.pg_version,
        "proxy_host": place.host,
        "branch_logical_size_limit": SIZE_LIMIT_MIB,
        "branch_logical_size_limit_bytes": SIZE_LIMIT_MIB * 1024 * 1024,
        "store_passwords": project.store_passwords,
        "cpu_used_sec": project.compute_seconds,
        "creation_source": "console",
        "created_at": project.created_at,
        "updated_at": project.updated_at,
        "synthetic_storage_size": 0,
        "owner_id": project.org_id,
        "org_id": project.org_id,
        "history_retention_seconds": project.history_retention_seconds,
        "effective_project_permission": "CAN_MANAGE",
        **present(compute_last_active_at=project.compute_last_active_at),
    }


def show_project(
    project: Project, place: Place, *, period: tuple[datetime, datetime] = (NOWHEN, NOWHEN)
) -> wire.Project:
    """As Neon, mutations answer the empty period; a GET answers the present month and the owner."""
    return wire.Project(
        data_storage_bytes_hour=0,
        data_transfer_bytes=project.transferred,
        written_data_bytes=0,
        compute_time_seconds=project.compute_seconds,
        active_time_seconds=project.active_seconds,
        consumption_period_start=period[0],
        consumption_period_end=period[1],
        **_common(project, place),
    )


def show_listed(project: Project, place: Place) -> wire.ProjectListItem:
    return wire.ProjectListItem(
        active_time=project.active_seconds, org_name=project.org_name, **_common(project, place)
    )


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """The first moments of this month and of the next."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start, following


def _page(found: Sequence[Project], place: Place) -> dict[str, Any]:
    pagination = {"cursor": found[-1].id} if found else None
    return {
        "projects": [show_listed(one, place) for one in found],
        "applications": {},
        "integrations": {},
        **present(pagination=pagination),
    }


def routes(kernel: Kernel, projects: Projects, strings: ConnectionStrings) -> Routes:
    place = kernel.place

    def show_new(made: NewProject) -> dict[str, Any]:
        endpoint = made.branch.endpoints[0]
        uri = strings.entry(
            endpoint,
            role=made.role.name,
            password=made.password.reveal(),
            database=made.database.name,
        )
        return {
            "project": show_project(made.project, place),
            "connection_uris": [uri],
            "roles": [show_role(made.role, made.password)],
            "databases": [show_database(made.database)],
            "operations": made.operations,
            "branch": show_branch(made.branch.branch),
            "endpoints": [show_endpoint(endpoint, place)],
        }

    async def list_all(call: Call) -> Reply:
        query = call.query
        if query["recoverable"]:
            # Deletion is at once and for good on this server, so there is nothing to recover.
            return Reply(_page([], place))
        found = await projects.page(
            call.caller, org_id=query["org_id"], search=query["search"], cursor=query["cursor"], limit=query["limit"]
        )
        return Reply(_page(found, place))

    async def list_shared(_call: Call) -> Reply:
        return Reply({"projects": []})

    async def get(call: Call) -> Reply:
        project = await projects.get(call.caller, call.path["project_id"])
        shown = show_project(project, place, period=month_of(kernel.now()))
        shown.owner = wire.ProjectOwnerData(
            email=project.owner_email, name=project.owner_name, branches_limit=-1, subscription_type=PLAN
        )
        return Reply({"project": shown})

    async def create(call: Call) -> Reply:
        wanted = wish(call.body.project, default_region=place.region_id)
        return Reply(show_new(await projects.create(call.caller, wanted)), 201)

    async def update(call: Call) -> Reply:
        project, operations = await projects.update(call.caller, call.path["project_id"], call.body.project)
        return Reply({"project": show_project(project, place), "operations": operations})

    async def delete(call: Call) -> Reply:
        return Reply({"project": show_project(await projects.delete(call.caller, call.path["project_id"]), place)})

    async def connection_uri(call: Call) -> Reply:
        query = call.query
        uri = await strings.uri(
            call.caller,
            call.path["project_id"],
            branch_id=query["branch_id"],
            endpoint_id=query["endpoint_id"],
            database=query["database_name"],
            role=query["role_name"],
            pooled=bool(query["pooled"]),
        )
        return Reply({"uri": uri})

    return {
        "listProjects": list_all,
        "listSharedProjects": list_shared,
        "getProject": get,
        "createProject": create,
        "updateProject": update,
        "deleteProject": delete,
        "getConnectionURI": connection_uri,
    }
