"""What `lamp endpoints top` shows: rows with rates of two looks at a platform, and the screen they make. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lamplighter.cli.output import Column, Screen, table_text
from lamplighter.cli.shown import age
from lamplighter.cli.terminal import cut
from lamplighter.cli.text import NOTHING, human_bytes, plural

#: Fields of the answer that only grow while a platform runs, and the names of their rates.
RATES: Final = {
    "bytes_in": "bytes_in_per_second",
    "bytes_out": "bytes_out_per_second",
    "accepted": "accepted_per_second",
}
ACTIVE: Final = "active"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """Endpoints by id as the platform told of them, `at` so many seconds of a clock that never goes back."""

    at: float
    endpoints: Mapping[str, Mapping[str, Any]]


def look_of(reply: Any, *, at: float, project_id: str | None = None) -> Look:
    """What an answer holds, of one project or of all. Raises ValueError when it is no such answer."""
    listed = reply.get("endpoints") if isinstance(reply, Mapping) else None
    fit = isinstance(listed, list) and all(
        isinstance(one, Mapping) and isinstance(one.get("id"), str) for one in listed
    )
    if not fit:
        raise ValueError("the answer lists no endpoints")
    found = {one["id"]: one for one in listed or () if project_id in (None, one.get("project_id"))}
    return Look(at, found)


def rows_of(before: Look | None, after: Look) -> list[Row]:
    """All that the platform told, with rates; those through which most passes first, then by connections and id.

    Rates are None without an earlier look. A total that fell was counted anew by a platform that started meanwhile.
    """
    rows = []
    for id_, one in after.endpoints.items():
        then = None if before is None else before.endpoints.get(id_, {})
        seconds = 0.0 if before is None else after.at - before.at
        rates = {
            rate: None if then is None or seconds <= 0 else _grown(then.get(total), one.get(total)) / seconds
            for total, rate in RATES.items()
        }
        rows.append({**one, **rates})
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[float, int, str]:
    passing = (row["bytes_in_per_second"] or 0.0) + (row["bytes_out_per_second"] or 0.0)
    return -passing, -_number(row.get("connections")), row["id"]


def _grown(before: Any, after: Any) -> int:
    start, end = _number(before), _number(after)
    return end - start if end >= start else end


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def columns_of(rows: Sequence[Row], *, now: datetime) -> tuple[Column, ...]:
    """What a table shows; names only where an endpoint has one."""

    def ago(value: Any) -> str:
        return age(value, now)

    names = (Column("name"),) if any(row.get("name") for row in rows) else ()
    return (
        Column("id", "endpoint"),
        *names,
        Column("state"),
        Column("connections", "conns", right=True),
        Column("bytes_in_per_second", "in/s", right=True, show=_bytes),
        Column("bytes_out_per_second", "out/s", right=True, show=_bytes),
        Column("active_since", "active for", right=True, show=ago),
        Column("last_active", "last used", right=True, show=ago),
        Column("wakes", right=True),
        Column("last_wake_ms", "wake", right=True, show=lambda value: NOTHING if value is None else f"{value} ms"),
    )


def shown(row: Row) -> Row:
    """A row for the table: an endpoint that sleeps has been active for no time, whenever it was started."""
    return {**row, "active_since": row.get("started_at") if row.get("state") == ACTIVE else None}


def summary(rows: Sequence[Row]) -> str:
    """All of it in one line."""
    active = sum(1 for row in rows if row.get("state") == ACTIVE)
    connections = sum(_number(row.get("connections")) for row in rows)
    parts = [f"{plural(len(rows), 'endpoint')}, {active} active", plural(connections, "connection")]
    for rate, title in (("bytes_in_per_second", "in"), ("bytes_out_per_second", "out")):
        known = [row[rate] for row in rows if row[rate] is not None]
        if known:
            parts.append(f"{title} {_bytes(sum(known))}/s")
    return ", ".join(parts)


def frame(rows: Sequence[Row], *, now: datetime, screen: Screen, lines: int, note: str = "") -> str:
    """What fits on a terminal of so many lines: the summary, then the table, and how many endpoints it leaves out."""
    head = f"{now:%H:%M:%S}  {summary(rows)}" + (f"  ({note})" if note else "")
    head = head if screen.columns is None else cut(head, screen.columns)
    if not rows:
        return f"{head}\n"
    table = table_text([shown(row) for row in rows], columns_of(rows, now=now), screen=screen).splitlines()
    # The summary, a blank line, the titles; and the last line of a terminal is for the cursor.
    room = max(1, lines - 4)
    body = table[1 : room + 1]
    if len(rows) > room:
        body[-1] = f"... and {len(rows) - room + 1} more"
    return "\n".join([head, "", table[0], *body]) + "\n"


def _bytes(value: Any) -> str:
    return human_bytes(round(value) if isinstance(value, (int, float)) else None)
