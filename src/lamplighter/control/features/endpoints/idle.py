"""Who has had no client for so long that it is put to sleep, and what awake computes are charged with.

The truth about clients is the kernel's: how many connections a compute has now, by any way in. Those that came and went
between two looks are reported by the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.endpoints import store
from lamplighter.control.features.endpoints.doors import Doors, SleepReason
from lamplighter.control.features.endpoints.model import Endpoint
from lamplighter.control.features.endpoints.service import Endpoints
from lamplighter.control.kernel import Kernel

log = structlog.get_logger(__name__)

#: How old `last_active` may be of an endpoint that is in use: one row a write, so not at every look.
STALE = timedelta(seconds=10)
NEVER = -1
DEFAULT = 0


def suspends_at(endpoint: Endpoint, last_active: datetime, *, default_seconds: int) -> datetime | None:
    """When an endpoint without clients is to sleep; None for never."""
    seconds = endpoint.suspend_timeout_seconds
    if seconds == NEVER:
        return None
    return last_active + timedelta(seconds=default_seconds if seconds == DEFAULT else seconds)


@dataclass(slots=True)
class Use:
    """What one endpoint was used for since it was last written down."""

    active_seconds: float = 0.0
    compute_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(slots=True)
class Ledger:
    """Use that is not written down yet. Pure."""

    uses: dict[str, Use] = field(default_factory=dict)

    def of(self, endpoint_id: str) -> Use:
        return self.uses.setdefault(endpoint_id, Use())

    def take(self) -> Mapping[str, Use]:
        """All of it, leaving fractions of a second for the next time."""
        taken: dict[str, Use] = {}
        left: dict[str, Use] = {}
        for endpoint_id, use in self.uses.items():
            seconds = int(use.active_seconds)
            if seconds or use.bytes_in or use.bytes_out:
                taken[endpoint_id] = replace(use, active_seconds=float(seconds))
                left[endpoint_id] = Use(use.active_seconds - seconds)
            elif use != Use():
                left[endpoint_id] = use
        self.uses = left
        return taken

    def put_back(self, taken: Mapping[str, Use]) -> None:
        """What could not be written."""
        for endpoint_id, use in taken.items():
            mine = self.of(endpoint_id)
            mine.active_seconds += use.active_seconds
            mine.compute_seconds += use.compute_seconds
            mine.bytes_in += use.bytes_in
            mine.bytes_out += use.bytes_out


@dataclass(frozen=True, slots=True)
class Look:
    """What has happened since the last one: who was put to sleep, and how many seconds each endpoint was awake."""

    slept: tuple[tuple[str, SleepReason], ...]
    charged: Mapping[str, float]


class Idle:
    """Looks at all active endpoints now and then (`look`), and puts to sleep those whose time has come."""

    def __init__(self, kernel: Kernel, *, endpoints: Endpoints, doors: Doors) -> None:
        self._kernel = kernel
        self._endpoints = endpoints
        self._doors = doors
        self._seen: dict[str, datetime] = {}
        self._came: set[str] = set()
        self._ledger = Ledger()
        self._looked_at: datetime | None = None

    def note(self, endpoint_id: str, *, accepted: int, bytes_in: int, bytes_out: int) -> None:
        """What the gateway reports of an endpoint since its last report."""
        if accepted or bytes_in or bytes_out:
            self._came.add(endpoint_id)
        use = self._ledger.of(endpoint_id)
        use.bytes_in += bytes_in
        use.bytes_out += bytes_out

    async def look(self) -> Look:
        """Once a second or so."""
        async with self._kernel.catalog.connection() as conn:
            active = await store.active(conn)
        connected = await self._kernel.plane.connected()
        now = self._kernel.now()
        came, self._came = self._came, set()
        busy = {one.id for one in active if connected.get(one.id) or one.id in came}
        charged = self._charge(active, now)
        due = self._due(active, busy, now)
        await self._write_last_active([one for one in active if one.id in busy], now)
        for endpoint_id in due:
            await self._put_to_sleep(endpoint_id)
        return Look(tuple(self._doors.take_slept()), charged)

    def _due(self, active: Iterable[Endpoint], busy: set[str], now: datetime) -> list[str]:
        seen: dict[str, datetime] = {}
        due = []
        for one in active:
            known = [self._seen.get(one.id), one.last_active, one.started_at, now if one.id in busy else None]
            seen[one.id] = max(time for time in known if time is not None) if any(known) else now
            at = suspends_at(one, seen[one.id], default_seconds=self._kernel.place.suspend_after)
            if one.id not in busy and at is not None and at <= now:
                due.append(one.id)
        self._seen = seen
        return due

    def _charge(self, active: Iterable[Endpoint], now: datetime) -> dict[str, float]:
        before, self._looked_at = self._looked_at, now
        if before is None or now <= before:
            return {}
        charged = {}
        for one in active:
            since = max(before, one.started_at) if one.started_at else before
            seconds = charged[one.id] = max(0.0, (now - since).total_seconds())
            use = self._ledger.of(one.id)
            use.active_seconds += seconds
            use.compute_seconds += seconds * one.autoscaling_limit_max_cu
        return charged

    async def _write_last_active(self, busy: Iterable[Endpoint], now: datetime) -> None:
        stale = [one.id for one in busy if one.last_active is None or now - one.last_active > STALE]
        if stale:
            async with self._kernel.catalog.connection() as conn:
                await store.note_active(conn, stale, now=now)

    async def _put_to_sleep(self, endpoint_id: str) -> None:
        """Hold the door, look once more, and only then schedule the suspension: nobody who has come is cut off."""
        await self._doors.hold_to_look(endpoint_id)
        scheduled = False
        try:
            connected = (await self._kernel.plane.connected()).get(endpoint_id)
            if connected or await self._kernel.plane.is_working(endpoint_id):
                self._seen[endpoint_id] = self._kernel.now()
            else:
                await self._write_seen(endpoint_id)
                scheduled = await self._endpoints.suspend_idle(endpoint_id)
        finally:
            if not scheduled:
                await self._doors.looked(endpoint_id)
        if scheduled:
            log.info("endpoint.idle", endpoint_id=endpoint_id)

    async def _write_seen(self, endpoint_id: str) -> None:
        """`last_active` is exact once it sleeps."""
        async with self._kernel.catalog.connection() as conn:
            await store.note_active(conn, [endpoint_id], now=self._seen[endpoint_id])

    async def write_usage(self) -> None:
        """Write down what endpoints were used for. What cannot be written now is kept for the next time."""
        taken = self._ledger.take()
        if not taken:
            return
        try:
            async with self._kernel.catalog.transaction() as conn:
                await self._add_usage(conn, taken)
        except BaseException:
            self._ledger.put_back(taken)
            raise

    async def _add_usage(self, conn: Connection, taken: Mapping[str, Use]) -> None:
        hour = self._kernel.now().replace(minute=0, second=0, microsecond=0)
        await store.add_usage(
            conn,
            hour,
            [
                (one, int(use.active_seconds), int(use.compute_seconds * 1000), use.bytes_in, use.bytes_out)
                for one, use in sorted(taken.items())
            ],
        )
