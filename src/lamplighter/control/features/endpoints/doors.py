"""What each endpoint's address leads to: decided from the catalog and the compute, told to the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal
from weakref import WeakValueDictionary

from lamplighter.control.features.endpoints import store
from lamplighter.control.features.endpoints.store import DoorRow
from lamplighter.control.kernel import Kernel
from lamplighter.control.ports import Door, DoorState

#: Why an endpoint was put to sleep: nobody used it, or somebody asked for that (or for its deletion).
SleepReason = Literal["idle", "api"]


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
        #: Held by whoever looks whether they may sleep, beside the operations.
        self._looked_at: set[str] = set()
        #: Computes that are ready, and whose operation has yet to record it.
        self._opened: set[str] = set()
        #: As long as somebody has one.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._slept: list[tuple[str, SleepReason]] = []

    async def hold(self, endpoint_id: str) -> None:
        """From now on connections wait."""
        self._held.add(endpoint_id)
        self._opened.discard(endpoint_id)
        await self.refresh(endpoint_id=endpoint_id)

    async def hold_to_look(self, endpoint_id: str) -> None:
        """As `hold`, until `looked`, or until an operation that was scheduled meanwhile lets go of it."""
        self._looked_at.add(endpoint_id)
        await self.refresh(endpoint_id=endpoint_id)

    async def looked(self, endpoint_id: str) -> None:
        """It stays as it is. An operation that holds the door, such as somebody's suspension, goes on to hold it."""
        self._looked_at.discard(endpoint_id)
        await self.refresh(endpoint_id=endpoint_id)

    async def open(self, endpoint_id: str) -> None:
        """The compute is ready. Before the catalog says so: whoever waits need not wait for its commit."""
        self._let_go(endpoint_id)
        self._opened.add(endpoint_id)
        await self.refresh(endpoint_id=endpoint_id)

    def is_open(self, endpoint_id: str) -> bool:
        """Whether its compute is ready, and the catalog does not say so yet."""
        return endpoint_id in self._opened

    async def release(self, endpoint_id: str) -> None:
        """The door shows again what the catalog says."""
        self._let_go(endpoint_id)
        self._opened.discard(endpoint_id)
        await self.refresh(endpoint_id=endpoint_id)

    def _let_go(self, endpoint_id: str) -> None:
        self._held.discard(endpoint_id)
        self._looked_at.discard(endpoint_id)

    def note_slept(self, endpoint_id: str, reason: SleepReason) -> None:
        """Its compute, which ran, was stopped for good."""
        self._slept.append((endpoint_id, reason))

    def take_slept(self) -> list[tuple[str, SleepReason]]:
        """Who was put to sleep since this was asked last, and why."""
        taken, self._slept = self._slept, []
        return taken

    async def refuse(self, endpoint_id: str, error: str) -> None:
        """It did not start, and the catalog says so: those who wait are told, and the next one tries again."""
        self._kernel.gateway.refuse(endpoint_id, error)
        await self.release(endpoint_id)

    async def drop(self, endpoint_id: str) -> None:
        """The endpoint is going: nobody gets in any more."""
        async with self._lock(endpoint_id):
            self._let_go(endpoint_id)
            self._opened.discard(endpoint_id)
            await self._kernel.gateway.drop_door(endpoint_id)

    async def refresh(self, *, project_id: str | None = None, endpoint_id: str | None = None) -> None:
        """Doors of a project or of one endpoint, after their rows have been committed."""
        if endpoint_id is not None:
            await self._show(endpoint_id)
            return
        for door in await self.all(project_id=project_id):
            await self._show(door.endpoint_id)

    async def resync(self) -> None:
        """Now and then: what the gateway was told is again what ought to be, whatever failed meanwhile."""
        wanted = {door.endpoint_id: door for door in await self.all()}
        told = self._kernel.gateway.doors
        for endpoint_id in [one for one, door in wanted.items() if told.get(one) != door]:
            await self._show(endpoint_id)

    async def _show(self, endpoint_id: str) -> None:
        # One at a time: who has read the rows before another may otherwise tell after it.
        async with self._lock(endpoint_id):
            for door in await self.all(endpoint_id=endpoint_id):
                await self._kernel.gateway.set_door(door)

    def _lock(self, endpoint_id: str) -> asyncio.Lock:
        lock = self._locks.get(endpoint_id)
        if lock is None:
            lock = self._locks[endpoint_id] = asyncio.Lock()
        return lock

    async def all(self, *, project_id: str | None = None, endpoint_id: str | None = None) -> list[Door]:
        """As they ought to be now."""
        async with self._kernel.catalog.connection() as conn:
            rows = await store.doors(conn, project_id=project_id, endpoint_id=endpoint_id)
        return [
            door_of(
                row,
                running=self._kernel.plane.is_running(row.endpoint_id),
                held=row.endpoint_id in self._held or row.endpoint_id in self._looked_at,
                opened=row.endpoint_id in self._opened,
            )
            for row in rows
        ]

    async def give_pooler_ports(self) -> None:
        """Endpoints of a release without poolers get their ports."""
        async with self._kernel.catalog.transaction() as conn:
            await store.lock_ports(conn)
            for endpoint_id in await store.without_pooler_port(conn):
                taken, after = await store.ports(conn), await store.last_port(conn)
                port = self._kernel.plane.free_port(taken, after=after)
                await store.set_pooler_port(conn, endpoint_id, port)
                await store.set_last_port(conn, port)
