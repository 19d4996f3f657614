"""The SQL of projects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.projects.plan import ProjectWish


@dataclass(frozen=True, slots=True)
class Project:
    """A row of `projects` with its organization's name, its owner, and when one of its computes was last active."""

    id: str
    org_id: str
    org_name: str
    owner_user_id: UUID
    owner_email: str
    owner_name: str
    name: str
    region_id: str
    pg_version: int
    provisioner: str
    store_passwords: bool
    default_endpoint_settings: dict[str, Any]
    settings: dict[str, Any]
    history_retention_seconds: int
    compute_last_active_at: datetime | None
    created_at: datetime
    updated_at: datetime
    #: In this month so far; `transferred` are bytes to clients.
    active_seconds: int = 0
    compute_seconds: int = 0
    transferred: int = 0


_SELECT: LiteralString = """
    select p.id, p.org_id, o.name as org_name, p.owner_user_id, u.email as owner_email, u.name as owner_name, p.name,
           p.region_id, p.pg_version, p.provisioner, p.store_passwords, p.default_endpoint_settings, p.settings,
           p.history_retention_seconds, p.created_at, p.updated_at,
           (select max(e.last_active) from endpoints e where e.project_id = p.id) as compute_last_active_at,
           used.active_seconds, used.compute_seconds, used.transferred
      from projects p join organizations o on o.id = p.org_id join users u on u.id = p.owner_user_id,
           lateral (select coalesce(sum(g.active_seconds), 0)::bigint as active_seconds,
                           (coalesce(sum(g.compute_milliseconds), 0) / 1000)::bigint as compute_seconds,
                           coalesce(sum(g.bytes_out), 0)::bigint as transferred
                      from endpoint_usage g
                     where g.project_id = p.id and g.hour >= date_trunc('month', now(), 'UTC')) as used
     where p.deleted_at is null
"""


async def get(conn: Connection, project_id: str) -> Project | None:
    async with conn.cursor(row_factory=class_row(Project)) as cursor:
        await cursor.execute(_SELECT + " and p.id = %s", (project_id,))
        return await cursor.fetchone()


async def page(
    conn: Connection, caller: Caller, org_id: str, *, search: str | None, after: str | None, limit: int
) -> list[Project]:
    """Projects of one organization, by id, after the id `after`, which need not exist."""
    async with conn.cursor(row_factory=class_row(Project)) as cursor:
        await cursor.execute(
            _SELECT
            + " and p.org_id = %(org)s and (%(only)s::text is null or p.id = %(only)s)"
            + " and (%(after)s::text is null or p.id > %(after)s)"
            + " and (%(search)s::text is null or position(lower(%(search)s) in lower(p.name)) > 0 or p.id = %(search)s)"
            + " order by p.id limit %(limit)s",
            {"org": org_id, "only": caller.project_id, "after": after, "search": search or None, "limit": limit},
        )
        return await cursor.fetchall()


async def insert(
    conn: Connection, *, project_id: str, org_id: str, owner: UUID, wish: ProjectWish, now: datetime
) -> None:
    await conn.execute(
        "insert into projects (id, org_id, owner_user_id, name, region_id, pg_version, provisioner, store_passwords,"
        " default_endpoint_settings, settings, history_retention_seconds, created_at, updated_at)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            project_id,
            org_id,
            owner,
            wish.name or project_id,
            wish.region_id,
            wish.pg_version,
            wish.provisioner,
            wish.store_passwords,
            Jsonb(dict(wish.default_endpoint_settings)),
            Jsonb(dict(wish.settings)),
            wish.history_retention_seconds,
            now,
            now,
        ),
    )


async def update(
    conn: Connection,
    project_id: str,
    *,
    name: str,
    settings: dict[str, Any],
    default_endpoint_settings: dict[str, Any],
    history_retention_seconds: int,
    now: datetime,
) -> None:
    await conn.execute(
        "update projects set name = %s, settings = %s, default_endpoint_settings = %s, history_retention_seconds = %s,"
        " updated_at = %s where id = %s",
        (name, Jsonb(settings), Jsonb(default_endpoint_settings), history_retention_seconds, now, project_id),
    )


async def mark_deleted(conn: Connection, project_id: str, *, now: datetime) -> None:
    await conn.execute("update projects set deleted_at = %s, updated_at = %s where id = %s", (now, now, project_id))
    await conn.execute("update branches set deleted_at = %s where project_id = %s", (now, project_id))
    await conn.execute("update endpoints set deleted_at = %s where project_id = %s", (now, project_id))


async def protected_branches(conn: Connection, project_id: str) -> int:
    cursor = await conn.execute(
        "select count(*) as n from branches where project_id = %s and protected and deleted_at is null", (project_id,)
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def branch_ids(conn: Connection, project_id: str) -> list[str]:
    """Also those whose deletion has been asked for."""
    cursor = await conn.execute("select id from branches where project_id = %s", (project_id,))
    return [row["id"] for row in await cursor.fetchall()]


async def remove(conn: Connection, project_id: str) -> None:
    """The project and all rows below it. Branches first: they reference each other, all at once."""
    await conn.execute("delete from branches where project_id = %s", (project_id,))
    await conn.execute("delete from projects where id = %s", (project_id,))
