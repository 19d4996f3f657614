"""Branches: planned and written here, brought about by operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from lamplighter.api.errors import ApiError, BadRequest, Conflict, NotFound
from lamplighter.api.ids import branch_id as new_branch_id
from lamplighter.api.models.operations import Operation as WireOperation
from lamplighter.control import recipes
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.errors import ProjectBusy
from lamplighter.control.features.branches import plan, store
from lamplighter.control.features.branches.model import Branch
from lamplighter.control.features.branches.plan import BranchWish
from lamplighter.control.features.branches.store import BranchQuery
from lamplighter.control.features.databases.service import Database, Databases
from lamplighter.control.features.endpoints.model import READ_WRITE, Endpoint
from lamplighter.control.features.endpoints.service import Endpoints, EndpointWish
from lamplighter.control.features.roles.service import Role, Roles
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.model import NewOperation
from lamplighter.control.operations.store import require_idle
from lamplighter.control.schedule import schedule
from lamplighter.control.scope import BranchScope, ProjectScope, find_branch, find_project

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewBranch:
    """A branch and all that was made with it."""

    branch: Branch
    endpoints: Sequence[Endpoint]
    operations: Sequence[WireOperation]
    roles: Sequence[Role]
    databases: Sequence[Database]


@dataclass(frozen=True, slots=True)
class BranchPage:
    branches: Sequence[Branch]
    query: BranchQuery


class Branches:
    def __init__(self, kernel: Kernel, *, endpoints: Endpoints, roles: Roles, databases: Databases) -> None:
        self._kernel = kernel
        self._endpoints = endpoints
        self._roles = roles
        self._databases = databases

    async def page(self, caller: Caller, project_id: str, query: BranchQuery) -> BranchPage:
        """Raises NotFound, BadRequest for a bad cursor."""
        async with self._kernel.catalog.connection() as conn:
            await find_project(conn, caller, project_id)
            return BranchPage(await store.page(conn, project_id, query), query)

    async def count(self, caller: Caller, project_id: str, search: str | None) -> int:
        """Raises NotFound."""
        async with self._kernel.catalog.connection() as conn:
            await find_project(conn, caller, project_id)
            return await store.count(conn, project_id, search)

    async def get(self, caller: Caller, project_id: str, branch_id: str) -> Branch:
        """Raises NotFound."""
        async with self._kernel.catalog.connection() as conn:
            await find_project(conn, caller, project_id)
            return await self._require(conn, project_id, branch_id)

    async def create(
        self, caller: Caller, project_id: str, wish: BranchWish, endpoints: Sequence[tuple[Any, dict[str, Any] | None]]
    ) -> NewBranch:
        """A child of the wished parent. `endpoints` are Neon's endpoint options with their settings as stored.

        Raises NotFound, BadRequest, Conflict for a name that is taken, Unprocessable without space, Locked.
        """
        await self._kernel.plane.require_space()
        async with self._kernel.catalog.transaction() as conn:
            project = await find_project(conn, caller, project_id, lock=True)
            parent = await find_branch(conn, project_id, wish.parent_id)
            wishes = [await self._endpoints.wish(body, project, settings=settings) for body, settings in endpoints]
            if sum(one.type == READ_WRITE for one in wishes) > 1:
                raise BadRequest("a branch can have one read_write endpoint only")
            if wish.name is not None and await store.name_taken(conn, project_id, wish.name):
                raise Conflict(f'branch already exists; branch_name:"{wish.name}"')
            await require_idle(conn, project_id)
            if parent.current_state != "ready":
                raise BadRequest("the parent branch is not ready: its creation failed or has not ended")
            made = await self._insert(conn, project, wish, caller=caller, parent=parent, endpoints=wishes)
            await self._inherit(conn, parent, made.branch)
            made = replace(
                made,
                roles=await self._roles.of_branch(conn, made.branch.id),
                databases=await self._databases.of_branch(conn, made.branch.id),
            )
            wanted = [
                NewOperation(
                    recipes.BRANCH_CREATE,
                    "create_branch",
                    branch_id=made.branch.id,
                    arguments={"source": parent.id, "schema_only": wish.schema_only},
                ),
                *(recipes.start(made.branch.id, one.id) for one in made.endpoints if not one.disabled),
            ]
            made = replace(made, operations=await schedule(self._kernel, conn, project_id, wanted))
        await self._endpoints.show_doors(project_id)
        self._kernel.wake()
        return made

    async def insert_root(
        self, conn: Connection, project: ProjectScope, wish: BranchWish, *, caller: Caller, endpoint: EndpointWish
    ) -> NewBranch:
        """The default branch of a new project, with its endpoint."""
        return await self._insert(conn, project, wish, caller=caller, parent=None, endpoints=[endpoint])

    async def _insert(
        self,
        conn: Connection,
        project: ProjectScope,
        wish: BranchWish,
        *,
        caller: Caller,
        parent: BranchScope | None,
        endpoints: Sequence[EndpointWish],
    ) -> NewBranch:
        cursor = await conn.execute("select name from users where id = %s", (caller.user_id,))
        row = await cursor.fetchone()
        branch = await store.insert(
            conn,
            branch_id=new_branch_id(self._kernel.choice),
            project_id=project.id,
            # A schema-only branch shares nothing with the branch it was made from: it is a root of its own.
            parent_id=None if parent is None or wish.schema_only else parent.id,
            wish=wish,
            is_default=parent is None,
            creator=row["name"] if row else "",
            now=self._kernel.now(),
        )
        made = [await self._endpoints.insert(conn, project, branch.id, one) for one in endpoints]
        return NewBranch(branch, made, [], [], [])

    async def _inherit(self, conn: Connection, parent: BranchScope, branch: Branch) -> None:
        copied = branch.parent_id is not None
        await self._roles.inherit(conn, parent.id, branch.id, new_passwords=parent.protected, applied=copied)
        await self._databases.inherit(conn, parent.id, branch.id, applied=copied)

    async def update(self, caller: Caller, project_id: str, branch_id: str, body: Any) -> Branch:
        """Rename, protect, set or clear the expiry. Raises NotFound, BadRequest, Conflict."""
        now = self._kernel.now()
        async with self._kernel.catalog.transaction() as conn:
            await find_project(conn, caller, project_id, lock=True)
            branch = await self._require(conn, project_id, branch_id)
            named = body.model_fields_set
            protected = branch.protected if body.protected is None else body.protected
            expires_at = body.expires_at if "expires_at" in named else branch.expires_at
            plan.check_expiry(expires_at, protected=protected, is_default=branch.is_default, now=now)
            if body.name is not None and body.name != branch.name:
                if await store.name_taken(conn, project_id, body.name):
                    raise Conflict(f'branch already exists; branch_name:"{body.name}"')
                await store.rename(conn, branch_id, body.name, now=now)
            if protected != branch.protected:
                await store.protect(conn, branch_id, protected, now=now)
            if "expires_at" in named:
                await store.expire_at(conn, branch_id, expires_at, now=now)
            updated = await self._require(conn, project_id, branch_id)
        if protected != branch.protected:
            # Addresses may be restricted on protected branches alone.
            await self._endpoints.show_doors(project_id)
        return updated

    async def set_default(self, caller: Caller, project_id: str, branch_id: str) -> Branch:
        """Raises NotFound, BadRequest for a branch that expires."""
        now = self._kernel.now()
        async with self._kernel.catalog.transaction() as conn:
            await find_project(conn, caller, project_id, lock=True)
            branch = await self._require(conn, project_id, branch_id)
            plan.check_expiry(branch.expires_at, protected=False, is_default=True, now=now)
            await store.set_default(conn, project_id, branch_id, now=now)
            return await self._require(conn, project_id, branch_id)

    async def delete(
        self, caller: Caller, project_id: str, branch_id: str
    ) -> tuple[Branch, list[WireOperation]] | None:
        """None when there is no such branch. Raises NotFound (project), Unprocessable, Locked."""
        async with self._kernel.catalog.transaction() as conn:
            await find_project(conn, caller, project_id, lock=True)
            branch = await store.find(conn, project_id, branch_id)
            if branch is None:
                return None
            operations = await self._delete(conn, branch)
        self._kernel.wake()
        return branch, operations

    async def _delete(self, conn: Connection, branch: Branch) -> list[WireOperation]:
        plan.check_deletable(
            is_default=branch.is_default,
            protected=branch.protected,
            original_root=branch.parent_id is None and branch.init_source == plan.PARENT_DATA,
            children=await store.children(conn, branch.id),
        )
        await require_idle(conn, branch.project_id)
        endpoints = await self._endpoints.in_branch(conn, branch.id)
        await store.mark_deleted(conn, branch.id, now=self._kernel.now())
        wanted = [recipes.suspend(branch.id, one.id) for one in endpoints if one.current_state == "active"]
        return await schedule(self._kernel, conn, branch.project_id, [*wanted, recipes.remove_branch(branch.id)])

    async def delete_expired(self) -> None:
        """Delete the branches whose time is over. One that cannot go now is tried again the next time."""
        async with self._kernel.catalog.connection() as conn:
            found = await store.expired(conn, self._kernel.now())
        for project_id, branch_id in found:
            try:
                async with self._kernel.catalog.transaction() as conn:
                    await conn.execute("select from projects where id = %s for update", (project_id,))
                    branch = await store.find(conn, project_id, branch_id)
                    if branch is not None:
                        await self._delete(conn, branch)
                        log.info("branch.expired", project_id=project_id, branch_id=branch_id)
            except (ApiError, ProjectBusy) as error:
                log.info("branch.expiry_postponed", project_id=project_id, branch_id=branch_id, reason=str(error))
        if found:
            self._kernel.wake()

    async def _require(self, conn: Connection, project_id: str, branch_id: str) -> Branch:
        branch = await store.find(conn, project_id, branch_id)
        if branch is None:
            raise NotFound("branch not found")
        return branch
