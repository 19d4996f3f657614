"""Move what is in one database to another Postgres as a role that may do next to nothing.

A schema is its users' code: the bound of a partition, an index or a constraint calls their functions while it is
restored. So neither `pg_dump` nor `pg_restore` runs it as a superuser. The role `COPIER` owns the target's database and
all that it makes there; what only a superuser may do (owners, privileges) follows, and calls nobody's code.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psycopg
from psycopg import sql

from lamplighter.compute.config import COPIER, SUPERUSER
from lamplighter.compute.errors import ChangeFailed
from lamplighter.compute.launcher import environment
from lamplighter.compute.ports import PostgresBuild
from lamplighter.compute.sql import Connect, Connection, connect_options, drop_role, fetch, run, session

#: Seconds for one `pg_dump` or `pg_restore`. A schema of 100,000 tables takes some minutes.
PROGRAM_SECONDS = 1800.0
_LOCK_WAIT_MS = 30_000
_MARK = "Made by the platform for the copy of a schema"
#: Any number: who works with the role holds it shared, who drops the role holds it alone.
_LOCK = 4_017_236_991_205
#: Held while the role is made.
_MAKING = _LOCK + 1

#: Entries of an archive by what their line in its list begins with, after the ids.
_SCHEMAS = ("SCHEMA ",)
_RIGHTS = ("ACL ", "DEFAULT ACL ")
#: Extensions are made before. A subscription would go to its publisher; the rest only a superuser can have made.
_LEFT_OUT = (
    *("EXTENSION ", "COMMENT - EXTENSION ", "SUBSCRIPTION ", "SUBSCRIPTION TABLE ", "COMMENT - SUBSCRIPTION "),
    *("EVENT TRIGGER ", "COMMENT - EVENT TRIGGER ", "SECURITY LABEL "),
)
_ENTRY = re.compile(r"\d+; \d+ \d+ (.*)")

#: What pg_identify_object calls a thing, and what ALTER does.
_ALTER = {
    "table": "TABLE",
    "view": "VIEW",
    "materialized view": "MATERIALIZED VIEW",
    "foreign table": "FOREIGN TABLE",
    "sequence": "SEQUENCE",
    "type": "TYPE",
    "schema": "SCHEMA",
    "server": "SERVER",
    "publication": "PUBLICATION",
    # ALTER AGGREGATE wants a star for no arguments, ALTER ROUTINE takes what pg_identify_object says.
    "function": "ROUTINE",
    "procedure": "ROUTINE",
    "aggregate": "ROUTINE",
    "collation": "COLLATION",
    "conversion": "CONVERSION",
    "statistics object": "STATISTICS",
    "operator": "OPERATOR",
    "operator class": "OPERATOR CLASS",
    "operator family": "OPERATOR FAMILY",
    "text search configuration": "TEXT SEARCH CONFIGURATION",
    "text search dictionary": "TEXT SEARCH DICTIONARY",
}

# A sequence of a column follows its table.
_OWNERS = """
SELECT i.type, i.identity, o.rolname
FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid JOIN pg_authid o ON o.oid = s.refobjid,
LATERAL pg_identify_object(s.classid, s.objid, s.objsubid) i
WHERE d.datname = current_database() AND s.deptype = 'o' AND s.refclassid = 'pg_authid'::regclass
  AND i.identity IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_depend p JOIN pg_class c ON c.oid = p.objid WHERE s.classid = 'pg_class'::regclass
    AND p.classid = s.classid AND p.objid = s.objid AND c.relkind = 'S' AND p.deptype IN ('a', 'i'))
ORDER BY s.classid, s.objid
"""
_PUBLIC_OWNER = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'"
_EXTENSIONS = """
SELECT e.extname, n.nspname, o.rolname, o.rolsuper FROM pg_extension e
JOIN pg_namespace n ON n.oid = e.extnamespace JOIN pg_authid o ON o.oid = e.extowner
WHERE e.extname <> 'plpgsql' ORDER BY e.oid
"""
_MAPPINGS = """
SELECT m.srvname, m.usename, o.option_name, o.option_value
FROM pg_user_mappings m, LATERAL pg_options_to_table(m.umoptions) o ORDER BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class End:
    """One of the two Postgres: sessions of its superuser, and where libpq's programs find it."""

    connect: Connect
    socket_dir: Path
    port: int

    def arguments(self, user: str) -> tuple[str, ...]:
        return ("--host", str(self.socket_dir), "--port", str(self.port), "--username", user, "--no-password")


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of a build. `drop` is the argv prefix that gives up root; `seconds` is what each may take."""

    build: PostgresBuild
    drop: tuple[str, ...] = ()
    seconds: float = PROGRAM_SECONDS


@dataclass(frozen=True, slots=True)
class Contents:
    """Lines of an archive's list: what is restored first, next, and as the superuser at the end."""

    schemas: tuple[str, ...]
    rest: tuple[str, ...]
    rights: tuple[str, ...]


def split_list(text: str) -> Contents:
    """Sort the lines of `pg_restore --list`. The kind comes right after the ids, where no name can imitate it. Pure."""
    schemas: list[str] = []
    rest: list[str] = []
    rights: list[str] = []
    for line in text.splitlines():
        found = _ENTRY.match(line)
        if found is None or found[1].startswith(_LEFT_OUT):
            continue
        kind = schemas if found[1].startswith(_SCHEMAS) else rights if found[1].startswith(_RIGHTS) else rest
        kind.append(line)
    return Contents(tuple(schemas), tuple(rest), tuple(rights))


def owner_statements(
    source: Iterable[tuple[str, str, str]], target: Iterable[tuple[str, str, str]]
) -> list[sql.Composed]:
    """What gives the copier's objects to those who own them in the source. Triples of type, identity, owner. Pure.

    An identity is Postgres's own, quoted and qualified. What the source no longer has stays for `drop_role`.
    """
    owners = {(kind, identity): owner for kind, identity, owner in source}
    statements = []
    for kind, identity, owner in target:
        wanted = owners.get((kind, identity))
        if owner == COPIER and wanted is not None and kind in _ALTER:
            start = sql.SQL(f"ALTER {_ALTER[kind]} ") + sql.SQL(identity)
            statements.append(start + sql.SQL(" OWNER TO ") + sql.Identifier(wanted))
    return statements


@asynccontextmanager
async def copier(end: End, connection: Connection, rights: str = "") -> AsyncIterator[None]:
    """The role, for as long as it is needed, with membership in `rights`. `connection` is in `postgres`.

    Raises `ChangeFailed`. Copies at the same time share it; one that a crash left is used again.
    """
    what = "Making the role that copies"
    await run(connection, _lock("pg_advisory_lock_shared"), what)
    # A role that is not ours is not removed either: until here nothing was made, and the lock ends with the session.
    # One maker at a time: two at once would both find no role, and one of them fail.
    await run(connection, _lock("pg_advisory_lock", _MAKING), what)
    try:
        await _make(connection, rights, what)
    finally:
        await run(connection, _lock("pg_advisory_unlock", _MAKING), what)
    try:
        yield
    except BaseException:
        # What went wrong before is worth more than what goes wrong now.
        with contextlib.suppress(ChangeFailed, psycopg.Error):
            await _remove(end, connection)
        raise
    await _remove(end, connection)


async def _make(connection: Connection, rights: str, what: str) -> None:
    name = sql.Identifier(COPIER)
    found = await fetch(
        connection, "SELECT shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname = %s", (COPIER,)
    )
    if found and found[0][0] != _MARK:
        raise ChangeFailed(what, f'a role "{COPIER}" exists already, made by SQL; rename it', permanent=True)
    verb = "ALTER" if found else "CREATE"
    attributes = "LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD NULL"
    statements = [
        sql.SQL(f"{verb} ROLE ") + name + sql.SQL(f" {attributes}"),
        sql.SQL("COMMENT ON ROLE ") + name + sql.SQL(" IS ") + sql.Literal(_MARK),
    ]
    if rights:
        statements.append(sql.SQL("GRANT ") + sql.Identifier(rights) + sql.SQL(" TO ") + name)
    await run(connection, sql.SQL("; ").join(statements), what)


async def _remove(end: End, connection: Connection) -> None:
    what = "Removing the role that copies"
    await run(connection, _lock("pg_advisory_unlock_shared"), what)
    ((alone,),) = await fetch(connection, "SELECT pg_try_advisory_lock(%s)", (_LOCK,))
    if not alone:
        # Another copy still works with it, and removes it.
        return
    try:
        await drop_role(end.connect, connection, COPIER)
    finally:
        await run(connection, _lock("pg_advisory_unlock"), what)


def _lock(function: str, number: int = _LOCK) -> sql.Composed:
    return sql.SQL(f"SELECT pg_catalog.{function}(") + sql.Literal(number) + sql.SQL(")")


async def copy_database(name: str, source: End, target: End, programs: Programs) -> None:
    """Bring what is in the database `name`, without rows, into the target's, which `COPIER` owns and which is empty.

    By a file and not by a pipe, so that a failure of either side is known for sure. Raises `ChangeFailed`.
    """
    with tempfile.TemporaryFile() as archive:
        options = ("--schema-only", "--format=custom", "--no-subscriptions", f"--lock-wait-timeout={_LOCK_WAIT_MS}")
        dump = ("pg_dump", *source.arguments(COPIER), *options, "--dbname", _conninfo(name))
        await _program(dump, programs, output=archive)
        restore = functools.partial(_restore, name=name, target=target, programs=programs, archive=archive)
        contents = split_list(await _list(archive, programs))
        async with session(source.connect, name) as here, session(target.connect, name) as there:
            await _settle_public(here, there)
            await restore(contents.schemas, COPIER)
            # Before there is any code of users.
            await _make_extensions(here, there, name)
            await restore(contents.rest, COPIER)
            await _end_copier(there)
            await _give_away(here, there)
            await _copy_mappings(here, there)
        await restore(contents.rights, SUPERUSER)


async def _end_copier(there: Connection) -> None:
    """What a function of users left running as the copier."""
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
    await fetch(there, statement, (COPIER,))


async def _settle_public(here: Connection, there: Connection) -> None:
    """Every database begins with a schema `public`; pg_dump does not say that there is none any more."""
    if not await fetch(here, _PUBLIC_OWNER) and await fetch(there, _PUBLIC_OWNER):
        await run(there, sql.Composed([sql.SQL("DROP SCHEMA public")]), "Dropping the schema public")


async def _make_extensions(here: Connection, there: Connection, database: str) -> None:
    """As their owners: the script of a trusted one runs as the superuser all the same."""
    for extension, schema, owner, owner_is_superuser in await fetch(here, _EXTENSIONS):
        create = sql.SQL("CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA {} CASCADE").format(
            sql.Identifier(extension), sql.Identifier(schema)
        )
        statements = [create]
        if not owner_is_superuser:
            names = (sql.Identifier(database), sql.Identifier(owner))
            statements = [
                sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(*names),
                sql.SQL("SET LOCAL ROLE {}").format(names[1]),
                create,
                sql.SQL("SET LOCAL ROLE NONE").format(),
                sql.SQL("REVOKE CREATE ON DATABASE {} FROM {}").format(*names),
            ]
        await run(there, sql.SQL("; ").join(statements), f'Making the extension "{extension}"')
    for (wrapper,) in await fetch(there, "SELECT fdwname FROM pg_foreign_data_wrapper"):
        grant = sql.SQL("GRANT USAGE ON FOREIGN DATA WRAPPER {} TO {}")
        await run(there, grant.format(sql.Identifier(wrapper), sql.Identifier(COPIER)), "Making the extensions")


async def _give_away(here: Connection, there: Connection) -> None:
    what = "Giving what was copied to its owners"
    statements = owner_statements(await fetch(here, _OWNERS), await fetch(there, _OWNERS))
    for at in range(0, len(statements), 200):
        await run(there, sql.SQL("; ").join(statements[at : at + 200]), what)
    wanted, found = await fetch(here, _PUBLIC_OWNER), await fetch(there, _PUBLIC_OWNER)
    if wanted and found and wanted != found:
        statement = sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(wanted[0][0]))
        await run(there, statement, what)


async def _copy_mappings(here: Connection, there: Connection) -> None:
    """The options of user mappings, with passwords in them: Postgres shows them to nobody who is no superuser."""
    present = {row[:3] for row in await fetch(there, _MAPPINGS)}
    for server, user, option, value in await fetch(here, _MAPPINGS):
        if (server, user, option) in present:
            continue
        statement = sql.SQL("ALTER USER MAPPING FOR {} SERVER {} OPTIONS (ADD {} {})").format(
            sql.SQL("PUBLIC") if user == "public" else sql.Identifier(user),
            *(sql.Identifier(server), sql.Identifier(option), sql.Literal(value)),
        )
        await run(there, statement, f'Copying the user mapping of "{server}"')


async def _list(archive: IO[bytes], programs: Programs) -> str:
    with tempfile.TemporaryFile() as listed:
        await _program(("pg_restore", "--list"), programs, source=archive, output=listed)
        listed.seek(0)
        return listed.read().decode(errors="surrogateescape")


async def _restore(
    entries: tuple[str, ...], user: str, *, name: str, target: End, programs: Programs, archive: IO[bytes]
) -> None:
    if not entries:
        return
    with tempfile.TemporaryFile() as chosen:
        chosen.write("".join(f"{line}\n" for line in entries).encode(errors="surrogateescape"))
        chosen.flush()
        # The file has no name; the program opens it anew through its descriptor, as a user who does not own it.
        os.fchmod(chosen.fileno(), 0o644)
        options = ("--exit-on-error", "--single-transaction", "--no-owner", f"--use-list=/dev/fd/{chosen.fileno()}")
        command = ("pg_restore", *target.arguments(user), *options, "--dbname", _conninfo(name, user))
        await _program(command, programs, source=archive, share=(chosen.fileno(),))


def _conninfo(database: str, user: str = COPIER) -> str:
    """A database whose name looks like a connection string must not be taken for one."""
    options = connect_options(superuser=user == SUPERUSER)
    return psycopg.conninfo.make_conninfo(dbname=database, sslmode="disable", gssencmode="disable", options=options)


async def _program(
    command: tuple[str, ...],
    programs: Programs,
    *,
    source: IO[bytes] | None = None,
    output: IO[bytes] | None = None,
    share: tuple[int, ...] = (),
) -> None:
    if source is not None:
        source.seek(0)
    with tempfile.TemporaryFile() as said:
        running = await asyncio.create_subprocess_exec(
            *(*programs.drop, str(programs.build.program(command[0])), *command[1:]),
            stdin=source if source is not None else asyncio.subprocess.DEVNULL,
            stdout=output if output is not None else asyncio.subprocess.DEVNULL,
            stderr=said,
            env=environment(programs.build.environment()),
            cwd=os.sep,
            pass_fds=share,
        )
        try:
            async with asyncio.timeout(programs.seconds):
                status = await running.wait()
        except TimeoutError:
            await _kill(running)
            raise ChangeFailed(
                command[0], f"it was ended because it took more than {programs.seconds:g} seconds", permanent=True
            ) from None
        except BaseException:
            await _kill(running)
            raise
        if status:
            said.seek(0)
            text = said.read().decode(errors="replace")
            raise ChangeFailed(
                command[0], first_error(text) or f"it ended with status {status}", permanent=not passes(text)
            )


async def _kill(running: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        running.kill()
    await running.wait()


def first_error(text: str) -> str:
    """The line of a program's output that says what went wrong: later ones are consequences. Empty for none. Pure."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # The first of all may be a warning.
    return next((line for line in lines if "error:" in line or "ERROR:" in line), lines[-1] if lines else "")


_PASSING = (
    *("connection to server", "server closed the connection", "terminating connection", "lost synchronization"),
    *("lock timeout", "statement timeout", "No space left", "out of memory"),
)


def passes(text: str) -> bool:
    """Whether another attempt of the program may go well: it had no connection, or waited for a lock. Pure."""
    return any(words in text for words in _PASSING)
