"""What a control plane does before its engine starts, when it knows that its predecessor is dead."""

from __future__ import annotations

from typing import LiteralString

import structlog

from lamplighter.control.catalog.pool import Catalog

log = structlog.get_logger(__name__)

_RELEASE: LiteralString = """
    update operations set lease_owner = null, lease_until = null
     where finished_at is null and starts_with(lease_owner, %s)"""


async def release_leases(catalog: Catalog, owner_prefix: str) -> int:
    """Free the leases of all engines whose `owner` begins so, and answer how many there were.

    Only for who holds the lock that proves those engines dead (a data directory has one control plane): otherwise two
    engines would run the same operation. Nothing else is done here: a freed operation is claimed like any other.
    """
    async with catalog.connection() as conn:
        released = (await conn.execute(_RELEASE, (owner_prefix,))).rowcount
    if released:
        log.info("operations.recovered", owner_prefix=owner_prefix, operations=released)
    return released
