"""The SQL of branches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from lamplighter.api.errors import BadRequest
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.branches.model import Branch
from lamplighter.control.features.branches.plan import BranchWish, ttl_seconds
from lamplighter.control.http.pages import BranchCursor

_COLUMNS: LiteralString = (
    "id, project_id, parent_id, parent_timestamp, name, is_default, protected, current_state, pending_state,"
    " state_changed_at, init_source, creation_source, created_by_name, logical_size, expires_at, ttl_interval_seconds,"
    " annotation, created_at, updated_at"
)
_USED: LiteralString = (
    " from endpoint_usage u where u.branch_id = branches.id and u.hour >= date_trunc('month', now(), 'UTC'))"
)
_SELECT: LiteralString = (
    "select " + _COLUMNS + ","
    " (select coalesce(sum(u.active_seconds), 0)::bigint" + _USED + " as active_seconds,"
    " (select (coalesce(sum(u.compute_milliseconds), 0) / 1000)::bigint" + _USED + " as compute_seconds,"
    " (select coalesce(sum(u.bytes_out), 0)::bigint" + _USED + " as transferred from branches"
)
_SORTS: dict[str, LiteralString] = {"name": "name", "created_at": "created_at", "updated_at": "updated_at"}


async def find(conn: Connection, project_id: str, branch_id: str) -> Branch | None:
    async with conn.cursor(row_factory=class_row(Branch)) as cursor:
        await cursor.execute(
            _SELECT + " where project_id = %s and id = %s and deleted_at is null", (project_id, branch_id)
        )
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class BranchQuery:
    """A page of a project's branches: what to look for, in which order, from where."""

    search: str | None
    sort_by: str
    descending: bool
    limit: int
    cursor: BranchCursor | None


async def page(conn: Connection, project_id: str, query: BranchQuery) -> list[Branch]:
    """Branches after the cursor. Raises BadRequest for a cursor of another order."""
    column = _SORTS[query.sort_by]
    after: LiteralString = ""
    parameters: dict[str, Any] = {"project": project_id, "limit": query.limit, "search": _pattern(query.search)}
    if query.cursor is not None:
        if query.cursor.sort_by != query.sort_by or (query.cursor.sort_order == "DESC") != query.descending:
            raise BadRequest("invalid cursor: it belongs to another sort_by or sort_order")
        comparison: LiteralString = "<" if query.descending else ">"
        after = " and (" + column + ", id) " + comparison + " (%(value)s, %(id)s)"
        parameters |= {"value": _cursor_value(query.cursor), "id": query.cursor.branch_id}
    direction: LiteralString = "desc" if query.descending else "asc"
    async with conn.cursor(row_factory=class_row(Branch)) as cursor:
        await cursor.execute(
            _SELECT
            + " where project_id = %(project)s and deleted_at is null"
            + " and (%(search)s::text is null or name ilike %(search)s or id ilike %(search)s)"
            + after
            + " order by "
            + column
            + " "
            + direction
            + ", id "
            + direction
            + " limit %(limit)s",
            parameters,
        )
        return await cursor.fetchall()


def cursor_after(branch: Branch, query: BranchQuery) -> BranchCursor:
    """Where a page that ends with `branch` ends."""
    value = getattr(branch, query.sort_by)
    text = value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
    return BranchCursor(branch.id, query.sort_by, text, "DESC" if query.descending else "ASC")


def _cursor_value(cursor: BranchCursor) -> str | datetime:
    if cursor.sort_by == "name":
        return cursor.sort_by_value
    try:
        moment = datetime.fromisoformat(cursor.sort_by_value)
    except ValueError as error:
        raise BadRequest("invalid cursor: pass the value of pagination.next of the page before") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _pattern(search: str | None) -> str | None:
    """A LIKE pattern that finds `search` anywhere, its own wildcards taken literally."""
    if not search:
        return None
    escaped = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


async def count(conn: Connection, project_id: str, search: str | None) -> int:
    cursor = await conn.execute(
        "select count(*) as n from branches where project_id = %(project)s and deleted_at is null"
        " and (%(search)s::text is null or name ilike %(search)s or id ilike %(search)s)",
        {"project": project_id, "search": _pattern(search)},
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def name_taken(conn: Connection, project_id: str, name: str) -> bool:
    cursor = await conn.execute(
        "select 1 from branches where project_id = %s and name = %s and deleted_at is null", (project_id, name)
    )
    return await cursor.fetchone() is not None


async def children(conn: Connection, branch_id: str) -> int:
    cursor = await conn.execute(
        "select count(*) as n from branches where parent_id = %s and deleted_at is null", (branch_id,)
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def insert(
    conn: Connection,
    *,
    branch_id: str,
    project_id: str,
    parent_id: str | None,
    wish: BranchWish,
    is_default: bool,
    creator: str,
    now: datetime,
) -> Branch:
    async with conn.cursor(row_factory=class_row(Branch)) as cursor:
        await cursor.execute(
            "insert into branches (id, project_id, parent_id, name, is_default, protected, current_state,"
            " pending_state, state_changed_at, init_source, created_by_name, expires_at, ttl_interval_seconds,"
            " annotation, created_at, updated_at)"
            " values (%s, %s, %s, %s, %s, %s, 'init', 'ready', %s, %s, %s, %s, %s, %s, %s, %s)"
            " returning " + _COLUMNS,
            (
                branch_id,
                project_id,
                parent_id,
                wish.name or branch_id,
                is_default,
                wish.protected,
                now,
                wish.init_source,
                creator,
                wish.expires_at,
                ttl_seconds(wish.expires_at, now),
                Jsonb(dict(wish.annotation or {})),
                now,
                now,
            ),
        )
        row = await cursor.fetchone()
    assert row is not None
    return row


async def set_ready(conn: Connection, branch_id: str, *, copied_at: datetime | None, now: datetime) -> None:
    """`copied_at`: the moment of its parent that the branch shows."""
    await conn.execute(
        "update branches set current_state = 'ready', pending_state = null, state_changed_at = %s, updated_at = %s,"
        " parent_timestamp = case when parent_id is not null then coalesce(%s, parent_timestamp) end where id = %s",
        (now, now, copied_at, branch_id),
    )


async def rename(conn: Connection, branch_id: str, name: str, *, now: datetime) -> None:
    await conn.execute("update branches set name = %s, updated_at = %s where id = %s", (name, now, branch_id))


async def protect(conn: Connection, branch_id: str, protected: bool, *, now: datetime) -> None:
    await conn.execute("update branches set protected = %s, updated_at = %s where id = %s", (protected, now, branch_id))


async def expire_at(conn: Connection, branch_id: str, expires_at: datetime | None, *, now: datetime) -> None:
    await conn.execute(
        "update branches set expires_at = %s, ttl_interval_seconds = %s, updated_at = %s where id = %s",
        (expires_at, ttl_seconds(expires_at, now), now, branch_id),
    )


async def set_default(conn: Connection, project_id: str, branch_id: str, *, now: datetime) -> None:
    # Two statements: the unique index on the default branch does not allow two of them even within one.
    await conn.execute(
        "update branches set is_default = false, updated_at = %s where project_id = %s and is_default",
        (now, project_id),
    )
    await conn.execute("update branches set is_default = true, updated_at = %s where id = %s", (now, branch_id))


async def mark_deleted(conn: Connection, branch_id: str, *, now: datetime) -> None:
    """Hidden from now on, with its endpoints; the operation removes them for good."""
    await conn.execute("update branches set deleted_at = %s, updated_at = %s where id = %s", (now, now, branch_id))
    await conn.execute(
        "update endpoints set deleted_at = %s where branch_id = %s and deleted_at is null", (now, branch_id)
    )


async def remove(conn: Connection, branch_id: str) -> None:
    """The row, and with it endpoints, roles and databases."""
    await conn.execute("delete from branches where id = %s", (branch_id,))


async def expired(conn: Connection, now: datetime) -> list[tuple[str, str]]:
    """Project and id of each branch whose time is over."""
    cursor = await conn.execute(
        "select project_id, id from branches where expires_at <= %s and deleted_at is null order by expires_at", (now,)
    )
    return [(row["project_id"], row["id"]) for row in await cursor.fetchall()]
