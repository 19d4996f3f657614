"""Projects: planned and written here with their first branch, brought about by operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamplighter.api.errors import NotFound, Unprocessable
from lamplighter.api.ids import project_id as new_project_id
from lamplighter.api.models.operations import Operation as WireOperation
from lamplighter.api.secret import Secret
from lamplighter.control import recipes
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.branches.plan import BranchWish
from lamplighter.control.features.branches.service import Branches, NewBranch
from lamplighter.control.features.databases.service import Database, Databases
from lamplighter.control.features.endpoints.model import READ_WRITE
from lamplighter.control.features.endpoints.plan import settle_options
from lamplighter.control.features.endpoints.service import Endpoints, EndpointWish
from lamplighter.control.features.projects import plan, store
from lamplighter.control.features.projects.plan import ProjectWish
from lamplighter.control.features.projects.store import Project
from lamplighter.control.features.roles.service import Role, Roles
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.model import NewOperation
from lamplighter.control.operations.store import require_idle
from lamplighter.control.ports import TEMPLATE_DATABASE
from lamplighter.control.schedule import schedule
from lamplighter.control.scope import choose_organization, find_project


@dataclass(frozen=True, slots=True)
class NewProject:
    """A project and all that was made with it; `password` is its first role's."""

    project: Project
    branch: NewBranch
    role: Role
    password: Secret
    database: Database
    operations: Sequence[WireOperation]


class Projects:
    def __init__(
        self,
        kernel: Kernel,
        *,
        branches: Branches,
        endpoints: Endpoints,
        roles: Roles,
        databases: Databases,
    ) -> None:
        self._kernel = kernel
        self._branches = branches
        self._endpoints = endpoints
        self._roles = roles
        self._databases = databases

    async def page(
        self, caller: Caller, *, org_id: str | None, search: str | None, cursor: str | None, limit: int
    ) -> list[Project]:
        """Raises BadRequest when the organization must be named, PermissionDenied."""
        async with self._kernel.catalog.connection() as conn:
            chosen = await choose_organization(conn, caller, org_id, infer=self._kernel.place.infer_org)
            return await store.page(conn, caller, chosen, search=search, after=cursor, limit=limit)

    async def get(self, caller: Caller, project_id: str) -> Project:
        """Raises NotFound."""
        async with self._kernel.catalog.connection() as conn:
            await find_project(conn, caller, project_id)
            return await self._require(conn, project_id)

    async def create(self, caller: Caller, wish: ProjectWish) -> NewProject:
        """Raises BadRequest, PermissionDenied, Unprocessable without space, Unavailable when this major cannot be had.

        The major is made ready first: a project whose Postgres cannot be fetched is not begun.
        """
        await self._kernel.plane.require_space()
        await self._kernel.plane.prepare(wish.pg_version)
        options = settle_options(defaults=wish.default_endpoint_settings)
        await self._endpoints.check_settings(options, wish.pg_version)
        async with self._kernel.catalog.transaction() as conn:
            org_id = await choose_organization(conn, caller, wish.org_id, infer=self._kernel.place.infer_org)
            project_id = new_project_id(self._kernel.choice)
            await store.insert(
                conn, project_id=project_id, org_id=org_id, owner=caller.user_id, wish=wish, now=self._kernel.now()
            )
            scope = await find_project(conn, caller, project_id, lock=True)
            branch = await self._branches.insert_root(
                conn,
                scope,
                BranchWish(name=wish.branch_name, annotation=wish.branch_annotations),
                caller=caller,
                endpoint=EndpointWish(type=READ_WRITE, options=options),
            )
            branch_id, endpoint_id = branch.branch.id, branch.endpoints[0].id
            role, password = await self._roles.create(conn, branch_id, wish.role_name)
            assert password is not None
            database = await self._databases.create(
                conn,
                branch_id,
                name=wish.database_name,
                owner=wish.role_name,
                instead_of=TEMPLATE_DATABASE,
            )
            wanted = [
                NewOperation(recipes.PROJECT_CREATE, "create_timeline", branch_id=branch_id),
                recipes.start(branch_id, endpoint_id),
            ]
            operations = await schedule(self._kernel, conn, project_id, wanted)
            project = await self._require(conn, project_id)
        await self._endpoints.show_doors(project_id)
        self._kernel.wake()
        return NewProject(project, branch, role, password, database, operations)

    async def update(self, caller: Caller, project_id: str, body: Any) -> tuple[Project, Sequence[WireOperation]]:
        """Raises NotFound, BadRequest, NotServed; Locked when computes must be restarted for it."""
        async with self._kernel.catalog.transaction() as conn:
            await find_project(conn, caller, project_id, lock=True)
            project = await self._require(conn, project_id)
            settings = plan.check_settings(plan.merge(project.settings, plan.plain(body.settings)))
            plan.check_logical_replication(project.settings, settings)
            history = body.history_retention_seconds
            defaults = plan.endpoint_defaults(
                project.default_endpoint_settings, plan.plain(body.default_endpoint_settings)
            )
            await self._endpoints.check_settings(settle_options(defaults=defaults), project.pg_version)
            await store.update(
                conn,
                project_id,
                name=project.name if body.name is None else body.name,
                settings=settings,
                default_endpoint_settings=defaults,
                history_retention_seconds=project.history_retention_seconds if history is None else history,
                now=self._kernel.now(),
            )
            operations = await self._enable_replication(conn, project, settings)
            project = await self._require(conn, project_id)
        await self._endpoints.show_doors(project_id)
        self._kernel.wake()
        return project, operations

    async def _enable_replication(
        self, conn: Connection, project: Project, settings: Mapping[str, Any]
    ) -> Sequence[WireOperation]:
        """Computes that run are restarted for it, with a WAL level and roles that allow it."""
        if bool(settings.get("enable_logical_replication")) == project.settings.get("enable_logical_replication"):
            return []
        await require_idle(conn, project.id)
        await self._roles.apply_again(conn, project.id)
        active = [one for one in await self._endpoints.in_project(conn, project.id) if one.current_state == "active"]
        return await schedule(
            self._kernel, conn, project.id, [recipes.configure(one.branch_id, one.id) for one in active]
        )

    async def delete(self, caller: Caller, project_id: str) -> Project:
        """Raises NotFound, Unprocessable while a branch is protected, Locked."""
        async with self._kernel.catalog.transaction() as conn:
            await find_project(conn, caller, project_id, lock=True)
            project = await self._require(conn, project_id)
            protected = await store.protected_branches(conn, project_id)
            if protected:
                raise Unprocessable(f"the project has {protected} protected branches; remove their protection first")
            await require_idle(conn, project_id)
            await store.mark_deleted(conn, project_id, now=self._kernel.now())
            await schedule(self._kernel, conn, project_id, [recipes.remove_project()])
        self._kernel.wake()
        return project

    async def _require(self, conn: Connection, project_id: str) -> Project:
        project = await store.get(conn, project_id)
        if project is None:
            raise NotFound("project not found")
        return project
