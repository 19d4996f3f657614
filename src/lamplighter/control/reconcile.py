"""What a control plane does about the world when it starts, and when a postmaster ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

import structlog

from lamplighter.control import recipes
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.endpoints import store
from lamplighter.control.features.endpoints.doors import Doors
from lamplighter.control.features.endpoints.model import READ_WRITE
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.store import prune
from lamplighter.control.schedule import schedule

log = structlog.get_logger(__name__)

MEASURE_TIMEOUT = 5.0
#: Which endpoints may have a compute now: those that are active, or of a project that is being worked on.
WANTED_ENDPOINTS: LiteralString = """
    select e.id, e.current_state = 'active' or exists (
               select from operations o
                where o.project_id = e.project_id and o.finished_at is null and o.blocking) as wanted
      from endpoints e
"""
KEEP_OPERATIONS = timedelta(days=183)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is on the host and belongs to nothing in the catalog."""

    computes: tuple[str, ...]
    volumes: tuple[str, ...]


class Reconciler:
    def __init__(self, kernel: Kernel, doors: Doors) -> None:
        self._kernel = kernel
        self._doors = doors

    async def leftovers(self, *, running: Iterable[str], volumes: Iterable[str]) -> Leftovers:
        """Which of these computes and volumes nobody asked for.

        What an unfinished operation works on is left to it: it cleans up after itself, or takes it up again. Computes
        that the platform opened on a sleeping branch carry the branch's id; none outlives its operation.
        """
        async with self._kernel.catalog.connection() as conn:
            rows = await (await conn.execute(WANTED_ENDPOINTS)).fetchall()
            branches = await (await conn.execute("select id from branches")).fetchall()
        endpoints = {row["id"]: row["wanted"] for row in rows}
        known = {row["id"] for row in branches}
        return Leftovers(
            computes=tuple(one for one in running if not endpoints.get(one, False)),
            volumes=tuple(one for one in volumes if one not in known and one not in endpoints),
        )

    async def restart_active(self) -> int:
        """Schedule a start for every endpoint that was active when the host or the platform was stopped."""
        started = 0
        async with self._kernel.catalog.connection() as conn:
            active = await store.active(conn)
        for endpoint in active:
            if self._kernel.plane.is_running(endpoint.id):
                continue
            async with self._kernel.catalog.transaction() as conn:
                await conn.execute("select from projects where id = %s for update", (endpoint.project_id,))
                # Operations that did not end before come first. One that is about to start, stop or remove this
                # endpoint says what is to become of it: a start behind a suspend would undo it.
                if not await self._is_decided(conn, endpoint.id):
                    await schedule(
                        self._kernel, conn, endpoint.project_id, [recipes.start(endpoint.branch_id, endpoint.id)]
                    )
                    started += 1
        self._kernel.wake()
        return started

    async def _is_decided(self, conn: Connection, endpoint_id: str) -> bool:
        kinds = [
            recipes.ENDPOINT_START,
            recipes.ENDPOINT_SUSPEND,
            recipes.ENDPOINT_CONFIGURE,
            recipes.ENDPOINT_DELETE,
        ]
        cursor = await conn.execute(
            "select 1 from operations where endpoint_id = %s and kind = any (%s) and finished_at is null",
            (endpoint_id, kinds),
        )
        return await cursor.fetchone() is not None

    async def note_crash(self, compute_id: str, reason: str) -> None:
        """A postmaster ended that nobody asked to end: its endpoint is idle, and the next start recovers it.

        May be called again, also when a start has been quicker. Raises psycopg's errors while the catalog is away.
        """
        log.warning("compute.crashed", compute_id=compute_id, reason=reason)
        async with self._kernel.catalog.transaction() as conn:
            # Held, so that a start which is just being recorded comes before or after this, not in between.
            await conn.execute("select from endpoints where id = %s for update", (compute_id,))
            endpoint = await store.load(conn, compute_id)
            running = self._kernel.plane.is_running(compute_id)
            if endpoint is not None and endpoint.current_state == "active" and not running:
                await store.note_crashed(conn, endpoint, now=self._kernel.now())
        try:
            await self._kernel.plane.settle_crashed(compute_id)
        finally:
            # Whether or not the pooler ends: else connections are led to where nobody listens any more.
            await self._doors.refresh(endpoint_id=compute_id)

    async def prune(self) -> None:
        """Forget operations that ended half a year ago, as Neon does (contract section 3.6)."""
        async with self._kernel.catalog.connection() as conn:
            pruned = await prune(conn, before=self._kernel.now() - KEEP_OPERATIONS)
        if pruned:
            log.info("operations.pruned", operations=pruned)

    async def measure(self) -> None:
        """Note the size of every branch whose compute runs."""
        async with self._kernel.catalog.connection() as conn:
            active = [one for one in await store.active(conn) if one.type == READ_WRITE]
        for endpoint in active:
            size = None
            # One that does not answer must not keep the others from being measured.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MEASURE_TIMEOUT):
                    size = await self._kernel.plane.logical_size(endpoint.id)
            if size is not None:
                async with self._kernel.catalog.connection() as conn:
                    await conn.execute(
                        "update branches set logical_size = %s where id = %s and logical_size is distinct from %s",
                        (size, endpoint.branch_id, size),
                    )
