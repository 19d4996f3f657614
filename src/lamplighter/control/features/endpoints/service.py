"""Endpoints: the computes of a branch, asked for here and brought about by operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lamplighter.api.errors import BadRequest, Conflict, NotFound, Unprocessable
from lamplighter.api.ids import endpoint_id as new_endpoint_id
from lamplighter.api.models.operations import Operation as WireOperation
from lamplighter.control import recipes
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.errors import ProjectBusy
from lamplighter.control.features.endpoints import store
from lamplighter.control.features.endpoints.doors import Doors
from lamplighter.control.features.endpoints.model import READ_WRITE, SLEEP_REASON, Endpoint
from lamplighter.control.features.endpoints.plan import EndpointOptions, EndpointType, refuse_moving, settle_options
from lamplighter.control.features.regions.plan import check_region
from lamplighter.control.kernel import Kernel
from lamplighter.control.operations.model import NewOperation
from lamplighter.control.operations.store import require_idle
from lamplighter.control.schedule import schedule
from lamplighter.control.scope import ProjectScope, find_branch, find_primary, find_project

Changed = tuple[Endpoint, list[WireOperation]]


@dataclass(frozen=True, slots=True)
class EndpointWish:
    """An endpoint to be made, checked but for what only the catalog knows."""

    type: EndpointType
    options: EndpointOptions
    name: str | None = None
    disabled: bool = False
    passwordless_access: bool = True
    region_id: str | None = None
    provisioner: str | None = None


class Endpoints:
    def __init__(self, kernel: Kernel, doors: Doors) -> None:
        self._kernel = kernel
        self._doors = doors

    async def of_project(self, caller: Caller, project_id: str) -> list[Endpoint]:
        """Raises NotFound."""
        async with self._kernel.catalog.connection() as conn:
            await find_project(conn, caller, project_id)
            return await store.of_project(conn, project_id)

    async def of_branch(self, caller: Caller, project_id: str, branch_id: str) -> list[Endpoint]:
        """Raises NotFound."""
        async with self._kernel.catalog.connection() as conn:
            await find_project(conn, caller, project_id)
            branch = await find_branch(conn, project_id, branch_id)
            return await store.of_branch(conn, branch.id)

    async def of_caller(self, caller: Caller) -> list[Endpoint]:
        """In all projects that this key reaches."""
        async with self._kernel.catalog.connection() as conn:
            return await store.of_caller(conn, caller)

    async def everyone(self) -> list[Endpoint]:
        """For figures of the whole platform."""
        async with self._kernel.catalog.connection() as conn:
            return await store.everyone(conn)

    async def in_branch(self, conn: Connection, branch_id: str) -> list[Endpoint]:
        """For other features, which have looked whose branch it is."""
        return await store.of_branch(conn, branch_id)

    async def in_project(self, conn: Connection, project_id: str) -> list[Endpoint]:
        """For other features, which have looked whose project it is."""
        return await store.of_project(conn, project_id)

    async def get(self, caller: Caller, project_id: str, endpoint_id: str) -> Endpoint:
        """Raises NotFound."""
        async with self._kernel.catalog.connection() as conn:
            await find_project(conn, caller, project_id)
            return await self._require(conn, project_id, endpoint_id)

    async def wish(self, body: Any, project: ProjectScope, *, settings: Mapping[str, Any] | None) -> EndpointWish:
        """What a request body asks for, with the project's defaults. Raises BadRequest.

        `body` has the fields of Neon's endpoint options; those that it lacks are taken as not given.
        """
        options = settle_options(
            defaults=project.default_endpoint_settings,
            min_cu=getattr(body, "autoscaling_limit_min_cu", None),
            max_cu=getattr(body, "autoscaling_limit_max_cu", None),
            suspend_timeout_seconds=getattr(body, "suspend_timeout_seconds", None),
            settings=settings,
        )
        await self.check_settings(options, project.pg_version)
        return EndpointWish(
            type=body.type,
            options=options,
            name=getattr(body, "name", None),
            disabled=bool(getattr(body, "disabled", None)),
            passwordless_access=getattr(body, "passwordless_access", None) is not False,
            region_id=getattr(body, "region_id", None),
            provisioner=getattr(body, "provisioner", None),
        )

    async def check_settings(self, options: EndpointOptions, major: int) -> None:
        """Raise BadRequest when Postgres would not take the settings, or must not be given them."""
        problems = await self._kernel.plane.check_settings(options.pg_settings, major=major)
        if problems:
            raise BadRequest("invalid pg_settings: " + "; ".join(problems))

    async def insert(self, conn: Connection, project: ProjectScope, branch_id: str, wish: EndpointWish) -> Endpoint:
        """The row of a new endpoint, about to be started unless it is disabled."""
        if not wish.disabled:
            await self._require_room(conn)
        # Ports are chosen among those that nobody has: two requests at once would choose the same.
        await store.lock_ports(conn)
        taken = await store.ports(conn)
        port = self._kernel.plane.free_port(taken, after=await store.last_port(conn))
        pooler_port = self._kernel.plane.free_port(taken | {port}, after=port)
        await store.set_last_port(conn, pooler_port)
        return await store.insert(
            conn,
            endpoint_id=new_endpoint_id(self._kernel.choice),
            project_id=project.id,
            branch_id=branch_id,
            name=wish.name,
            type=wish.type,
            options=wish.options,
            region_id=check_region(wish.region_id or project.region_id),
            provisioner=wish.provisioner or project.provisioner,
            port=port,
            pooler_port=pooler_port,
            disabled=wish.disabled,
            passwordless_access=wish.passwordless_access,
            pending_state=None if wish.disabled else "active",
            now=self._kernel.now(),
        )

    async def create(
        self, caller: Caller, project_id: str, body: Any, *, settings: Mapping[str, Any] | None
    ) -> Changed:
        """Raises NotFound, BadRequest, Conflict for a second read-write endpoint, Locked."""
        async with self._kernel.catalog.transaction() as conn:
            project = await find_project(conn, caller, project_id, lock=True)
            wish = await self.wish(body, project, settings=settings)
            branch = await find_branch(conn, project_id, body.branch_id)
            if wish.type == READ_WRITE and await find_primary(conn, branch.id) is not None:
                raise Conflict("read-write endpoint already exists")
            await require_idle(conn, project_id)
            endpoint = await self.insert(conn, project, branch.id, wish)
            wanted = [] if wish.disabled else [recipes.start(branch.id, endpoint.id)]
            operations = await schedule(self._kernel, conn, project_id, wanted)
        await self.show_doors(project_id)
        self._kernel.wake()
        return endpoint, operations

    async def update(
        self, caller: Caller, project_id: str, endpoint_id: str, body: Any, *, settings: Mapping[str, Any] | None
    ) -> Changed:
        """Change what the body names. Raises NotFound, BadRequest, Locked, NotServed for another branch."""
        async with self._kernel.catalog.transaction() as conn:
            project = await find_project(conn, caller, project_id, lock=True)
            endpoint = await self._require(conn, project_id, endpoint_id)
            refuse_moving(body.branch_id, endpoint.branch_id)
            present: dict[str, Any] = {
                "autoscaling_limit_min_cu": endpoint.autoscaling_limit_min_cu,
                "autoscaling_limit_max_cu": endpoint.autoscaling_limit_max_cu,
                "suspend_timeout_seconds": endpoint.suspend_timeout_seconds,
            }
            options = settle_options(
                defaults=present,
                min_cu=body.autoscaling_limit_min_cu,
                max_cu=body.autoscaling_limit_max_cu,
                suspend_timeout_seconds=body.suspend_timeout_seconds,
                settings={**endpoint.settings, **(settings or {})},
            )
            await self.check_settings(options, project.pg_version)
            disabled = endpoint.disabled if body.disabled is None else body.disabled
            wanted = self._after_update(endpoint, options, disabled=disabled)
            if wanted:
                await require_idle(conn, project_id)
            await store.update(
                conn,
                endpoint,
                name=endpoint.name if body.name is None else body.name,
                options=options,
                disabled=disabled,
                passwordless_access=(
                    endpoint.passwordless_access if body.passwordless_access is None else body.passwordless_access
                ),
                now=self._kernel.now(),
            )
            operations = await schedule(self._kernel, conn, project_id, wanted)
            endpoint = await self._require(conn, project_id, endpoint_id)
        await self.show_doors(project_id)
        self._kernel.wake()
        return endpoint, operations

    def _after_update(self, endpoint: Endpoint, options: EndpointOptions, *, disabled: bool) -> list[NewOperation]:
        place = (endpoint.branch_id, endpoint.id)
        if disabled and not endpoint.disabled and "active" in (endpoint.current_state, endpoint.pending_state):
            return [recipes.suspend(*place)]
        size = (endpoint.autoscaling_limit_min_cu, endpoint.autoscaling_limit_max_cu)
        if size == (options.min_cu, options.max_cu) and dict(options.settings) == endpoint.settings:
            return []
        wanted = [recipes.configure(*place)]
        return wanted if endpoint.current_state == "active" else [*wanted, recipes.suspend(*place)]

    async def delete(self, caller: Caller, project_id: str, endpoint_id: str) -> Changed | None:
        """None when there is none. Raises NotFound (project), Unprocessable for a protected branch, Locked."""
        async with self._kernel.catalog.transaction() as conn:
            await find_project(conn, caller, project_id, lock=True)
            endpoint = await store.find(conn, project_id, endpoint_id)
            if endpoint is None:
                return None
            if (await find_branch(conn, project_id, endpoint.branch_id)).protected:
                raise Unprocessable("the computes of a protected branch cannot be deleted")
            await require_idle(conn, project_id)
            await store.mark_deleted(conn, endpoint_id, now=self._kernel.now())
            wanted = [recipes.remove_endpoint(endpoint.branch_id, endpoint_id)]
            operations = await schedule(self._kernel, conn, project_id, wanted)
        self._kernel.wake()
        return endpoint, operations

    async def start(self, caller: Caller, project_id: str, endpoint_id: str) -> Changed:
        """Raises NotFound, Unprocessable for a disabled endpoint, Locked. One that runs is left running."""
        return await self._run(caller, project_id, endpoint_id, self._to_start)

    async def suspend(self, caller: Caller, project_id: str, endpoint_id: str) -> Changed:
        """Raises NotFound, Locked. One that sleeps is left asleep."""
        return await self._run(caller, project_id, endpoint_id, self._to_suspend)

    async def restart(self, caller: Caller, project_id: str, endpoint_id: str) -> Changed:
        """Raises NotFound, Unprocessable for a disabled endpoint, Locked."""
        return await self._run(caller, project_id, endpoint_id, self._to_restart)

    def _to_start(self, endpoint: Endpoint) -> tuple[Sequence[NewOperation], str | None]:
        if endpoint.disabled:
            raise Unprocessable("endpoint is disabled; enable it first")
        if endpoint.current_state == "active" and self._kernel.plane.is_running(endpoint.id):
            return [], None
        return [recipes.start(endpoint.branch_id, endpoint.id)], "active"

    def _to_suspend(self, endpoint: Endpoint) -> tuple[Sequence[NewOperation], str | None]:
        if endpoint.current_state != "active":
            return [], None
        return [recipes.suspend(endpoint.branch_id, endpoint.id)], "idle"

    def _to_restart(self, endpoint: Endpoint) -> tuple[Sequence[NewOperation], str | None]:
        if endpoint.disabled:
            raise Unprocessable("endpoint is disabled; enable it first")
        place = (endpoint.branch_id, endpoint.id)
        return [recipes.suspend(*place), recipes.start(*place)], "active"

    async def _run(self, caller: Caller, project_id: str, endpoint_id: str, plan: Any) -> Changed:
        async with self._kernel.catalog.transaction() as conn:
            await find_project(conn, caller, project_id, lock=True)
            endpoint = await self._require(conn, project_id, endpoint_id)
            await require_idle(conn, project_id)
            wanted, pending = plan(endpoint)
            if pending == "active" and endpoint.current_state != "active":
                await self._require_room(conn)
            if wanted:
                await store.set_pending(conn, endpoint_id, pending, now=self._kernel.now())
            operations = await schedule(self._kernel, conn, project_id, wanted, running=len(wanted))
            endpoint = await self._require(conn, project_id, endpoint_id)
        self._kernel.wake()
        return endpoint, operations

    async def show_doors(self, project_id: str) -> None:
        """Tell the gateway, after a commit, what may have changed of a project's endpoints."""
        await self._doors.refresh(project_id=project_id)

    async def wake(self, endpoint_id: str) -> bool:
        """Somebody has connected to it: schedule a start, unless one is on its way. Answers whether it is awake.

        Unlike a request of the API it waits behind the project's other operations instead of being refused. Raises
        NotFound, Unprocessable for a disabled endpoint or when too many are active.
        """
        async with self._kernel.catalog.transaction() as conn:
            endpoint = await store.load(conn, endpoint_id)
            if endpoint is None:
                raise NotFound("endpoint not found")
            await conn.execute("select from projects where id = %s for update", (endpoint.project_id,))
            # First what is on its way, then the state: a start that ends in between is seen as one or the other.
            last = await store.last_unfinished(conn, endpoint_id)
            endpoint = await self._require(conn, endpoint.project_id, endpoint_id)
            wanted, _ = self._to_start(endpoint)
            if not wanted and last is None:
                return True
            if last == recipes.ENDPOINT_START:
                # Its compute may be ready, and the start not yet recorded: then nobody would be told again.
                return self._doors.is_open(endpoint_id) and self._kernel.plane.is_running(endpoint_id)
            if endpoint.current_state != "active":
                await self._require_room(conn)
            await store.set_pending(conn, endpoint_id, "active", now=self._kernel.now())
            await schedule(self._kernel, conn, endpoint.project_id, [recipes.start(endpoint.branch_id, endpoint_id)])
        self._kernel.wake()
        return False

    async def suspend_idle(self, endpoint_id: str) -> bool:
        """Schedule the suspension of an endpoint whose door is held, and answer whether that was done.

        Not while its project is being worked on, and not if it is no longer active.
        """
        async with self._kernel.catalog.transaction() as conn:
            endpoint = await store.load(conn, endpoint_id)
            if endpoint is None:
                return False
            await conn.execute("select from projects where id = %s for update", (endpoint.project_id,))
            endpoint = await store.find(conn, endpoint.project_id, endpoint_id)
            if endpoint is None or endpoint.current_state != "active":
                return False
            try:
                await require_idle(conn, endpoint.project_id)
            except ProjectBusy:
                return False
            await store.set_pending(conn, endpoint_id, "idle", now=self._kernel.now())
            wanted = replace(recipes.suspend(endpoint.branch_id, endpoint_id), arguments={SLEEP_REASON: "idle"})
            await schedule(self._kernel, conn, endpoint.project_id, [wanted])
        self._kernel.wake()
        return True

    async def _require_room(self, conn: Connection) -> None:
        """Raise Unprocessable when no more endpoints may be active."""
        limit = self._kernel.place.active_limit
        if limit is not None and await store.lock_active(conn) >= limit:
            raise Unprocessable(
                f"{limit} endpoints are active, and no more may be; suspend some, or give `lamp up` a higher limit"
                " (--active-endpoints)",
                code="ACTIVE_ENDPOINTS_LIMIT_EXCEEDED",
            )

    async def _require(self, conn: Connection, project_id: str, endpoint_id: str) -> Endpoint:
        endpoint = await store.find(conn, project_id, endpoint_id)
        if endpoint is None:
            raise NotFound("endpoint not found")
        return endpoint
