"""The schema of the catalog: numbered SQL files, applied in order, each in a transaction of its own.

`schema_migrations` records what was applied. Files are never edited once released: a change is a new file. Several
control planes may start at once, so everything happens under an advisory lock.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from lamplighter.control.errors import CatalogDiverged, CatalogTooNew, MigrationChanged

_FILE = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")
#: Any constant will do that nobody else uses in this database.
_LOCK = 7_205_171

_TABLE = """
    create table if not exists schema_migrations (
        number      int primary key,
        name        text not null,
        checksum    text not null,
        applied_at  timestamptz not null default clock_timestamp()
    )
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `NNNN_name.sql`."""

    number: int
    name: str
    sql: bytes

    @property
    def label(self) -> str:
        return f"{self.number:04}_{self.name}"

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of `schema_migrations`."""

    number: int
    name: str
    checksum: str


def load_migrations() -> list[Migration]:
    """The files that come with this version, in order."""
    folder = resources.files("lamplighter.control.catalog") / "migrations"
    found = []
    for file in folder.iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None:
            found.append(Migration(int(match[1]), match[2], file.read_bytes()))
    return sorted(found, key=lambda migration: migration.number)


def plan_migrations(known: Sequence[Migration], applied: Sequence[Applied]) -> list[Migration]:
    """What is still to be applied: all that follows what was applied before, which must be a beginning of `known`.

    Raises CatalogTooNew, MigrationChanged, CatalogDiverged.
    """
    rows = {row.number: row for row in applied}
    last = max(rows, default=0)
    newest = max((migration.number for migration in known), default=0)
    if last > newest:
        raise CatalogTooNew(found=last, known=newest)
    for migration in known:
        row = rows.get(migration.number)
        if row is None and migration.number < last:
            raise CatalogDiverged(migration.label)
        if row is not None and row.checksum != migration.checksum:
            raise MigrationChanged(migration.label)
    return [migration for migration in known if migration.number > last]


async def migrate(
    conn: AsyncConnection[Any], upto: int | None = None, *, migrations: Sequence[Migration] | None = None
) -> list[str]:
    """Bring the catalog up to migration number `upto`, by default to the newest; answers what was applied now.

    `conn` must not be inside a transaction. Raises CatalogTooNew, MigrationChanged, CatalogDiverged; a file that fails
    leaves the catalog as the file before it left it.
    """
    known = load_migrations() if migrations is None else migrations
    done: list[str] = []
    while True:
        # Read again under each lock: another control plane may have gone on in between.
        async with conn.transaction():
            await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            await conn.execute(_TABLE)
            waiting = plan_migrations(known, await _applied(conn))
            following = next((one for one in waiting if upto is None or one.number <= upto), None)
            if following is None:
                return done
            await _apply(conn, following)
        done.append(following.label)


async def _applied(conn: AsyncConnection[Any]) -> list[Applied]:
    async with conn.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute("select number, name, checksum from schema_migrations order by number")
        return [Applied(*row) for row in await cursor.fetchall()]


async def _apply(conn: AsyncConnection[Any], migration: Migration) -> None:
    await conn.execute(migration.sql)
    await conn.execute(
        "insert into schema_migrations (number, name, checksum) values (%s, %s, %s)",
        (migration.number, migration.name, migration.checksum),
    )


async def ensure_database(conninfo: str) -> bool:
    """Make the database that `conninfo` names if its cluster has none; answers whether it was made now.

    Raises psycopg.OperationalError when the database exists, or cannot be made, and does not let us in.
    """
    try:
        async with await AsyncConnection.connect(conninfo):
            return False
    except psycopg.OperationalError as error:
        # libpq gives no SQLSTATE for a refused connection, so ask the cluster itself.
        refused = error
    name = str(conninfo_to_dict(conninfo).get("dbname") or "")
    try:
        maintenance = await AsyncConnection.connect(make_conninfo(conninfo, dbname="postgres"), autocommit=True)
    except psycopg.OperationalError:
        raise refused from None
    async with maintenance:
        row = await (await maintenance.execute("select 1 from pg_database where datname = %s", (name,))).fetchone()
        if row is not None or not name:
            raise refused
        # Two control planes may come here at once. template0, since nobody can be connected to it and so block us.
        with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            await maintenance.execute(SQL("create database {} template template0").format(Identifier(name)))
            return True
    return False
