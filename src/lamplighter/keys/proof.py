"""How far it is proven that a store took a value, from what the store says. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from lamplighter.keys.sinks.base import Receipt

#: `value`: read back, and its HMAC is right. `metadata`: the store says that the secret changed when we wrote.
#: `accepted`: the store said yes, and has nothing else to say.
Level = Literal["value", "metadata", "accepted"]

#: A store's `Date` and its `updated_at` may come from two machines, and have whole seconds.
_TOLERANCE: Final = timedelta(seconds=5)


def level_of(before: Receipt | None, receipt: Receipt, after: Receipt | None) -> Level | None:
    """From what the store said before the write, in its answer, and now. None: it contradicts that the write was."""
    if after is None:
        return None
    if receipt.version is not None and after.version is not None:
        return "metadata" if after.version == receipt.version else None
    if after.updated_at is not None:
        return _by_time(before, receipt, after.updated_at)
    if before is not None and before.version is not None and after.version is not None:
        return "metadata" if after.version != before.version else None
    return "accepted"


def _by_time(before: Receipt | None, receipt: Receipt, updated_at: datetime) -> Level | None:
    written = receipt.server_date or receipt.updated_at
    if written is not None:
        return "metadata" if updated_at >= written.replace(microsecond=0) - _TOLERANCE else None
    if before is not None and before.updated_at is not None:
        # Whole seconds: a second write within one does not move it.
        return "metadata" if updated_at >= before.updated_at else None
    return "accepted"
