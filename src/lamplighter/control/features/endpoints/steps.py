"""What operations on endpoints do: start, suspend, reconfigure, delete; and bringing roles and databases in line.

Each operation is one step that looks at the world first, not several that are recorded: after a crash (or a reboot of
the host) a compute that an earlier attempt had started may be gone again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from lamplighter import faults
from lamplighter.api.errors import Unavailable
from lamplighter.control import recipes
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.databases.service import Databases
from lamplighter.control.features.endpoints import store
from lamplighter.control.features.endpoints.doors import Doors, SleepReason
from lamplighter.control.features.endpoints.model import READ_ONLY, READ_WRITE, SLEEP_REASON, Endpoint
from lamplighter.control.features.roles.service import Roles
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.engine import Recipe, Step
from lamplighter.control.operations.model import Operation
from lamplighter.control.ports import ComputeOrder, Follow, SqlChanges
from lamplighter.control.scope import find_primary

log = structlog.get_logger(__name__)

MAINTENANCE_CU = 0.25
#: A start may have WAL to replay, for which the supervisor waits a quarter of an hour.
START_SECONDS = 1200.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The computes of a branch, which do not run any more, and its volumes."""

    computes: tuple[str, ...]
    volumes: tuple[str, ...]


class EndpointSteps:
    def __init__(self, kernel: Kernel, *, doors: Doors, roles: Roles, databases: Databases) -> None:
        self._kernel = kernel
        self._doors = doors
        self._roles = roles
        self._databases = databases

    def recipes(self) -> Mapping[str, Recipe]:
        start = Step("run", self.start, timeout=START_SECONDS)
        configure = Step("run", self.configure, timeout=START_SECONDS)
        apply = Step("run", self.apply, timeout=START_SECONDS)
        found = (
            Recipe(recipes.ENDPOINT_START, (start,), on_give_up=self._give_up, on_finish=self._started),
            Recipe(recipes.ENDPOINT_SUSPEND, (Step("run", self.suspend),), on_give_up=self._give_up),
            Recipe(recipes.ENDPOINT_CONFIGURE, (configure,), on_give_up=self._give_up),
            Recipe(recipes.ENDPOINT_DELETE, (Step("run", self.delete),), persistent=True),
            Recipe(recipes.BRANCH_APPLY, (apply,), on_give_up=self._withdraw),
        )
        return {recipe.kind: recipe for recipe in found}

    async def start(self, operation: Operation) -> None:
        async with self._kernel.catalog.connection() as conn:
            endpoint = await self._load(conn, operation)
        if endpoint is None:
            return
        try:
            await self._start(endpoint)
        except Exception as error:
            # It will be tried again, for longer than most clients wait: those who do are told now.
            self._kernel.gateway.refuse(endpoint.id, str(error))
            raise

    async def _start(self, endpoint: Endpoint) -> None:
        async with self._kernel.catalog.connection() as conn:
            order = await self._order(conn, endpoint)
        plane = self._kernel.plane
        if not plane.is_running(endpoint.id):
            await self._doors.hold(endpoint.id)
            if endpoint.type == READ_ONLY:
                await self._copy_for_standby(endpoint, order)
            elif await self._passwords_changed(endpoint.branch_id):
                # Nobody is to enter with the former ones, not even until the new ones are set.
                await self._apply_asleep(endpoint.branch_id)
        await plane.start_compute(order)
        faults.point("endpoint.start.after_ready")
        if endpoint.type == READ_WRITE:
            await self._bring_in_line(endpoint.branch_id, endpoint.id)
        faults.point("endpoint.start.after_apply")
        await self._doors.open(endpoint.id)

    async def _started(self, operation: Operation, conn: Connection) -> None:
        """Active from the moment that the start is recorded as finished.

        In this order: the row is held while we look, so whoever notes a crash waits, and sees what we have written.
        """
        endpoint_id = str(operation.endpoint_id)
        await store.set_active(conn, endpoint_id, now=self._kernel.now())
        if await store.load(conn, endpoint_id) is not None and not self._kernel.plane.is_running(endpoint_id):
            raise Unavailable(f"the compute {endpoint_id} ended as soon as it had started; its log tells why")

    async def suspend(self, operation: Operation) -> None:
        async with self._kernel.catalog.connection() as conn:
            endpoint = await self._load(conn, operation)
        if endpoint is None:
            return
        if endpoint.current_state == "idle":
            await self._doors.release(endpoint.id)
            return
        await self._doors.hold(endpoint.id)
        await self._put_to_sleep(endpoint, "idle" if operation.arguments.get(SLEEP_REASON) == "idle" else "api")
        faults.point("endpoint.suspend.after_stop")
        async with self._kernel.catalog.connection() as conn:
            await store.set_idle(conn, endpoint.id, now=self._kernel.now())
        await self._doors.release(endpoint.id)

    async def configure(self, operation: Operation) -> None:
        """A new size or new settings: a compute that runs is restarted with them.

        So are the standbys of a primary: one that allows fewer connections than its primary stops following it.
        """
        async with self._kernel.catalog.connection() as conn:
            endpoint = await self._load(conn, operation)
            siblings = [] if endpoint is None else await store.of_branch(conn, endpoint.branch_id)
        if endpoint is None or endpoint.current_state != "active":
            return
        standbys = [one for one in siblings if one.type == READ_ONLY and one.current_state == "active"]
        group = [endpoint, *(standbys if endpoint.type == READ_WRITE else [])]
        try:
            for one in group:
                await self._doors.hold(one.id)
                await self._stop(one)
                faults.point("endpoint.configure.after_stop")
                await self._start(one)
                async with self._kernel.catalog.transaction() as conn:
                    await store.set_active(conn, one.id, now=self._kernel.now())
        finally:
            for one in group:
                await self._doors.release(one.id)

    async def delete(self, operation: Operation) -> None:
        async with self._kernel.catalog.connection() as conn:
            endpoint = await self._load(conn, operation)
        if endpoint is None:
            return
        await self._doors.drop(endpoint.id)
        await self._put_to_sleep(endpoint, "api")
        faults.point("endpoint.delete.after_stop")
        async with self._kernel.catalog.connection() as conn:
            await store.remove(conn, endpoint.id)
        await self._kernel.plane.forget_compute(endpoint.id)

    async def apply(self, operation: Operation) -> None:
        """Roles and databases of a branch. One that sleeps is opened, for the platform alone, and closed again."""
        assert operation.branch_id is not None
        plane, branch_id = self._kernel.plane, str(operation.branch_id)
        async with self._kernel.catalog.connection() as conn:
            primary = await find_primary(conn, branch_id)
        if primary is not None and plane.is_running(primary.id):
            await self._bring_in_line(branch_id, primary.id)
        else:
            await self._apply_asleep(branch_id)

    async def _apply_asleep(self, branch_id: str) -> None:
        plane = self._kernel.plane
        async with self._kernel.catalog.connection() as conn:
            order = await self.maintenance_order(conn, branch_id)
        try:
            await plane.start_compute(order)
            faults.point("branch.apply.after_start")
            await self._bring_in_line(branch_id, order.id)
        finally:
            await plane.stop_compute(order.id, volume_id=order.volume_id)

    async def maintenance_order(self, conn: Connection, branch_id: str) -> ComputeOrder:
        """A compute that nobody but the platform can reach, for work inside a sleeping branch."""
        cursor = await conn.execute(
            "select p.pg_version, p.settings from branches b join projects p on p.id = b.project_id where b.id = %s",
            (branch_id,),
        )
        row = await cursor.fetchone()
        assert row is not None
        return ComputeOrder(
            id=branch_id,
            volume_id=branch_id,
            major=row["pg_version"],
            cu=MAINTENANCE_CU,
            reachable=False,
            settings={},
            # With a logical slot in it, a cluster does not start with less than the WAL that the slot needs.
            logical_replication=bool(row["settings"].get("enable_logical_replication")),
        )

    async def stop_all(self, branch_id: str) -> Stopped:
        """Stop every compute of a branch that is about to go."""
        plane = self._kernel.plane
        async with self._kernel.catalog.connection() as conn:
            endpoints = await store.of_branch_even_deleted(conn, branch_id)
        for endpoint in endpoints:
            await self._doors.drop(endpoint.id)
        # Standbys first: they would otherwise look for their primary while it stops.
        for endpoint in sorted(endpoints, key=lambda one: one.type != READ_ONLY):
            running = plane.is_running(endpoint.id)
            await plane.stop_compute(endpoint.id, volume_id=endpoint.volume_id)
            if running:
                self._doors.note_slept(endpoint.id, "api")
        await plane.stop_compute(branch_id, volume_id=branch_id)
        standbys = tuple(endpoint.id for endpoint in endpoints if endpoint.type == READ_ONLY)
        return Stopped(tuple(endpoint.id for endpoint in endpoints), (*standbys, branch_id))

    async def forget_all(self, stopped: Stopped) -> None:
        """What is kept of computes goes once their rows have gone, so that a crash before that changes nothing."""
        for compute_id in (*stopped.computes, *stopped.volumes):
            await self._kernel.plane.forget_compute(compute_id)

    async def _passwords_changed(self, branch_id: str) -> bool:
        async with self._kernel.catalog.connection() as conn:
            return any(not role.new for role in (await self._roles.pending(conn, branch_id)).wanted)

    async def _load(self, conn: Connection, operation: Operation) -> Endpoint | None:
        assert operation.endpoint_id is not None
        return await store.load(conn, operation.endpoint_id)

    async def _order(self, conn: Connection, endpoint: Endpoint) -> ComputeOrder:
        cursor = await conn.execute("select pg_version, settings from projects where id = %s", (endpoint.project_id,))
        project = await cursor.fetchone()
        assert project is not None
        siblings = await store.of_branch(conn, endpoint.branch_id)
        follow: Follow | None = None
        followers: tuple[str, ...] = ()
        if endpoint.type == READ_ONLY:
            primary = next((one for one in siblings if one.type == READ_WRITE), None)
            # A branch without a read-write endpoint has nobody to follow: the standby shows what its volume holds.
            follow = (
                Follow(primary.id, primary.autoscaling_limit_max_cu) if primary else Follow(endpoint.branch_id, 0.25)
            )
        else:
            followers = tuple(
                one.id for one in siblings if one.type == READ_ONLY and self._kernel.plane.is_running(one.id)
            )
        return ComputeOrder(
            id=endpoint.id,
            volume_id=endpoint.volume_id,
            major=project["pg_version"],
            cu=endpoint.autoscaling_limit_max_cu,
            settings=dict(endpoint.settings.get("pg_settings") or {}),
            logical_replication=bool(project["settings"].get("enable_logical_replication")),
            follow=follow,
            followers=followers,
        )

    async def _copy_for_standby(self, endpoint: Endpoint, order: ComputeOrder) -> None:
        """A standby begins from its branch as it is now: what it had before may lack WAL that is gone."""
        assert order.follow is not None
        plane, primary = self._kernel.plane, order.follow.primary_id
        await plane.stop_compute(endpoint.id, volume_id=endpoint.volume_id)
        await plane.delete_volume(endpoint.volume_id)
        if plane.is_running(primary):
            await plane.keep_for_follower(primary, endpoint.id)
        await plane.clone_volume(endpoint.branch_id, endpoint.volume_id, compute_id=primary)

    async def _put_to_sleep(self, endpoint: Endpoint, reason: SleepReason) -> None:
        # A second try finds it stopped, and of one that has crashed somebody else tells.
        running = self._kernel.plane.is_running(endpoint.id)
        await self._stop(endpoint)
        if running:
            self._doors.note_slept(endpoint.id, reason)

    async def _stop(self, endpoint: Endpoint) -> None:
        plane = self._kernel.plane
        await plane.stop_compute(endpoint.id, volume_id=endpoint.volume_id)
        if endpoint.type == READ_ONLY:
            async with self._kernel.catalog.connection() as conn:
                primary = await find_primary(conn, endpoint.branch_id)
            if primary is not None:
                await plane.drop_follower(primary.id, endpoint.id)
            await plane.delete_volume(endpoint.volume_id)

    async def _bring_in_line(self, branch_id: str, compute_id: str) -> None:
        """Make true inside Postgres what the catalog wants and does not know to be done."""
        async with self._kernel.catalog.connection() as conn:
            roles = await self._roles.pending(conn, branch_id)
            databases = await self._databases.pending(conn, branch_id)
            cursor = await conn.execute(
                "select p.store_passwords from branches b join projects p on p.id = b.project_id where b.id = %s",
                (branch_id,),
            )
            row = await cursor.fetchone()
        changes = SqlChanges(roles.wanted, databases.wanted, databases.unwanted, roles.unwanted)
        if not changes:
            return
        await self._kernel.plane.apply(compute_id, changes)
        faults.point("branch.apply.after_change")
        async with self._kernel.catalog.transaction() as conn:
            keep = bool(row and row["store_passwords"])
            await self._roles.settle(conn, branch_id, roles, keep_passwords=keep)
            await self._databases.settle(conn, branch_id, databases)

    async def leave_idle(self, operation: Operation, error: str) -> None:
        """The branch could not be made, so the starts behind it are off: its endpoints are not about to be active."""
        async with self._kernel.catalog.connection() as conn:
            endpoints = await store.of_branch(conn, str(operation.branch_id))
            for endpoint in endpoints:
                await store.set_idle(conn, endpoint.id, now=self._kernel.now())
        for endpoint in endpoints:
            await self._doors.refuse(endpoint.id, error)

    async def _withdraw(self, operation: Operation, error: str) -> None:
        """Postgres does not take the change: the catalog says again what there is."""
        async with self._kernel.catalog.transaction() as conn:
            await self._roles.withdraw(conn, str(operation.branch_id))
            await self._databases.withdraw(conn, str(operation.branch_id))
        await self._give_up(operation, error)

    async def _give_up(self, operation: Operation, error: str) -> None:
        """What could not be started is idle, not about to be active for ever; what could not be stopped stays."""
        if operation.endpoint_id is None:
            return
        plane = self._kernel.plane
        async with self._kernel.catalog.connection() as conn:
            endpoint = await self._load(conn, operation)
        if endpoint is None:
            return
        if endpoint.current_state != "active":
            # It may run all the same, without its roles, or have left its volume open.
            try:
                await self._stop(endpoint)
            except Exception:
                log.exception("endpoint.stop_failed", endpoint_id=endpoint.id)
        async with self._kernel.catalog.connection() as conn:
            running = plane.is_running(endpoint.id)
            if running:
                await store.set_pending(conn, endpoint.id, None, now=self._kernel.now())
            else:
                await store.set_idle(conn, endpoint.id, now=self._kernel.now())
        if running:
            await self._doors.release(endpoint.id)
        else:
            await self._doors.refuse(endpoint.id, error)
