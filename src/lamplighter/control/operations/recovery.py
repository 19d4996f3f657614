"""What a control plane does before its engine starts, when it knows that its predecessor is dead."""

from __future__ import annotations

import structlog

from lamplighter.control.catalog.pool import Catalog
from lamplighter.control.operations import store

log = structlog.get_logger(__name__)


async def release_leases(catalog: Catalog, owner: str) -> int:
    """Free the leases of the engine that was called exactly `owner`, and answer how many there were.

    Only for who holds the lock that proves that engine dead (a data directory has one control plane): otherwise two
    engines would run the same operation. Nothing else is done here: a freed operation is claimed like any other.
    """
    async with catalog.connection() as conn:
        released = await store.release(conn, owner)
    if released:
        log.info("operations.recovered", owner=owner, operations=released)
    return released
