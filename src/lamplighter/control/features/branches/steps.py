"""What operations on branches do: make the copy, and take a branch away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lamplighter import faults
from lamplighter.control import recipes
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.branches import store
from lamplighter.control.features.databases.service import Databases, PendingDatabases
from lamplighter.control.features.endpoints.steps import EndpointSteps
from lamplighter.control.features.roles.service import PendingRoles, Roles
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.engine import Recipe, Step
from lamplighter.control.operations.model import Operation
from lamplighter.control.ports import TEMPLATE_DATABASE, SqlChanges
from lamplighter.control.scope import find_primary

#: The driver that copies every byte takes seconds a gigabyte.
COPY_SECONDS = 4 * 3600.0


class BranchSteps:
    def __init__(self, kernel: Kernel, *, endpoints: EndpointSteps, roles: Roles, databases: Databases) -> None:
        self._kernel = kernel
        self._endpoints = endpoints
        self._roles = roles
        self._databases = databases

    def recipes(self) -> Mapping[str, Recipe]:
        return {
            recipes.BRANCH_CREATE: Recipe(
                recipes.BRANCH_CREATE,
                (Step("copy", self.copy, timeout=COPY_SECONDS),),
                on_give_up=self._endpoints.leave_idle,
                on_finish=self.ready,
            ),
            recipes.BRANCH_DELETE: Recipe(recipes.BRANCH_DELETE, (Step("remove", self.remove),), persistent=True),
        }

    async def copy(self, operation: Operation) -> None:
        """The branch's volume, from its parent as it is now. A parent that runs goes on running."""
        faults.point("branch.create.after_commit")
        source, target = operation.arguments["source"], str(operation.branch_id)
        if operation.arguments["schema_only"]:
            await self._copy_schema(source, target)
        else:
            async with self._kernel.catalog.connection() as conn:
                primary = await find_primary(conn, source)
            await self._kernel.plane.clone_volume(source, target, compute_id=primary.id if primary else None)
        faults.point("branch.create.after_clone")

    async def ready(self, operation: Operation, conn: Connection) -> None:
        """The branch can be used from the moment that its creation is recorded as finished."""
        now = self._kernel.now()
        await store.set_ready(conn, str(operation.branch_id), copied_at=now, now=now)

    async def _copy_schema(self, source: str, target: str) -> None:
        """An empty cluster with the source's roles, databases and objects.

        A target that an earlier attempt has left is begun anew: one cannot go on with a schema that was loaded by half.
        """
        plane = self._kernel.plane
        async with self._kernel.catalog.connection() as conn:
            primary = await find_primary(conn, source)
            source_order = await self._endpoints.maintenance_order(conn, source)
            target_order = await self._endpoints.maintenance_order(conn, target)
        awake = primary.id if primary is not None and plane.is_running(primary.id) else None
        await plane.stop_compute(target, volume_id=target)
        await plane.delete_volume(target)
        await plane.create_volume(target, major=target_order.major)
        try:
            if awake is None:
                await plane.start_compute(source_order)
            await plane.start_compute(target_order)
            made = await self._make_owners(target)
            await plane.copy_schema(awake or source, target)
            await self._settle(target, *made)
        finally:
            await plane.stop_compute(target, volume_id=target)
            if awake is None:
                await plane.stop_compute(source, volume_id=source)

    async def _make_owners(self, target: str) -> tuple[PendingRoles, PendingDatabases]:
        """Roles and databases as the catalog has them, before the objects that belong to them."""
        async with self._kernel.catalog.connection() as conn:
            roles = await self._roles.pending(conn, target)
            databases = await self._databases.pending(conn, target)
        # The one that a new cluster brings is taken over where it is wanted, and goes where it is not.
        wanted = [replace(one, new=one.name != TEMPLATE_DATABASE) for one in databases.wanted]
        spare = [] if any(not one.new for one in wanted) else [TEMPLATE_DATABASE]
        await self._kernel.plane.apply(target, SqlChanges(roles.wanted, wanted, spare))
        return roles, databases

    async def _settle(self, target: str, roles: PendingRoles, databases: PendingDatabases) -> None:
        async with self._kernel.catalog.transaction() as conn:
            await self._roles.settle(conn, target, roles, keep_passwords=True)
            await self._databases.settle(conn, target, databases)

    async def remove(self, operation: Operation) -> None:
        """Stop its computes, delete its volumes, then its rows: after a crash the rows are there to try again."""
        branch_id = str(operation.branch_id)
        stopped = await self._endpoints.stop_all(branch_id)
        faults.point("branch.delete.after_stop")
        for volume in stopped.volumes:
            await self._kernel.plane.delete_volume(volume)
        faults.point("branch.delete.after_volume")
        async with self._kernel.catalog.connection() as conn:
            await store.remove(conn, branch_id)
        await self._endpoints.forget_all(stopped)
