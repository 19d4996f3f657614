"""What operations on branches do: make the copy, and take a branch away."""

from __future__ import annotations

from collections.abc import Mapping

from lamplighter import faults
from lamplighter.control import recipes
from lamplighter.control.features.branches import store
from lamplighter.control.features.databases.service import Databases
from lamplighter.control.features.endpoints import store as endpoint_store
from lamplighter.control.features.endpoints.steps import EndpointSteps
from lamplighter.control.features.endpoints.store import READ_ONLY
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.engine import Recipe, Step
from lamplighter.control.operations.model import Operation
from lamplighter.control.ports import SqlChanges
from lamplighter.control.features.roles.service import Roles
from lamplighter.control.scope import find_primary

#: The database that every new cluster has, ready to be given to its first owner.
TEMPLATE_DATABASE = "neondb"


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
                (Step("copy", self.copy), Step("ready", self.ready)),
                on_give_up=self._endpoints.leave_idle,
            ),
            recipes.BRANCH_DELETE: Recipe(recipes.BRANCH_DELETE, (Step("remove", self.remove),)),
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
            running = primary.id if primary is not None and self._kernel.plane.is_running(primary.id) else None
            await self._kernel.plane.clone_volume(source, target, running_compute=running)
        faults.point("branch.create.after_clone")

    async def ready(self, operation: Operation) -> None:
        now = self._kernel.now()
        async with self._kernel.catalog.connection() as conn:
            await store.set_ready(conn, str(operation.branch_id), copied_at=now, now=now)

    async def _copy_schema(self, source: str, target: str) -> None:
        """An empty cluster with the source's roles, databases and objects.

        A target that an earlier attempt has left is begun anew: a schema that was loaded by half cannot be gone on with.
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
            await self._make_owners(target)
            await plane.copy_schema(awake or source, target)
        finally:
            await plane.stop_compute(target, volume_id=target)
            if awake is None:
                await plane.stop_compute(source, volume_id=source)

    async def _make_owners(self, target: str) -> None:
        """Roles and databases as the catalog has them, before the objects that belong to them."""
        async with self._kernel.catalog.connection() as conn:
            roles = await self._roles.pending(conn, target)
            databases = await self._databases.pending(conn, target)
        wanted = {database.name for database in databases.wanted}
        spare = [] if TEMPLATE_DATABASE in wanted else [TEMPLATE_DATABASE]
        await self._kernel.plane.apply(target, SqlChanges(roles.wanted, databases.wanted, spare))

    async def remove(self, operation: Operation) -> None:
        """Stop what runs on the branch, then its volumes, then its rows: a crash in between leaves the rows to try again."""
        branch_id = str(operation.branch_id)
        await stop_and_remove(self._kernel, branch_id, points=("branch.delete.after_stop", "branch.delete.after_volume"))
        async with self._kernel.catalog.connection() as conn:
            await store.remove(conn, branch_id)


async def stop_computes(kernel: Kernel, branch_id: str) -> list[str]:
    """Stop every compute of a branch; returns the volumes that it had."""
    async with kernel.catalog.connection() as conn:
        endpoints = await endpoint_store.of_branch_even_deleted(conn, branch_id)
    # Standbys first: they would otherwise look for their primary while it stops.
    for endpoint in sorted(endpoints, key=lambda one: one.type != READ_ONLY):
        await kernel.plane.stop_compute(endpoint.id, volume_id=endpoint.volume_id)
    await kernel.plane.stop_compute(branch_id, volume_id=branch_id)
    return [endpoint.id for endpoint in endpoints if endpoint.type == READ_ONLY] + [branch_id]


async def stop_and_remove(kernel: Kernel, branch_id: str, *, points: tuple[str, str]) -> None:
    """Stop a branch's computes and delete its volumes, passing the named fault points."""
    volumes = await stop_computes(kernel, branch_id)
    faults.point(points[0])
    for volume in volumes:
        await kernel.plane.delete_volume(volume)
    faults.point(points[1])
