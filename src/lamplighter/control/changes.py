"""The frame of every change inside a branch's Postgres: lock the project, find the branch, schedule what applies it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lamplighter.api.models.operations import Operation as WireOperation
from lamplighter.control import recipes
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.store import require_idle
from lamplighter.control.schedule import schedule
from lamplighter.control.scope import BranchScope, ProjectScope, find_branch, find_primary, find_project


@dataclass(frozen=True, slots=True)
class BranchChange:
    """A transaction that holds the project, of which no operation is under way."""

    kernel: Kernel
    conn: Connection
    project: ProjectScope
    branch: BranchScope

    async def apply(self) -> list[WireOperation]:
        """Schedule that Postgres is brought in line. A compute that sleeps is shown to be suspended again after it."""
        primary = await find_primary(self.conn, self.branch.id)
        wanted = [recipes.apply(self.branch.id, primary.id if primary else None)]
        if primary is not None and primary.current_state == "idle":
            wanted.append(recipes.suspend(self.branch.id, primary.id))
        return await schedule(self.kernel, self.conn, self.project.id, wanted)


@asynccontextmanager
async def changing(kernel: Kernel, caller: Caller, project_id: str, branch_id: str) -> AsyncIterator[BranchChange]:
    """Commits at the end of the block and wakes the engine. Raises NotFound, ProjectBusy."""
    async with kernel.catalog.transaction() as conn:
        project = await find_project(conn, caller, project_id, lock=True)
        branch = await find_branch(conn, project_id, branch_id)
        await require_idle(conn, project_id)
        yield BranchChange(kernel, conn, project, branch)
    kernel.wake()


@asynccontextmanager
async def reading(kernel: Kernel, caller: Caller, project_id: str, branch_id: str) -> AsyncIterator[BranchChange]:
    """The same view without a lock, for looking only. Raises NotFound."""
    async with kernel.catalog.connection() as conn:
        project = await find_project(conn, caller, project_id)
        yield BranchChange(kernel, conn, project, await find_branch(conn, project_id, branch_id))
