"""Decide which statements bring a Postgres from what it has to what `Changes` asks for.

Apart from psycopg's quoting this is pure: the state is read, and the statements are run, by `sql.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from lamplighter.compute import scram
from lamplighter.compute.config import COPIER, SUPERUSER
from lamplighter.compute.errors import ChangeFailed, ReservedName
from lamplighter.compute.ports import Changes, DatabaseSpec, RoleSpec

#: The role that stands for what an owner may do; the API's roles are members of it, as at Neon.
NEON_SUPERUSER = "neon_superuser"
#: As written: Postgres tells `Postgres` from `postgres`. The latter is here because tools take it for the superuser.
RESERVED_ROLES = frozenset(
    {
        *(SUPERUSER, COPIER, NEON_SUPERUSER, "postgres"),
        *("public", "none", "current_user", "session_user", "current_role"),
    }
)
RESERVED_DATABASES = frozenset({"postgres", "template0", "template1"})

#: The comment on a role that the platform made, by which a second attempt knows the first one's.
ROLE_MARK = "Made by Lamplighter"

#: By whether the role may replicate.
_ATTRIBUTES = {
    False: sql.SQL("LOGIN INHERIT CREATEDB CREATEROLE BYPASSRLS NOREPLICATION NOSUPERUSER"),
    True: sql.SQL("LOGIN INHERIT CREATEDB CREATEROLE BYPASSRLS REPLICATION NOSUPERUSER"),
}


def is_reserved_role(name: str) -> bool:
    """Whether users may not have a role of that name. Postgres keeps `pg_` for itself."""
    return name in RESERVED_ROLES or name.startswith("pg_")


@dataclass(frozen=True, slots=True)
class RoleState:
    """A role that is there. `complete`: it has the attributes of the API's roles and is in `neon_superuser`.

    `marked`: the platform made it. `replication`: it has that attribute, which not all of them get.
    """

    complete: bool
    verifier: str | None = None
    marked: bool = False
    replication: bool = False


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """A database that is there."""

    owner: str
    is_template: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What one Postgres has. `major` is its version, 14 to 18."""

    major: int
    roles: Mapping[str, RoleState] = field(default_factory=dict)
    databases: Mapping[str, DatabaseState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, in this order.

    `together` is one transaction; `singly` are statements that Postgres takes in none; then `drop_databases` and
    `drop_roles`, which need looks into databases.
    """

    together: tuple[sql.Composed, ...]
    singly: tuple[sql.Composed, ...]
    drop_databases: tuple[str, ...]
    drop_roles: tuple[str, ...]


def check_names(changes: Changes) -> None:
    """Raise `ReservedName` for what is not the API's to make or drop."""
    for role in (*(role.name for role in changes.roles), *changes.drop_roles):
        if is_reserved_role(role):
            raise ReservedName("role", role)
    databases = [name for each in changes.databases for name in (each.name, each.was) if name]
    for database in (*databases, *changes.drop_databases):
        if database in RESERVED_DATABASES:
            raise ReservedName("database", database)


def plan(state: State, changes: Changes, salt: Callable[[], bytes]) -> Plan:
    """What is to be done. `salt` gives 16 random bytes for each password that is set.

    Raises `ReservedName`, and `ChangeFailed` when a name is taken by what users made by SQL.
    """
    check_names(changes)
    together: list[sql.Composed] = []
    singly: list[sql.Composed] = []
    if changes.roles and NEON_SUPERUSER not in state.roles:
        together += _make_neon_superuser(state.major)
    for role in changes.roles:
        together += _role(role, state.roles.get(role.name), salt)
    present = dict(state.databases)
    for database in _in_order(changes.databases, present):
        former, found = _find(database, present)
        if found is None:
            singly.append(_create(database))
            singly.append(_grant(database.name))
        else:
            together += _alter(database, former, found)
            del present[former]
        present[database.name] = DatabaseState(database.owner)
    return Plan(
        tuple(together),
        tuple(singly),
        tuple(name for name in changes.drop_databases if name in state.databases),
        tuple(name for name in changes.drop_roles if name in state.roles),
    )


def neon_superuser_statements(major: int, *, subscriptions: bool) -> tuple[str, ...]:
    """What makes `neon_superuser`, and closes what its members must not reach. Pure.

    `subscriptions` tells whether users may make them, where Postgres lets others than superusers (16 and later).
    """
    managed = ["pg_monitor", "pg_signal_backend"]
    functions = ["pg_export_snapshot()", "pg_show_replication_origin_status()"]
    if major >= 16 and subscriptions:
        managed.append("pg_create_subscription")
    if major >= 16:
        functions.append("pg_log_standby_snapshot()")
    statements = [
        f"CREATE ROLE {NEON_SUPERUSER} NOLOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS",
        f"GRANT pg_read_all_data, pg_write_all_data TO {NEON_SUPERUSER}",
        f"GRANT {', '.join(managed)} TO {NEON_SUPERUSER} WITH ADMIN OPTION",
        f"GRANT EXECUTE ON FUNCTION {', '.join(functions)} TO {NEON_SUPERUSER}",
    ]
    if major < 16:
        # Before 16 CREATEROLE may grant any role but superusers, and so the roles that read files and run programs of
        # the host. Nobody is a member of these three and the attribute is not inherited: it only closes that door.
        statements.append(
            "UPDATE pg_catalog.pg_authid SET rolsuper = true WHERE rolname IN "
            "('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')"
        )
    return tuple(statements)


def _make_neon_superuser(major: int) -> list[sql.Composed]:
    """For a cluster that is no clone of the template. Whether its libpq may be lent to subscriptions nobody checked."""
    statements = neon_superuser_statements(major, subscriptions=False)
    return [sql.Composed([sql.SQL(statement)]) for statement in statements]


def _role(role: RoleSpec, found: RoleState | None, salt: Callable[[], bytes]) -> list[sql.Composed]:
    name = sql.Identifier(role.name)
    password: sql.Composable = sql.SQL("")
    if role.password is not None and not (found and found.verifier and scram.matches(role.password, found.verifier)):
        password = sql.SQL(" PASSWORD {}").format(sql.Literal(scram.verifier(role.password, salt())))
    if found is None:
        group = sql.Identifier(NEON_SUPERUSER)
        return [
            sql.SQL("CREATE ROLE {} {}{} IN ROLE {}").format(name, _ATTRIBUTES[role.replication], password, group),
            sql.SQL("COMMENT ON ROLE {} IS {}").format(name, sql.Literal(ROLE_MARK)),
        ]
    if role.new and not found.marked:
        raise _taken("role", role.name)
    statements: list[sql.Composed] = []
    if not found.complete or found.replication != role.replication or password != sql.SQL(""):
        statements.append(sql.SQL("ALTER ROLE {} {}{}").format(name, _ATTRIBUTES[role.replication], password))
    if not found.complete:
        statements.append(sql.SQL("GRANT {} TO {}").format(sql.Identifier(NEON_SUPERUSER), name))
    return statements


def _taken(kind: str, name: str) -> ChangeFailed:
    return ChangeFailed(
        f'Making the {kind} "{name}"',
        f"a {kind} of that name exists already, made by SQL; rename or drop it by SQL, or choose another name",
        permanent=True,
    )


def _in_order(databases: Iterable[DatabaseSpec], present: Mapping[str, DatabaseState]) -> list[DatabaseSpec]:
    """Renamings first, and of those first what frees a name that another one waits for."""
    renamed = [each for each in databases if each.was not in (None, each.name) and each.was in present]
    rest = [each for each in databases if each not in renamed]
    ordered: list[DatabaseSpec] = []
    while renamed:
        held = {each.was for each in renamed}
        # In a circle nobody is free: then the first one fails for the name that it wants.
        free = next((each for each in renamed if each.name not in held), renamed[0])
        renamed.remove(free)
        ordered.append(free)
    return ordered + rest


def _find(database: DatabaseSpec, present: Mapping[str, DatabaseState]) -> tuple[str, DatabaseState | None]:
    """The name that the database has now, and its state. Raises `ChangeFailed` when it is another one's.

    The wanted name means that the renaming is done already only when the former name is gone.
    """
    name, former = database.name, database.was
    found = present.get(name)
    if former is not None and former != name and former in present:
        if found is not None:
            raise _taken("database", name)
        return former, present[former]
    # The platform's own is the template's, which is handed over.
    if found is not None and database.new and found.owner not in (database.owner, SUPERUSER):
        raise _taken("database", name)
    return name, found


def _create(database: DatabaseSpec) -> sql.Composed:
    # Of template1, in which the platform has granted what users need; pg_hba.conf keeps them out of it.
    statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template1")
    return statement.format(sql.Identifier(database.name), sql.Identifier(database.owner))


def _grant(name: str) -> sql.Composed:
    return sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(sql.Identifier(name), sql.Identifier(NEON_SUPERUSER))


def _alter(database: DatabaseSpec, former: str, found: DatabaseState) -> list[sql.Composed]:
    name = sql.Identifier(database.name)
    statements: list[sql.Composed] = []
    if former != database.name:
        statements.append(end_sessions("datname", former))
        statements.append(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(former), name))
    if found.owner != database.owner:
        statements.append(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(database.owner)))
    if statements:
        statements.append(_grant(database.name))
    return statements


def end_sessions(column: str, value: str) -> sql.Composed:
    """End the sessions of a database (`datname`) or a role (`usename`)."""
    return sql.SQL(
        "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity"
        " WHERE {} = {} AND pid <> pg_catalog.pg_backend_pid()"
    ).format(sql.Identifier(column), sql.Literal(value))


def heir(role: str, owner: str, *, owner_is_superuser: bool) -> str:
    """Who gets what a dropped role owned in a database of `owner`.

    Never a superuser: a SECURITY DEFINER function, or the expression of an index, would run as one from then on.
    """
    return NEON_SUPERUSER if owner == role or owner_is_superuser else owner


def parse_state(value: Mapping[str, Any]) -> State:
    """The state from what `sql.STATE` selects."""
    return State(
        major=int(value["version"]) // 10000,
        roles={
            each["name"]: RoleState(each["complete"], each["verifier"], each["marked"], each["replication"])
            for each in value["roles"]
        },
        databases={each["name"]: DatabaseState(each["owner"], each["template"]) for each in value["databases"]},
    )
