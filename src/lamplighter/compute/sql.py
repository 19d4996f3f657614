"""Roles, databases and slots inside of one Postgres: `changes.py` decides, this runs it.

Every connection here is the platform's superuser in databases that users control: names are qualified or resolved in
`pg_catalog` alone (see `connect_options`), and no code of theirs is called.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lamplighter.compute.changes import (
    NEON_SUPERUSER,
    ROLE_MARK,
    Plan,
    State,
    check_names,
    end_sessions,
    heir,
    parse_state,
    plan,
)
from lamplighter.compute.config import COPIER, SUPERUSER
from lamplighter.compute.errors import ChangeFailed, is_permanent
from lamplighter.compute.launcher import SLOT_PREFIX
from lamplighter.compute.ports import Changes

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
#: Opens a session of the superuser in a database, with autocommit.
Connect = Callable[[str], Awaitable[Connection]]

#: What a user attached to a database or role must not reach us: `ALTER DATABASE ... SET role`, `search_path` and so on.
#: Options of a connection take precedence over those.
_OPTIONS = {
    "search_path": "pg_catalog",
    "role": "none",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read\\ committed",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "15s",
    "session_replication_role": "origin",
    "row_security": "off",
    "client_min_messages": "warning",
    "synchronous_commit": "on",
}

STATE = """
SELECT json_build_object(
  'version', current_setting('server_version_num'),
  'roles', (SELECT coalesce(json_agg(json_build_object(
      'name', r.rolname, 'verifier', r.rolpassword,
      'marked', coalesce(shobj_description(r.oid, 'pg_authid') = '{mark}', false),
      'replication', r.rolreplication,
      'complete', r.rolcanlogin AND r.rolinherit AND r.rolcreatedb AND r.rolcreaterole AND r.rolbypassrls
        AND EXISTS (SELECT FROM pg_auth_members m JOIN pg_authid g ON g.oid = m.roleid
          WHERE m.member = r.oid AND g.rolname = 'neon_superuser'))), '[]') FROM pg_authid r),
  'databases', (SELECT coalesce(json_agg(json_build_object(
      'name', d.datname, 'owner', pg_get_userbyid(d.datdba), 'template', d.datistemplate)), '[]')
    FROM pg_database d))
""".replace("{mark}", ROLE_MARK)

_OWNED_IN = """
SELECT DISTINCT d.datname, pg_get_userbyid(d.datdba), o.rolsuper, d.datallowconn
FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid JOIN pg_authid o ON o.oid = d.datdba
JOIN pg_authid r ON r.oid = s.refobjid
WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = %s
"""

_SUBSCRIPTIONS = "SELECT s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"

_RENAME_TRIES = 5
#: Seconds that one statement of a change may take, and wait for a lock. Users may hold locks as long as they like.
STATEMENT_SECONDS = 120
LOCK_SECONDS = 30


def connect_options(*, superuser: bool = True) -> str:
    """The `options` of each connection of ours. Some are not for others than superusers to set."""
    names = [name for name in _OPTIONS if superuser or name != "session_replication_role"]
    return " ".join(f"-c {name}={_OPTIONS[name]}" for name in names)


@asynccontextmanager
async def session(connect: Connect, database: str) -> AsyncIterator[Connection]:
    """A connection that is closed at the end, whatever happens."""
    connection = await connect(database)
    try:
        yield connection
    finally:
        await connection.close()


def bounded(connect: Connect) -> Connect:
    """Sessions whose statements end after a while, with an error."""

    async def opened(database: str) -> Connection:
        connection = await connect(database)
        try:
            await connection.execute(
                f"SET statement_timeout = '{STATEMENT_SECONDS}s'; SET lock_timeout = '{LOCK_SECONDS}s'".encode()
            )
        except BaseException:
            await connection.close()
            raise
        return connection

    return opened


async def read_state(connection: Connection) -> State:
    """All roles and databases, in one round trip."""
    return parse_state((await _one(connection, STATE))[0])


async def apply(connect: Connect, changes: Changes) -> None:
    """Bring the changes about; applying them twice is the same as once. Raises `ChangeFailed`, `ReservedName`.

    Two connections' worth of round trips at most when there is nothing to drop: the state, then one transaction.
    """
    check_names(changes)
    if not changes:
        return
    connect = bounded(connect)
    async with session(connect, "postgres") as connection:
        steps = plan(await read_state(connection), changes, lambda: os.urandom(16))
        await _run_together(connection, steps)
        for statement in steps.singly:
            await run(connection, statement, "Making a database")
        state = await read_state(connection) if steps.drop_databases else None
        for database in steps.drop_databases:
            await _drop_database(connect, connection, database, state)
        for role in steps.drop_roles:
            await drop_role(connect, connection, role)


async def _run_together(connection: Connection, steps: Plan) -> None:
    if not steps.together:
        return
    # One simple query is one transaction and one round trip.
    batch = sql.SQL("; ").join(steps.together)
    for attempt in range(1, _RENAME_TRIES + 1):
        try:
            await connection.execute(batch)
        except psycopg.errors.ObjectInUse as error:
            # A client that came back between the end of its session and the renaming.
            if attempt == _RENAME_TRIES:
                raise failed("Changing roles and databases", error) from error
        except psycopg.Error as error:
            raise failed("Changing roles and databases", error) from error
        else:
            return


async def run(connection: Connection, statement: sql.Composed, what: str) -> None:
    """Run one statement, or several as one transaction. Raises `ChangeFailed` with `what` was tried."""
    try:
        await connection.execute(statement)
    except psycopg.Error as error:
        raise failed(what, error) from error


async def _drop_database(connect: Connect, connection: Connection, name: str, state: State | None) -> None:
    what = f'Dropping the database "{name}"'
    found = state.databases.get(name) if state else None
    database = sql.Identifier(name)
    if found and found.is_template:
        await run(connection, sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(database), what)
    if await fetch(connection, f"{_SUBSCRIPTIONS} WHERE d.datname = %s", (name,)):
        await _drop_subscriptions(connect, name)
    # A replication slot that is in use keeps its database from being dropped, even by force.
    await run(connection, end_sessions("datname", name), what)
    await run(connection, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database), what)


async def _drop_subscriptions(connect: Connect, database: str) -> None:
    """Without a word to the publisher: it may be gone, and a drop would wait for it."""
    async with session(connect, database) as connection:
        for (name,) in await fetch(connection, f"{_SUBSCRIPTIONS} WHERE d.datname = current_database()"):
            for statement in ("ALTER SUBSCRIPTION {} DISABLE", "ALTER SUBSCRIPTION {} SET (slot_name = NONE)"):
                await run(connection, sql.SQL(statement).format(sql.Identifier(name)), "Ending a subscription")
            drop = sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name))
            await run(connection, drop, "Ending a subscription")


async def drop_role(connect: Connect, connection: Connection, role: str) -> None:
    """Drop a role that is there; what it owns goes to `heir`. `connection` is in `postgres`. Raises `ChangeFailed`."""
    what = f'Dropping the role "{role}"'
    name = sql.Identifier(role)
    await run(connection, sql.SQL("ALTER ROLE {} NOLOGIN").format(name), what)
    await run(connection, end_sessions("usename", role), what)
    if NEON_SUPERUSER not in (await read_state(connection)).roles:
        raise ChangeFailed(what, f"the role {NEON_SUPERUSER}, which would get what it owns, is gone", permanent=True)
    owned_in = await fetch(connection, _OWNED_IN, (role,))
    # First where no user's database is: what belongs to none (databases themselves, privileges on them) goes along
    # with the first REASSIGN, and must not end up with the owner of whichever database comes first.
    await _disown(connection, role, NEON_SUPERUSER, what)
    for database, owner, owner_is_superuser, may_connect in owned_in:
        if not may_connect:
            statement = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(sql.Identifier(database))
            await run(connection, statement, what)
        async with session(connect, database) as inside:
            await _disown(inside, role, heir(role, owner, owner_is_superuser=owner_is_superuser), what)
    await run(connection, sql.SQL("DROP ROLE IF EXISTS {}").format(name), what)


async def _disown(connection: Connection, role: str, heir_name: str, what: str) -> None:
    name = sql.Identifier(role)
    statements = (
        sql.SQL("REASSIGN OWNED BY {} TO {}").format(name, sql.Identifier(heir_name)),
        sql.SQL("DROP OWNED BY {}").format(name),
    )
    await run(connection, sql.SQL("; ").join(statements), what)


async def create_slot(connection: Connection, slot: str) -> None:
    """Make a physical slot that keeps WAL from now on. No error if it is there. Raises `ChangeFailed`."""
    _check_slot(slot)
    statement = sql.SQL(
        "SELECT pg_create_physical_replication_slot({0}, true)"
        " WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {0})"
    )
    await run(connection, statement.format(sql.Literal(slot)), f"Making the slot {slot}")


async def drop_slot(connection: Connection, slot: str) -> None:
    """Drop a physical slot and end the standby's connection. No error if there is none. Raises `ChangeFailed`."""
    _check_slot(slot)
    literal = sql.Literal(slot)
    end = sql.SQL(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
        " WHERE slot_name = {} AND active_pid IS NOT NULL"
    )
    drop = sql.SQL("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {}")
    await run(connection, end.format(literal), f"Dropping the slot {slot}")
    await run(connection, drop.format(literal), f"Dropping the slot {slot}")


def _check_slot(slot: str) -> None:
    if not slot.startswith(SLOT_PREFIX):
        raise ChangeFailed(f"The slot {slot!r}", f"the platform's slots begin with {SLOT_PREFIX}")


async def reload(connection: Connection) -> tuple[str, ...]:
    """Have the configuration files read again, and return the names of what only a restart brings."""
    rows = await fetch(
        connection,
        "SELECT f.name FROM pg_file_settings f JOIN pg_settings s ON s.name = f.name"
        " WHERE s.context = 'postmaster' AND NOT f.applied AND f.error IS NOT NULL ORDER BY 1",
    )
    await fetch(connection, "SELECT pg_reload_conf()")
    return tuple(name for (name,) in rows)


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """A database of users. `size_bytes` is what its files take."""

    name: str
    owner: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RoleInfo:
    """A role of users; `from_api` if it is in `neon_superuser`, as those are that the API made."""

    name: str
    can_login: bool
    from_api: bool


async def list_databases(connection: Connection) -> list[DatabaseInfo]:
    """All databases but `postgres` and the templates."""
    rows = await fetch(
        connection,
        "SELECT datname, pg_get_userbyid(datdba), pg_database_size(oid) FROM pg_database"
        " WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY datname",
    )
    return [DatabaseInfo(*row) for row in rows]


async def database_sizes(connection: Connection) -> dict[str, int]:
    """Bytes of each database, with those of the platform."""
    rows = await fetch(connection, "SELECT datname, pg_database_size(oid) FROM pg_database")
    return {name: size for name, size in rows}  # noqa: C416 - rows are tuples of Any


async def list_roles(connection: Connection) -> list[RoleInfo]:
    """All roles but Postgres's own and the platform's."""
    rows = await fetch(
        connection,
        "SELECT r.rolname, r.rolcanlogin, EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
        " WHERE m.member = r.oid AND g.rolname = 'neon_superuser') FROM pg_roles r"
        " WHERE NOT r.rolsuper AND r.rolname NOT IN ('neon_superuser', %s) AND NOT starts_with(r.rolname, 'pg_')"
        " ORDER BY r.rolname",
        (COPIER,),
    )
    return [RoleInfo(*row) for row in rows]


async def count_connections(connection: Connection) -> int:
    """Sessions of users, the platform's own left out."""
    row = await _one(
        connection,
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender') AND usename <> %s",
        (SUPERUSER,),
    )
    return int(row[0])


async def is_working(connection: Connection) -> bool:
    """Whether a session of users is in the middle of something. A subscriber's walsender always is."""
    row = await _one(
        connection,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename <> %s AND (backend_type = 'walsender'"
        " OR backend_type = 'client backend' AND state <> 'idle'))",
        (SUPERUSER,),
    )
    return bool(row[0])


async def verifier(connection: Connection, role: str) -> str | None:
    """The SCRAM verifier of a role that may log in, the platform's own left out."""
    rows = await fetch(
        connection,
        "SELECT rolpassword FROM pg_authid WHERE rolname = %s AND rolcanlogin AND NOT rolsuper"
        " AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) AND rolpassword LIKE 'SCRAM-SHA-256$%%'",
        (role,),
    )
    return str(rows[0][0]) if rows else None


async def fetch(connection: Connection, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query. Raises `ChangeFailed`."""
    try:
        # Without parameters no plan is made on the server, so one round trip does.
        cursor = await connection.execute(query.encode(), parameters or None)
        return await cursor.fetchall()
    except psycopg.Error as error:
        raise failed("A query of the platform", error) from error


async def _one(connection: Connection, query: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    return (await fetch(connection, query, parameters))[0]


def failed(what: str, error: psycopg.Error) -> ChangeFailed:
    """The error in Postgres's own words, without the statement, which may hold a password."""
    said = " ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part) or str(error)
    if isinstance(error, psycopg.errors.LockNotAvailable):
        said = f"a session of users held a lock for too long ({said}); end it and try again"
    elif isinstance(error, psycopg.errors.QueryCanceled):
        said = f"it took too long ({said}); it may pass when the database is less busy"
    return ChangeFailed(what, said, permanent=is_permanent(error.sqlstate))
