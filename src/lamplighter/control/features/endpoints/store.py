"""The SQL of endpoints."""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.endpoints.model import Endpoint
from lamplighter.control.features.endpoints.plan import EndpointOptions, EndpointType

_COLUMNS: LiteralString = (
    "id, project_id, branch_id, name, type, current_state, pending_state, autoscaling_limit_min_cu,"
    " autoscaling_limit_max_cu, suspend_timeout_seconds, settings, pooler_mode, disabled, passwordless_access,"
    " region_id, provisioner, creation_source, port, last_active, started_at, suspended_at, created_at, updated_at"
)
_SELECT: LiteralString = "select " + _COLUMNS + " from endpoints where "


async def of_project(conn: Connection, project_id: str) -> list[Endpoint]:
    return await _many(conn, "project_id = %s and deleted_at is null order by created_at, id", project_id)


async def of_branch(conn: Connection, branch_id: str) -> list[Endpoint]:
    return await _many(conn, "branch_id = %s and deleted_at is null order by created_at, id", branch_id)


async def of_branch_even_deleted(conn: Connection, branch_id: str) -> list[Endpoint]:
    """Those too whose deletion has been asked for: they may still run."""
    return await _many(conn, "branch_id = %s order by created_at, id", branch_id)


async def active(conn: Connection) -> list[Endpoint]:
    """All endpoints that ought to run now, on this platform."""
    return await _many(conn, "current_state = 'active' and deleted_at is null and %s order by created_at, id", True)


async def find(conn: Connection, project_id: str, endpoint_id: str) -> Endpoint | None:
    async with conn.cursor(row_factory=class_row(Endpoint)) as cursor:
        await cursor.execute(_SELECT + "project_id = %s and id = %s and deleted_at is null", (project_id, endpoint_id))
        return await cursor.fetchone()


async def load(conn: Connection, endpoint_id: str) -> Endpoint | None:
    """The row for an operation to work on, also when its deletion has been asked for."""
    found = await _many(conn, "id = %s", endpoint_id)
    return found[0] if found else None


async def _many(conn: Connection, condition: LiteralString, value: object) -> list[Endpoint]:
    async with conn.cursor(row_factory=class_row(Endpoint)) as cursor:
        await cursor.execute(_SELECT + condition, (value,))
        return await cursor.fetchall()


async def lock_ports(conn: Connection) -> None:
    """Until the transaction ends, nobody else chooses a port."""
    await conn.execute("select pg_advisory_xact_lock(hashtext('lamplighter.ports'))")


async def ports(conn: Connection) -> frozenset[int]:
    """Ports that belong to an endpoint, running or not."""
    rows = await conn.execute("select port from endpoints")
    return frozenset(row["port"] for row in await rows.fetchall())


async def insert(
    conn: Connection,
    *,
    endpoint_id: str,
    project_id: str,
    branch_id: str,
    name: str | None,
    type: EndpointType,  # noqa: A002 - Neon's name of the field
    options: EndpointOptions,
    region_id: str,
    provisioner: str,
    port: int,
    disabled: bool,
    passwordless_access: bool,
    pending_state: str | None,
    now: datetime,
) -> Endpoint:
    async with conn.cursor(row_factory=class_row(Endpoint)) as cursor:
        await cursor.execute(
            "insert into endpoints (id, project_id, branch_id, name, type, current_state, pending_state,"
            " autoscaling_limit_min_cu, autoscaling_limit_max_cu, suspend_timeout_seconds, settings, region_id,"
            " provisioner, port, disabled, passwordless_access, created_at, updated_at)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning " + _COLUMNS,
            (
                endpoint_id,
                project_id,
                branch_id,
                name,
                type,
                "init" if pending_state else "idle",
                pending_state,
                options.min_cu,
                options.max_cu,
                options.suspend_timeout_seconds,
                Jsonb(dict(options.settings)),
                region_id,
                provisioner,
                port,
                disabled,
                passwordless_access,
                now,
                now,
            ),
        )
        row = await cursor.fetchone()
    assert row is not None
    return row


async def update(
    conn: Connection,
    endpoint: Endpoint,
    *,
    name: str | None,
    options: EndpointOptions,
    disabled: bool,
    passwordless_access: bool,
    now: datetime,
) -> None:
    await conn.execute(
        "update endpoints set name = %s, autoscaling_limit_min_cu = %s, autoscaling_limit_max_cu = %s,"
        " suspend_timeout_seconds = %s, settings = %s, disabled = %s, passwordless_access = %s, updated_at = %s"
        " where id = %s",
        (
            name,
            options.min_cu,
            options.max_cu,
            options.suspend_timeout_seconds,
            Jsonb(dict(options.settings)),
            disabled,
            passwordless_access,
            now,
            endpoint.id,
        ),
    )


async def set_pending(conn: Connection, endpoint_id: str, pending_state: str | None, *, now: datetime) -> None:
    await conn.execute(
        "update endpoints set pending_state = %s, updated_at = %s where id = %s", (pending_state, now, endpoint_id)
    )


async def set_active(conn: Connection, endpoint_id: str, *, now: datetime) -> None:
    await conn.execute(
        "update endpoints set current_state = 'active', pending_state = null, started_at = %s, last_active = %s,"
        " suspended_at = null, updated_at = %s where id = %s",
        (now, now, now, endpoint_id),
    )


async def note_crashed(conn: Connection, crashed: Endpoint, *, now: datetime) -> None:
    """Idle, unless it has been started again since `crashed` was read."""
    await conn.execute(
        "update endpoints set current_state = 'idle', pending_state = null, suspended_at = %s, updated_at = %s"
        " where id = %s and current_state = 'active' and started_at is not distinct from %s",
        (now, now, crashed.id, crashed.started_at),
    )


async def set_idle(conn: Connection, endpoint_id: str, *, now: datetime) -> None:
    await conn.execute(
        "update endpoints set current_state = 'idle', pending_state = null, suspended_at = %s, updated_at = %s"
        " where id = %s",
        (now, now, endpoint_id),
    )


async def mark_deleted(conn: Connection, endpoint_id: str, *, now: datetime) -> None:
    await conn.execute("update endpoints set deleted_at = %s, updated_at = %s where id = %s", (now, now, endpoint_id))


async def remove(conn: Connection, endpoint_id: str) -> None:
    """The row goes for good, and with it the hold on its port."""
    await conn.execute("delete from endpoints where id = %s", (endpoint_id,))
