"""What each endpoint's address leads to: decided from the catalog and the compute, told to the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamplighter.control.features.endpoints import store
from lamplighter.control.features.endpoints.store import DoorRow
from lamplighter.control.kernel import Kernel
from lamplighter.control.ports import Door, DoorState


def allowed_addresses(settings: Mapping[str, Any], *, protected: bool) -> tuple[str, ...] | None:
    """Neon's `allowed_ips`: None for everybody. With `protected_branches_only` other branches are open to all."""
    addresses = settings.get("ips") or []
    if not addresses or (settings.get("protected_branches_only") and not protected):
        return None
    return tuple(addresses)


def door_of(row: DoorRow, *, running: bool, held: bool, opened: bool) -> Door:
    """A compute that runs is reached only once its endpoint is active: before, its roles may not be there yet."""
    state: DoorState = "asleep"
    if row.disabled:
        state = "disabled"
    elif held:
        state = "holding"
    elif running and (opened or row.current_state == "active"):
        state = "awake"
    return Door(
        endpoint_id=row.endpoint_id,
        project_id=row.project_id,
        port=row.port,
        pooler_port=row.pooler_port,
        state=state,
        allowed=allowed_addresses(row.allowed_ips, protected=row.protected),
    )


class Doors:
    """Keeps the gateway's doors in line. Whoever starts or stops a compute holds its door meanwhile."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._held: set[str] = set()
        #: Computes that are ready, and whose operation has yet to record it.
        self._opened: set[str] = set()

    async def hold(self, endpoint_id: str) -> None:
        """From now on connections wait."""
        self._held.add(endpoint_id)
        self._opened.discard(endpoint_id)
        await self.refresh(endpoint_id=endpoint_id)

    async def open(self, endpoint_id: str) -> None:
        """The compute is ready. Before the catalog says so: whoever waits need not wait for its commit."""
        self._held.discard(endpoint_id)
        self._opened.add(endpoint_id)
        await self.refresh(endpoint_id=endpoint_id)

    async def release(self, endpoint_id: str) -> None:
        """The door shows again what the catalog says."""
        self._held.discard(endpoint_id)
        self._opened.discard(endpoint_id)
        await self.refresh(endpoint_id=endpoint_id)

    async def refuse(self, endpoint_id: str, error: str) -> None:
        """It did not start, and the catalog says so: those who wait are told, and the next one tries again."""
        self._kernel.gateway.refuse(endpoint_id, error)
        await self.release(endpoint_id)

    async def drop(self, endpoint_id: str) -> None:
        """The endpoint is going: nobody gets in any more."""
        self._held.discard(endpoint_id)
        self._opened.discard(endpoint_id)
        await self._kernel.gateway.drop_door(endpoint_id)

    async def refresh(self, *, project_id: str | None = None, endpoint_id: str | None = None) -> None:
        """Doors of a project or of one endpoint, after their rows have been committed."""
        for door in await self.all(project_id=project_id, endpoint_id=endpoint_id):
            await self._kernel.gateway.set_door(door)

    async def all(self, *, project_id: str | None = None, endpoint_id: str | None = None) -> list[Door]:
        """As they ought to be now."""
        async with self._kernel.catalog.connection() as conn:
            rows = await store.doors(conn, project_id=project_id, endpoint_id=endpoint_id)
        return [
            door_of(
                row,
                running=self._kernel.plane.is_running(row.endpoint_id),
                held=row.endpoint_id in self._held,
                opened=row.endpoint_id in self._opened,
            )
            for row in rows
        ]

    async def give_pooler_ports(self) -> None:
        """Endpoints of a release without poolers get their ports."""
        async with self._kernel.catalog.transaction() as conn:
            await store.lock_ports(conn)
            for endpoint_id in await store.without_pooler_port(conn):
                taken = await store.ports(conn)
                await store.set_pooler_port(conn, endpoint_id, self._kernel.plane.free_port(taken))
