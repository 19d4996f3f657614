"""Copy roles, databases and their schemas, without rows, from one running Postgres to another.

Roles, and what databases and roles have of privileges and settings, go by SQL, with verifiers, so that passwords stay
valid. What is in the databases goes through `pg_dump` and `pg_restore` of the build, see `copier.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from psycopg import sql

from lamplighter.compute.changes import NEON_SUPERUSER
from lamplighter.compute.config import COPIER
from lamplighter.compute.copier import PROGRAM_SECONDS, End, Programs, copier, copy_database
from lamplighter.compute.ports import PostgresBuild
from lamplighter.compute.sql import Connection, bounded, fetch, run, session

__all__ = ["End", "copy_schema"]

_ROLES = """
SELECT rolname, rolpassword, rolcanlogin, rolinherit, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication,
       rolconnlimit
FROM pg_authid WHERE NOT rolsuper AND NOT starts_with(rolname, 'pg_') AND rolname <> %s ORDER BY rolname
"""
_FLAGS = ("LOGIN", "INHERIT", "CREATEDB", "CREATEROLE", "BYPASSRLS", "REPLICATION")
# Several may have granted the same; what counts is all of it together. Options beside ADMIN came with 16.
_MEMBERS = """
SELECT g.rolname, r.rolname, bool_or(m.admin_option), {options} FROM pg_auth_members m
JOIN pg_authid g ON g.oid = m.roleid JOIN pg_authid r ON r.oid = m.member
WHERE NOT r.rolsuper AND NOT starts_with(r.rolname, 'pg_') AND NOT g.rolsuper AND %s NOT IN (g.rolname, r.rolname)
GROUP BY 1, 2 ORDER BY 1, 2
"""
_OPTIONS_16 = "bool_or(m.inherit_option), bool_or(m.set_option)"
_SETTINGS = """
SELECT r.rolname, d.datname, unnest(s.setconfig) FROM pg_db_role_setting s
LEFT JOIN pg_authid r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE (d.datname IS NOT NULL OR r.oid IS NOT NULL)
  AND (r.oid IS NULL OR (NOT r.rolsuper AND NOT starts_with(r.rolname, 'pg_') AND r.rolname <> %s))
  AND (d.datname IS NULL OR (d.datallowconn AND d.datname NOT IN ('postgres', 'template0', 'template1')))
"""
_DATABASES = """
SELECT datname, pg_get_userbyid(datdba) FROM pg_database
WHERE datallowconn AND datname NOT IN ('postgres', 'template0', 'template1') ORDER BY datname
"""
_PRIVILEGES = """
SELECT CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
FROM pg_database d, LATERAL aclexplode(d.datacl) a
WHERE d.datname = %s AND a.grantee <> to_regrole(%s)
"""
#: Settings whose value is a list of names that Postgres has quoted already.
_LISTS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries"})


async def copy_schema(
    source: End, target: End, build: PostgresBuild, drop: Iterable[str], *, seconds: float = PROGRAM_SECONDS
) -> None:
    """Make in `target` what `source` has, without rows. Roles and databases that are there are kept as they are.

    `drop` is the argv prefix that gives up root, `seconds` what each run of a program may take. Subscriptions stay
    behind. Raises `ChangeFailed`; then the target is to be thrown away.
    """
    source, target = (replace(end, connect=bounded(end.connect)) for end in (source, target))
    programs = Programs(build, tuple(drop), seconds)
    async with (
        session(source.connect, "postgres") as here,
        session(target.connect, "postgres") as there,
        copier(source, here, "pg_read_all_data"),
    ):
        await _copy_roles(here, there, build.major)
        databases = await fetch(here, _DATABASES)
        async with copier(target, there):
            await _make_databases(there, (name for name, _owner in databases))
            for name, _owner in databases:
                await _let_in(here, name)
                await copy_database(name, source, target, programs)
            for name, owner in databases:
                await _give_database(here, there, name, owner)
        # What is set for a database or a role would count for the copier too.
        await _copy_settings(here, there)


async def _copy_roles(here: Connection, there: Connection, major: int) -> None:
    present = dict(await fetch(there, "SELECT rolname, rolpassword FROM pg_authid"))
    for name, verifier, *flags, limit in await fetch(here, _ROLES, (COPIER,)):
        password = sql.SQL(" PASSWORD {}").format(sql.Literal(verifier)) if verifier else sql.SQL("")
        role = sql.Identifier(name)
        if name not in present:
            words = [word if flag else f"NO{word}" for word, flag in zip(_FLAGS, flags, strict=True)]
            statement = sql.SQL("CREATE ROLE {} {} CONNECTION LIMIT {}{}").format(
                role, sql.SQL(" ".join(words)), sql.Literal(limit), password
            )
        elif verifier and present[name] is None:
            # Made from the catalog, which stores no passwords when it was told so.
            statement = sql.SQL("ALTER ROLE {}{}").format(role, password)
        else:
            continue
        await run(there, statement, f'Copying the role "{name}"')
    await _copy_members(here, there, major)


async def _copy_members(here: Connection, there: Connection, major: int) -> None:
    query = _MEMBERS.format(options=_OPTIONS_16 if major >= 16 else "true, true")
    known = set(await fetch(there, query, (COPIER,)))
    for row in await fetch(here, query, (COPIER,)):
        if row in known:
            continue
        group, member, *flags = row
        options = " WITH ADMIN OPTION" if flags[0] else ""
        if major >= 16:
            words = zip(("ADMIN", "INHERIT", "SET"), flags, strict=True)
            options = " WITH " + ", ".join(f"{word} {'TRUE' if flag else 'FALSE'}" for word, flag in words)
        statement = sql.SQL("GRANT {} TO {}" + options).format(sql.Identifier(group), sql.Identifier(member))
        await run(there, statement, f'Copying the membership of "{member}"')


async def _make_databases(there: Connection, names: Iterable[str]) -> None:
    """With the copier as their owner, for it makes all that is in them."""
    present = {row[0] for row in await fetch(there, "SELECT datname FROM pg_database")}
    for name in names:
        verb = "ALTER DATABASE {} OWNER TO {}" if name in present else "CREATE DATABASE {} OWNER {} TEMPLATE template1"
        statement = sql.SQL(verb).format(sql.Identifier(name), sql.Identifier(COPIER))
        await run(there, statement, f'Copying the database "{name}"')


async def _let_in(here: Connection, name: str) -> None:
    """Where PUBLIC may not connect. Not elsewhere: a database without any grant is to stay one."""
    query = "SELECT has_database_privilege(%s::text, %s::text, 'CONNECT')"
    if not (await fetch(here, query, (COPIER, name)))[0][0]:
        grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(name), sql.Identifier(COPIER))
        await run(here, grant, f'Reading the database "{name}"')


async def _give_database(here: Connection, there: Connection, name: str, owner: str) -> None:
    """Owner and privileges, which are no part of what pg_dump writes for the content of a database."""
    database = sql.Identifier(name)
    statements = [sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(owner))]
    privileges = await fetch(here, _PRIVILEGES, (name, COPIER))
    if privileges:
        statements.append(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    for grantee, privilege, grantable in privileges:
        grant = sql.SQL(f"GRANT {privilege} ON DATABASE {{}} TO {{}}" + (" WITH GRANT OPTION" if grantable else ""))
        whom = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
        statements.append(grant.format(database, whom))
    group = sql.Identifier(NEON_SUPERUSER)
    statements.append(sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(database, group))
    await run(there, sql.SQL("; ").join(statements), f'Copying the privileges of the database "{name}"')


async def _copy_settings(here: Connection, there: Connection) -> None:
    for role, database, setting in await fetch(here, _SETTINGS, (COPIER,)):
        name, _, value = str(setting).partition("=")
        whom = sql.SQL("ALTER DATABASE {}").format(sql.Identifier(str(database)))
        if role is not None:
            whom = sql.SQL("ALTER ROLE {}").format(sql.Identifier(str(role)))
            if database is not None:
                whom += sql.SQL(" IN DATABASE {}").format(sql.Identifier(str(database)))
        # Dotted names are two identifiers to nobody: Postgres wants them unquoted, and lets no others be stored.
        shown = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
        literal: sql.Composable = sql.SQL(value) if name.lower() in _LISTS else sql.Literal(value)
        await run(there, whom + sql.SQL(" SET {} TO ").format(shown) + literal, f"Copying the setting {name}")
