"""That a data directory and a catalog belong together, before anything is changed because of what one of them says.

A platform removes and starts what its catalog says. With an empty or another platform's catalog it would take every
branch for a leftover, so both carry the platform's id, and a start with two that differ is refused.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

from lamplighter.control.catalog.pool import Catalog
from lamplighter.files import write_atomic
from lamplighter.platform.errors import ForeignCatalog, SealKeyMissing

FILE = "platform.id"
SEAL_KEY = "seal.key"


async def check_identity(catalog: Catalog, data_dir: Path, *, has_branches: bool, now: datetime) -> None:
    """Mark a new catalog and a new data directory with one id. Raises ForeignCatalog, SealKeyMissing.

    `has_branches`: whether the directory holds volumes of branches, which a catalog without an id cannot know of.
    """
    file = data_dir / FILE
    ours = UUID(file.read_text().strip()) if file.exists() else None
    async with catalog.transaction() as conn:
        await conn.execute("select pg_advisory_xact_lock(hashtext('lamplighter.platform'))")
        row = await (await conn.execute("select id from platform")).fetchone()
        theirs = row["id"] if row else None
        refuse = _reason(ours, theirs, has_branches=has_branches)
        if refuse is not None:
            raise ForeignCatalog(data_dir, refuse)
        sealed = await (await conn.execute("select 1 from roles where password_sealed is not null limit 1")).fetchone()
        if sealed is not None and not (data_dir / SEAL_KEY).exists():
            raise SealKeyMissing(data_dir / SEAL_KEY)
        if theirs is None:
            new = ours or uuid4()
            # The file first: after a crash in between, the next start finds a directory with an id and an empty
            # catalog, and goes on; the other way round it would find a catalog that seems to be another's.
            write_atomic(file, f"{new}\n".encode(), mode=0o644)
            await conn.execute("insert into platform (id, created_at) values (%s, %s)", (new, now))


def _reason(ours: UUID | None, theirs: UUID | None, *, has_branches: bool) -> str | None:
    """Why they do not belong together; None when they do, or when both are new."""
    if theirs is None:
        return "it is empty, and the directory holds branches" if has_branches else None
    return None if ours == theirs else "it belongs to another data directory"
