"""Copy roles, databases and their schemas, without rows, from one running Postgres to another.

Roles go by SQL with their verifiers, so that passwords stay valid; what is in the databases goes through `pg_dump` and
`pg_restore` of the build, which know best how to.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psycopg
from psycopg import sql

from lamplighter.compute.config import SUPERUSER
from lamplighter.compute.errors import ChangeFailed
from lamplighter.compute.launcher import environment
from lamplighter.compute.ports import PostgresBuild
from lamplighter.compute.sql import Connect, Connection, session

_ROLES = """
SELECT rolname, rolpassword, rolcanlogin, rolinherit, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication,
       rolconnlimit
FROM pg_authid WHERE NOT rolsuper AND NOT starts_with(rolname, 'pg_') ORDER BY rolname
"""
_FLAGS = ("LOGIN", "INHERIT", "CREATEDB", "CREATEROLE", "BYPASSRLS", "REPLICATION")
_MEMBERS = """
SELECT g.rolname, r.rolname, m.admin_option FROM pg_auth_members m
JOIN pg_authid g ON g.oid = m.roleid JOIN pg_authid r ON r.oid = m.member
WHERE NOT r.rolsuper AND NOT starts_with(r.rolname, 'pg_') AND NOT g.rolsuper ORDER BY 1, 2
"""
_SETTINGS = """
SELECT r.rolname, d.datname, unnest(s.setconfig) FROM pg_db_role_setting s
LEFT JOIN pg_authid r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE r.oid IS NULL OR (NOT r.rolsuper AND NOT starts_with(r.rolname, 'pg_'))
"""
_DATABASES = """
SELECT datname, pg_get_userbyid(datdba) FROM pg_database
WHERE datallowconn AND datname NOT IN ('postgres', 'template0', 'template1') ORDER BY datname
"""
#: Settings whose value is a list of names that Postgres has quoted already.
_LISTS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries"})


@dataclass(frozen=True, slots=True)
class End:
    """One of the two Postgres: sessions of its superuser, and where libpq's programs find it."""

    connect: Connect
    socket_dir: Path
    port: int

    def arguments(self) -> tuple[str, ...]:
        return ("--host", str(self.socket_dir), "--port", str(self.port), "--username", SUPERUSER, "--no-password")


async def copy_schema(source: End, target: End, build: PostgresBuild, drop: Iterable[str]) -> None:
    """Make in `target` what `source` has, without rows. Roles and databases that are there are kept as they are.

    `drop` is the argv prefix that gives up root. Raises `ChangeFailed`; then the target is to be thrown away.
    """
    async with session(source.connect, "postgres") as here, session(target.connect, "postgres") as there:
        await _copy_roles(here, there)
        databases = await _rows(here, _DATABASES)
        await _make_databases(there, databases)
        await _copy_settings(here, there)
    for name, _owner in databases:
        await _copy_database(str(name), source, target, build, tuple(drop))


async def _copy_roles(here: Connection, there: Connection) -> None:
    present = {row[0] for row in await _rows(there, "SELECT rolname FROM pg_authid")}
    for name, verifier, *flags, limit in await _rows(here, _ROLES):
        if name in present:
            continue
        words = [word if flag else f"NO{word}" for word, flag in zip(_FLAGS, flags, strict=True)]
        password = sql.SQL(" PASSWORD {}").format(sql.Literal(verifier)) if verifier else sql.SQL("")
        statement = sql.SQL("CREATE ROLE {} {} CONNECTION LIMIT {}{}").format(
            sql.Identifier(str(name)), sql.SQL(" ".join(words)), sql.Literal(limit), password
        )
        await _run(there, statement, f'Copying the role "{name}"')
    known = {(row[0], row[1], row[2]) for row in await _rows(there, _MEMBERS)}
    for group, member, admin in await _rows(here, _MEMBERS):
        if (group, member, admin) in known:
            continue
        statement = sql.SQL("GRANT {} TO {}" + (" WITH ADMIN OPTION" if admin else "")).format(
            sql.Identifier(str(group)), sql.Identifier(str(member))
        )
        await _run(there, statement, f'Copying the membership of "{member}"')


async def _make_databases(there: Connection, databases: Iterable[tuple[object, ...]]) -> None:
    present = {row[0] for row in await _rows(there, "SELECT datname FROM pg_database")}
    for name, owner in databases:
        database, owned_by = sql.Identifier(str(name)), sql.Identifier(str(owner))
        if name in present:
            statement = sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, owned_by)
        else:
            statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template1").format(database, owned_by)
        await _run(there, statement, f'Copying the database "{name}"')
        # Privileges on a database are no part of what pg_dump writes for its content.
        grant = sql.SQL("GRANT ALL ON DATABASE {} TO neon_superuser").format(database)
        await _run(there, grant, f'Copying the database "{name}"')


async def _copy_settings(here: Connection, there: Connection) -> None:
    for role, database, setting in await _rows(here, _SETTINGS):
        name, _, value = str(setting).partition("=")
        whom = sql.SQL("ALTER DATABASE {}").format(sql.Identifier(str(database)))
        if role is not None:
            whom = sql.SQL("ALTER ROLE {}").format(sql.Identifier(str(role)))
            if database is not None:
                whom += sql.SQL(" IN DATABASE {}").format(sql.Identifier(str(database)))
        # Dotted names are two identifiers to nobody: Postgres wants them unquoted, and lets no others be stored.
        shown = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
        literal: sql.Composable = sql.SQL(value) if name.lower() in _LISTS else sql.Literal(value)
        await _run(there, whom + sql.SQL(" SET {} TO ").format(shown) + literal, f"Copying the setting {name}")


async def _copy_database(name: str, source: End, target: End, build: PostgresBuild, drop: tuple[str, ...]) -> None:
    """By a file and not by a pipe, so that a failure of either side is known for sure."""
    with tempfile.TemporaryFile() as archive, tempfile.TemporaryFile() as said:
        dump = [*drop, str(build.program("pg_dump")), *source.arguments(), "--schema-only", "--format=custom"]
        await _program([*dump, "--dbname", _conninfo(name)], build, said, output=archive)
        archive.seek(0)
        restore = [*drop, str(build.program("pg_restore")), *target.arguments(), "--exit-on-error"]
        await _program([*restore, "--single-transaction", "--dbname", _conninfo(name)], build, said, source=archive)


def _conninfo(database: str) -> str:
    """A database whose name looks like a connection string must not be taken for one."""
    return psycopg.conninfo.make_conninfo(dbname=database, sslmode="disable", gssencmode="disable")


async def _program(
    argv: list[str],
    build: PostgresBuild,
    said: IO[bytes],
    *,
    source: IO[bytes] | None = None,
    output: IO[bytes] | None = None,
) -> None:
    running = await asyncio.create_subprocess_exec(
        *argv,
        stdin=source if source is not None else asyncio.subprocess.DEVNULL,
        stdout=output if output is not None else asyncio.subprocess.DEVNULL,
        stderr=said,
        env=environment(build.environment()),
        cwd=os.sep,
    )
    try:
        status = await running.wait()
    except BaseException:
        running.kill()
        await running.wait()
        raise
    if status:
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        program = next(Path(word).name for word in argv if Path(word).name.startswith("pg_"))
        raise ChangeFailed(program, lines[-1] if lines else f"it ended with status {status}")


async def _rows(connection: Connection, query: str) -> list[tuple[object, ...]]:
    try:
        return await (await connection.execute(query.encode())).fetchall()
    except psycopg.Error as error:
        raise ChangeFailed("Reading a schema", str(error)) from error


async def _run(connection: Connection, statement: sql.Composed, what: str) -> None:
    try:
        await connection.execute(statement)
    except psycopg.Error as error:
        raise ChangeFailed(what, error.diag.message_primary or str(error)) from error
