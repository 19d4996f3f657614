"""Organizations and their members."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from psycopg.rows import class_row

from lamplighter.api.errors import BadRequest
from lamplighter.api.ids import organization_id
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.kernel import Kernel
from lamplighter.control.scope import require_member


@dataclass(frozen=True, slots=True)
class Organization:
    """A row of `organizations`."""

    id: str
    name: str
    handle: str
    plan: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """A member with what is shown of the user."""

    id: UUID
    user_id: UUID
    org_id: str
    role: str
    joined_at: datetime
    email: str


_ORGANIZATION: LiteralString = "select o.id, o.name, o.handle, o.plan, o.created_at, o.updated_at from organizations o"
_SORTS: dict[str, LiteralString] = {"email": "u.email", "role": "m.role", "joined_at": "m.joined_at"}
DEFAULT_PAGE = 500


class Organizations:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def create(self, conn: Connection, *, name: str, admin: UUID) -> str:
        """A new organization with its first admin, made by the platform itself."""
        now = self._kernel.now()
        org_id = organization_id(self._kernel.choice)
        await conn.execute(
            "insert into organizations (id, name, handle, created_at, updated_at) values (%s, %s, %s, %s, %s)",
            (org_id, name, f"{name.lower().replace(' ', '-')}-{org_id}", now, now),
        )
        await conn.execute(
            "insert into members (id, user_id, org_id, role, joined_at) values (%s, %s, %s, 'admin', %s)",
            (self._kernel.uuid(), admin, org_id, now),
        )
        return org_id

    async def of_caller(self, caller: Caller) -> list[Organization]:
        """The organizations of a personal key's owner, or the one that owns the key."""
        async with (
            self._kernel.catalog.connection() as conn,
            conn.cursor(row_factory=class_row(Organization)) as cursor,
        ):
            if caller.org_id is not None:
                await cursor.execute(_ORGANIZATION + " where o.id = %s", (caller.org_id,))
            else:
                await cursor.execute(
                    _ORGANIZATION
                    + " join members m on m.org_id = o.id where m.user_id = %s order by m.joined_at, o.id",
                    (caller.user_id,),
                )
            return await cursor.fetchall()

    async def get(self, caller: Caller, org_id: str) -> Organization:
        """Raises NotFound, PermissionDenied."""
        async with self._kernel.catalog.connection() as conn:
            await require_member(conn, caller, org_id)
            async with conn.cursor(row_factory=class_row(Organization)) as cursor:
                await cursor.execute(_ORGANIZATION + " where o.id = %s", (org_id,))
                row = await cursor.fetchone()
        assert row is not None
        return row

    async def members(
        self, caller: Caller, org_id: str, *, sort_by: str, descending: bool, limit: int | None, cursor: str | None
    ) -> tuple[list[Member], str | None]:
        """A page of members, and the cursor of the next (the offset: members are few and rarely change).

        Raises NotFound, PermissionDenied, BadRequest for a malformed cursor.
        """
        if cursor and not re.fullmatch("[0-9]{1,9}", cursor):
            raise BadRequest("invalid cursor: pass the value of pagination.next of the page before")
        offset, size = int(cursor or 0), limit or DEFAULT_PAGE
        direction: LiteralString = "desc" if descending else "asc"
        order: LiteralString = _SORTS.get(sort_by, "m.joined_at")
        async with self._kernel.catalog.connection() as conn:
            await require_member(conn, caller, org_id)
            async with conn.cursor(row_factory=class_row(Member)) as rows:
                await rows.execute(
                    "select m.id, m.user_id, m.org_id, m.role, m.joined_at, u.email from members m"
                    " join users u on u.id = m.user_id where m.org_id = %s order by "
                    + order
                    + " "
                    + direction
                    + ", m.id limit %s offset %s",
                    (org_id, size + 1, offset),
                )
                found = await rows.fetchall()
        more = len(found) > size
        return found[:size], str(offset + size) if more else None
