"""Decide which statements bring a Postgres from what it has to what `Changes` asks for.

Apart from psycopg's quoting this is pure: the state is read, and the statements are run, by `sql.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from lamplighter.compute import scram
from lamplighter.compute.config import SUPERUSER
from lamplighter.compute.errors import ReservedName
from lamplighter.compute.ports import Changes, DatabaseSpec, RoleSpec

#: The role that stands for what an owner may do; the API's roles are members of it, as at Neon.
NEON_SUPERUSER = "neon_superuser"
RESERVED_ROLES = frozenset(
    {SUPERUSER, NEON_SUPERUSER, "public", "none", "current_user", "session_user", "current_role"}
)
RESERVED_DATABASES = frozenset({"postgres", "template0", "template1"})

_ATTRIBUTES = sql.SQL("LOGIN INHERIT CREATEDB CREATEROLE BYPASSRLS REPLICATION NOSUPERUSER")


def is_reserved_role(name: str) -> bool:
    """Whether users may not have a role of that name. Postgres keeps `pg_` for itself."""
    return name in RESERVED_ROLES or name.startswith("pg_")


@dataclass(frozen=True, slots=True)
class RoleState:
    """A role that is there. `complete`: it has the attributes of the API's roles and is in `neon_superuser`."""

    complete: bool
    verifier: str | None = None


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
    """What is to be done. `salt` gives 16 random bytes for each password that is set. Raises `ReservedName`."""
    check_names(changes)
    together: list[sql.Composed] = []
    singly: list[sql.Composed] = []
    if changes.roles and NEON_SUPERUSER not in state.roles:
        together += _make_neon_superuser(state.major)
    for role in changes.roles:
        together += _role(role, state.roles.get(role.name), salt)
    for database in changes.databases:
        former, found = _find(database, state)
        if found is None:
            singly.append(_create(database))
            singly.append(_grant(database.name))
        else:
            together += _alter(database, former, found)
    return Plan(
        tuple(together),
        tuple(singly),
        tuple(name for name in changes.drop_databases if name in state.databases),
        tuple(name for name in changes.drop_roles if name in state.roles),
    )


def _make_neon_superuser(major: int) -> list[sql.Composed]:
    """A cluster that is not a clone of the template, or whose owner dropped the role."""
    name = sql.Identifier(NEON_SUPERUSER)
    granted = "pg_read_all_data, pg_write_all_data" + (", pg_create_subscription" if major >= 16 else "")
    return [
        sql.SQL("CREATE ROLE {} NOLOGIN INHERIT CREATEDB CREATEROLE BYPASSRLS REPLICATION").format(name),
        sql.SQL("GRANT {} TO {}").format(sql.SQL(granted), name),
        sql.SQL("GRANT pg_monitor, pg_signal_backend TO {} WITH ADMIN OPTION").format(name),
    ]


def _role(role: RoleSpec, found: RoleState | None, salt: Callable[[], bytes]) -> list[sql.Composed]:
    name = sql.Identifier(role.name)
    password: sql.Composable = sql.SQL("")
    if role.password is not None and not (found and found.verifier and scram.matches(role.password, found.verifier)):
        password = sql.SQL(" PASSWORD {}").format(sql.Literal(scram.verifier(role.password, salt())))
    if found is None:
        group = sql.Identifier(NEON_SUPERUSER)
        return [sql.SQL("CREATE ROLE {} {}{} IN ROLE {}").format(name, _ATTRIBUTES, password, group)]
    statements: list[sql.Composed] = []
    if not found.complete or password != sql.SQL(""):
        statements.append(sql.SQL("ALTER ROLE {} {}{}").format(name, _ATTRIBUTES, password))
    if not found.complete:
        statements.append(sql.SQL("GRANT {} TO {}").format(sql.Identifier(NEON_SUPERUSER), name))
    return statements


def _find(database: DatabaseSpec, state: State) -> tuple[str, DatabaseState | None]:
    """The name that the database has now, and its state. The wanted name wins: then the renaming is done already."""
    for name in (database.name, database.was):
        if name is not None and name in state.databases:
            return name, state.databases[name]
    return database.name, None


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
        roles={each["name"]: RoleState(each["complete"], each["verifier"]) for each in value["roles"]},
        databases={each["name"]: DatabaseState(each["owner"], each["template"]) for each in value["databases"]},
    )
