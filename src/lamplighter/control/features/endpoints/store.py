"""The SQL of endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.features.endpoints.model import Endpoint
from lamplighter.control.features.endpoints.plan import EndpointOptions, EndpointType

_COLUMNS: LiteralString = (
    "id, project_id, branch_id, name, type, current_state, pending_state, autoscaling_limit_min_cu,"
    " autoscaling_limit_max_cu, suspend_timeout_seconds, settings, pooler_mode, disabled, passwordless_access,"
    " region_id, provisioner, creation_source, port, pooler_port, last_active, started_at, suspended_at,"
    " created_at, updated_at"
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


async def everyone(conn: Connection) -> list[Endpoint]:
    return await _many(conn, "deleted_at is null and %s order by created_at, id", True)


async def of_caller(conn: Connection, caller: Caller) -> list[Endpoint]:
    """Of the projects that a key reaches."""
    async with conn.cursor(row_factory=class_row(Endpoint)) as cursor:
        await cursor.execute(
            _SELECT + "deleted_at is null and exists (select from projects p where p.id = endpoints.project_id"
            " and (%(project)s::text is null or p.id = %(project)s)"
            " and (p.org_id = %(org)s or %(org)s::text is null"
            " and exists (select from members m where m.org_id = p.org_id and m.user_id = %(user)s)))"
            " order by created_at, id",
            {"project": caller.project_id, "org": caller.org_id, "user": caller.user_id},
        )
        return await cursor.fetchall()


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
    """Ports that belong to an endpoint or its pooler, running or not."""
    rows = await conn.execute(
        "select port from endpoints union all select pooler_port from endpoints where pooler_port is not null"
    )
    return frozenset(row["port"] for row in await rows.fetchall())


async def last_port(conn: Connection) -> int | None:
    """The port that was given last."""
    row = await (await conn.execute("select last_port from platform")).fetchone()
    return row["last_port"] if row else None


async def set_last_port(conn: Connection, port: int) -> None:
    await conn.execute("update platform set last_port = %s", (port,))


async def without_pooler_port(conn: Connection) -> list[str]:
    """Endpoints from before there were poolers."""
    rows = await conn.execute("select id from endpoints where pooler_port is null order by id")
    return [row["id"] for row in await rows.fetchall()]


async def set_pooler_port(conn: Connection, endpoint_id: str, port: int) -> None:
    await conn.execute("update endpoints set pooler_port = %s where id = %s", (port, endpoint_id))


@dataclass(frozen=True, slots=True)
class DoorRow:
    """What decides on an endpoint's door, besides the compute."""

    endpoint_id: str
    project_id: str
    port: int
    pooler_port: int
    current_state: str
    disabled: bool
    protected: bool
    allowed_ips: dict[str, Any]


_DOORS: LiteralString = (
    "select e.id as endpoint_id, e.project_id, e.port, e.pooler_port, e.current_state, e.disabled, b.protected,"
    " coalesce(p.settings -> 'allowed_ips', '{}') as allowed_ips"
    " from endpoints e join branches b on b.id = e.branch_id join projects p on p.id = e.project_id"
    " where e.deleted_at is null and e.pooler_port is not null"
)


async def doors(conn: Connection, *, project_id: str | None = None, endpoint_id: str | None = None) -> list[DoorRow]:
    """Of one endpoint, of a project, or of all."""
    async with conn.cursor(row_factory=class_row(DoorRow)) as cursor:
        await cursor.execute(
            _DOORS + " and (%(project)s::text is null or e.project_id = %(project)s)"
            " and (%(endpoint)s::text is null or e.id = %(endpoint)s)",
            {"project": project_id, "endpoint": endpoint_id},
        )
        return await cursor.fetchall()


async def lock_active(conn: Connection) -> int:
    """How many endpoints are active or about to be; nobody else asks until the transaction ends."""
    await conn.execute("select pg_advisory_xact_lock(hashtext('lamplighter.active'))")
    rows = await conn.execute(
        "select count(*) as n from endpoints where deleted_at is null"
        " and (current_state = 'active' or pending_state = 'active')"
    )
    row = await rows.fetchone()
    return int(row["n"]) if row else 0


async def last_unfinished(conn: Connection, endpoint_id: str) -> str | None:
    """The kind of the last operation that is to be done to this endpoint."""
    rows = await conn.execute(
        "select kind from operations where endpoint_id = %s and finished_at is null order by seq desc limit 1",
        (endpoint_id,),
    )
    row = await rows.fetchone()
    return row["kind"] if row else None


async def note_active(conn: Connection, endpoint_ids: Sequence[str], *, now: datetime) -> None:
    await conn.execute(
        "update endpoints set last_active = %s where id = any (%s) and current_state = 'active'",
        (now, list(endpoint_ids)),
    )


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
    pooler_port: int,
    disabled: bool,
    passwordless_access: bool,
    pending_state: str | None,
    now: datetime,
) -> Endpoint:
    async with conn.cursor(row_factory=class_row(Endpoint)) as cursor:
        await cursor.execute(
            "insert into endpoints (id, project_id, branch_id, name, type, current_state, pending_state,"
            " autoscaling_limit_min_cu, autoscaling_limit_max_cu, suspend_timeout_seconds, settings, region_id,"
            " provisioner, port, pooler_port, disabled, passwordless_access, created_at, updated_at)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning "
            + _COLUMNS,
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
                pooler_port,
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


async def add_usage(conn: Connection, hour: datetime, uses: Sequence[tuple[str, int, int, int, int]]) -> None:
    """Of endpoints that there are: id, active seconds, compute milliseconds, bytes in and out."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "insert into endpoint_usage as u (endpoint_id, branch_id, project_id, hour, active_seconds,"
            " compute_milliseconds, bytes_in, bytes_out)"
            " select e.id, e.branch_id, e.project_id, %s, %s, %s, %s, %s from endpoints e where e.id = %s"
            " on conflict (endpoint_id, hour) do update set"
            " active_seconds = u.active_seconds + excluded.active_seconds,"
            " compute_milliseconds = u.compute_milliseconds + excluded.compute_milliseconds,"
            " bytes_in = u.bytes_in + excluded.bytes_in, bytes_out = u.bytes_out + excluded.bytes_out",
            [(hour, active, compute, bytes_in, bytes_out, one) for one, active, compute, bytes_in, bytes_out in uses],
        )
