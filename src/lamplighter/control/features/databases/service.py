"""Databases of a branch: what the API wants of them, and what is still to be done inside Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row

from lamplighter.api.errors import Conflict, NotFound
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.kernel import Kernel
from lamplighter.control.ports import DatabaseChange


@dataclass(frozen=True, slots=True)
class Database:
    """A row of `databases`."""

    id: int
    branch_id: str
    name: str
    was: str | None
    owner_name: str
    made: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PendingDatabases:
    """What is to be done inside Postgres."""

    wanted: Sequence[DatabaseChange]
    unwanted: Sequence[str]


_COLUMNS: LiteralString = "id, branch_id, name, was, owner_name, made, created_at, updated_at"


class Databases:
    """Works inside the caller's transaction; who may do it has been decided above."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def of_branch(self, conn: Connection, branch_id: str) -> list[Database]:
        async with conn.cursor(row_factory=class_row(Database)) as cursor:
            await cursor.execute(
                "select " + _COLUMNS + " from databases where branch_id = %s and deleted_at is null order by id",
                (branch_id,),
            )
            return await cursor.fetchall()

    async def get(self, conn: Connection, branch_id: str, name: str) -> Database:
        """Raises NotFound."""
        async with conn.cursor(row_factory=class_row(Database)) as cursor:
            await cursor.execute(
                "select " + _COLUMNS + " from databases where branch_id = %s and name = %s and deleted_at is null",
                (branch_id, name),
            )
            database = await cursor.fetchone()
        if database is None:
            raise NotFound("database not found")
        return database

    async def create(
        self, conn: Connection, branch_id: str, *, name: str, owner: str, instead_of: str | None = None
    ) -> Database:
        """A database to be made, or, with `instead_of`, one that the cluster has and that is renamed and given away.

        Raises Conflict, NotFound (owner).
        """
        await self._require_owner(conn, branch_id, owner)
        await self._require_free(conn, branch_id, name)
        now = self._kernel.now()
        await conn.execute(
            "insert into databases (branch_id, name, was, owner_name, made, created_at, updated_at)"
            " values (%s, %s, nullif(%s, %s), %s, %s, %s, %s)",
            (branch_id, name, instead_of, name, owner, instead_of is not None, now, now),
        )
        return await self.get(conn, branch_id, name)

    async def update(
        self, conn: Connection, branch_id: str, name: str, *, new_name: str | None, owner: str | None
    ) -> Database:
        """Rename it, give it to another role, or both. Raises Conflict, NotFound."""
        database = await self.get(conn, branch_id, name)
        if owner is not None:
            await self._require_owner(conn, branch_id, owner)
        target = new_name or name
        if target != name:
            await self._require_free(conn, branch_id, target)
        # `was` and `was_owner` stay what Postgres knows, through any number of changes that were not applied yet.
        await conn.execute(
            "update databases set name = %(name)s, owner_name = %(owner)s, applied = false, updated_at = %(now)s,"
            " was = case when made then nullif(coalesce(was, name), %(name)s) end,"
            " was_owner = case when made then nullif(coalesce(was_owner, owner_name), %(owner)s) end where id = %(id)s",
            {
                "name": target,
                "owner": owner or database.owner_name,
                "now": self._kernel.now(),
                "id": database.id,
            },
        )
        return await self.get(conn, branch_id, target)

    async def delete(self, conn: Connection, branch_id: str, name: str) -> Database:
        """Mark it for dropping. Raises NotFound."""
        database = await self.get(conn, branch_id, name)
        now = self._kernel.now()
        await conn.execute(
            "update databases set deleted_at = %s, updated_at = %s where id = %s", (now, now, database.id)
        )
        return database

    async def inherit(self, conn: Connection, parent_id: str, branch_id: str, *, applied: bool) -> None:
        """The parent's databases on its new child. `applied` is true when the child is a copy of the parent.

        What the parent still waits for, its child waits for too.
        """
        now = self._kernel.now()
        await conn.execute(
            "insert into databases (branch_id, name, owner_name, was, was_owner, made, applied, created_at, updated_at)"
            " select %(branch)s, name, owner_name, case when %(copied)s then was end,"
            " case when %(copied)s then was_owner end, %(copied)s and made, %(copied)s and applied, %(now)s, %(now)s"
            " from databases where branch_id = %(parent)s and deleted_at is null order by id",
            {"branch": branch_id, "copied": applied, "now": now, "parent": parent_id},
        )

    async def pending(self, conn: Connection, branch_id: str) -> PendingDatabases:
        """What has not been applied yet."""
        async with conn.cursor(row_factory=class_row(Database)) as cursor:
            await cursor.execute(
                "select " + _COLUMNS + " from databases where branch_id = %s and not applied and deleted_at is null",
                (branch_id,),
            )
            wanted = [
                DatabaseChange(row.name, row.owner_name, row.was, new=not row.made) for row in await cursor.fetchall()
            ]
        rows = await conn.execute(
            "select name from databases where branch_id = %s and deleted_at is not null", (branch_id,)
        )
        return PendingDatabases(wanted, [row["name"] for row in await rows.fetchall()])

    async def settle(self, conn: Connection, branch_id: str, done: PendingDatabases) -> None:
        """`done` has been applied."""
        await conn.execute(
            "update databases set made = true, applied = true, was = null, was_owner = null"
            " where branch_id = %s and name = any(%s) and deleted_at is null",
            (branch_id, [database.name for database in done.wanted]),
        )
        await conn.execute(
            "delete from databases where branch_id = %s and deleted_at is not null and name = any(%s)",
            (branch_id, list(done.unwanted)),
        )

    async def withdraw(self, conn: Connection, branch_id: str) -> None:
        """Postgres refused for good what is pending: the rows say again what it has."""
        await conn.execute(
            "delete from databases where branch_id = %s and not made and not applied and deleted_at is null",
            (branch_id,),
        )
        await conn.execute(
            "update databases set name = coalesce(was, name), owner_name = coalesce(was_owner, owner_name), was = null,"
            " was_owner = null, applied = true, deleted_at = null"
            " where branch_id = %s and (not applied or deleted_at is not null)",
            (branch_id,),
        )

    async def _require_owner(self, conn: Connection, branch_id: str, owner: str) -> None:
        rows = await conn.execute(
            "select 1 from roles where branch_id = %s and name = %s and deleted_at is null", (branch_id, owner)
        )
        if await rows.fetchone() is None:
            raise NotFound("role not found")

    async def _require_free(self, conn: Connection, branch_id: str, name: str) -> None:
        """A database that waits to be dropped still holds its name: a new one must not be taken for it and dropped."""
        rows = await conn.execute("select 1 from databases where branch_id = %s and name = %s", (branch_id, name))
        if await rows.fetchone() is not None:
            raise Conflict(f'database already exists; database_name:"{name}"')
