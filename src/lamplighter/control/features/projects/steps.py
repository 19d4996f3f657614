"""What operations on projects do: make the first volume, and take everything away."""

from __future__ import annotations

from collections.abc import Mapping

from lamplighter import faults
from lamplighter.control import recipes
from lamplighter.control.features.branches.steps import BranchSteps
from lamplighter.control.features.endpoints.steps import EndpointSteps
from lamplighter.control.features.projects import store
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.engine import Recipe, Step
from lamplighter.control.operations.model import Operation


class ProjectSteps:
    def __init__(self, kernel: Kernel, *, branches: BranchSteps, endpoints: EndpointSteps) -> None:
        self._kernel = kernel
        self._branches = branches
        self._endpoints = endpoints

    def recipes(self) -> Mapping[str, Recipe]:
        return {
            recipes.PROJECT_CREATE: Recipe(
                recipes.PROJECT_CREATE,
                (Step("volume", self.volume),),
                on_give_up=self._endpoints.leave_idle,
                on_finish=self._branches.ready,
            ),
            recipes.PROJECT_DELETE: Recipe(recipes.PROJECT_DELETE, (Step("remove", self.remove),), persistent=True),
        }

    async def volume(self, operation: Operation) -> None:
        """The volume of the default branch, from the template of the project's major."""
        faults.point("project.create.after_commit")
        async with self._kernel.catalog.connection() as conn:
            cursor = await conn.execute("select pg_version from projects where id = %s", (operation.project_id,))
            row = await cursor.fetchone()
        assert row is not None
        await self._kernel.plane.create_volume(str(operation.branch_id), major=row["pg_version"])
        faults.point("project.create.after_volume")

    async def remove(self, operation: Operation) -> None:
        """Stop every compute, then delete every volume, then the rows."""
        async with self._kernel.catalog.connection() as conn:
            branches = await store.branch_ids(conn, operation.project_id)
        stopped = [await self._endpoints.stop_all(branch) for branch in branches]
        faults.point("project.delete.after_stop")
        for volume in (volume for one in stopped for volume in one.volumes):
            await self._kernel.plane.delete_volume(volume)
        faults.point("project.delete.after_volumes")
        async with self._kernel.catalog.transaction() as conn:
            await store.remove(conn, operation.project_id)
        for one in stopped:
            await self._endpoints.forget_all(one)
