"""API keys of all three kinds: personal, organization-wide, scoped to a project. A token is shown once, when made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from psycopg.rows import class_row

from lamplighter.api.errors import NotFound, PermissionDenied
from lamplighter.api.ids import key_token
from lamplighter.api.secret import Secret
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.http.auth import KeyUsage, hash_token
from lamplighter.control.kernel import Kernel
from lamplighter.control.scope import find_project, require_member


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A row of `api_keys` with its creator's name; the token cannot be had from it."""

    id: int
    name: str
    created_by: UUID
    creator_name: str
    creator_image: str
    project_id: str | None
    created_at: datetime
    last_used_at: datetime | None
    last_used_from_addr: str


_KEY: LiteralString = """
    select k.id, k.name, k.created_by, u.name as creator_name, u.image as creator_image, k.project_id, k.created_at,
           k.last_used_at, k.last_used_from_addr
      from api_keys k join users u on u.id = k.created_by
     where k.revoked_at is null
"""
_PERSONAL: LiteralString = " and k.org_id is null and k.created_by = %(user)s"
_ORGANIZATION: LiteralString = " and k.org_id = %(org)s"


class ApiKeys:
    def __init__(self, kernel: Kernel, usage: KeyUsage) -> None:
        self._kernel = kernel
        self._usage = usage

    async def list_personal(self, caller: Caller) -> list[ApiKey]:
        """Newest first."""
        return await self._list(_PERSONAL, user=caller.user_id)

    async def list_organization(self, caller: Caller, org_id: str) -> list[ApiKey]:
        """Newest first. Raises NotFound, PermissionDenied."""
        async with self._kernel.catalog.connection() as conn:
            await require_member(conn, caller, org_id)
        return await self._list(_ORGANIZATION, org=org_id)

    async def _list(self, owner: LiteralString, **parameters: object) -> list[ApiKey]:
        await self._usage.flush()
        async with self._kernel.catalog.connection() as conn, conn.cursor(row_factory=class_row(ApiKey)) as cursor:
            await cursor.execute(_KEY + owner + " order by k.id desc", parameters)
            return await cursor.fetchall()

    async def create_personal(self, caller: Caller, name: str) -> tuple[ApiKey, Secret]:
        async with self._kernel.catalog.transaction() as conn:
            return await self.mint(conn, name=name, user_id=caller.user_id, org_id=None, project_id=None)

    async def create_organization(
        self, caller: Caller, org_id: str, *, name: str, project_id: str | None
    ) -> tuple[ApiKey, Secret]:
        """For admins only. Raises NotFound for a project that is not the organization's, PermissionDenied."""
        async with self._kernel.catalog.transaction() as conn:
            if await require_member(conn, caller, org_id) != "admin":
                raise PermissionDenied("only admins of the organization may create its API keys")
            if project_id is not None and (await find_project(conn, caller, project_id)).org_id != org_id:
                raise NotFound("project not found")
            return await self.mint(conn, name=name, user_id=caller.user_id, org_id=org_id, project_id=project_id)

    async def mint(
        self, conn: Connection, *, name: str, user_id: UUID, org_id: str | None, project_id: str | None
    ) -> tuple[ApiKey, Secret]:
        """A new key and its token. Who may mint is the caller's to decide."""
        token = Secret(key_token(self._kernel.choice))
        cursor = await conn.execute(
            "insert into api_keys (name, token_hash, created_by, org_id, project_id, created_at)"
            " values (%s, %s, %s, %s, %s, %s) returning id",
            (name, hash_token(token.reveal()), user_id, org_id, project_id, self._kernel.now()),
        )
        row = await cursor.fetchone()
        assert row is not None
        return await self._get(conn, "", row["id"]), token

    async def revoke_personal(self, caller: Caller, key_id: int) -> ApiKey:
        """Raises NotFound."""
        async with self._kernel.catalog.transaction() as conn:
            return await self._revoke(conn, _PERSONAL, key_id, user=caller.user_id)

    async def revoke_organization(self, caller: Caller, org_id: str, key_id: int) -> ApiKey:
        """Raises NotFound, PermissionDenied."""
        async with self._kernel.catalog.transaction() as conn:
            if await require_member(conn, caller, org_id) != "admin":
                raise PermissionDenied("only admins of the organization may revoke its API keys")
            return await self._revoke(conn, _ORGANIZATION, key_id, org=org_id)

    async def _get(self, conn: Connection, owner: LiteralString, key_id: int, **parameters: object) -> ApiKey:
        async with conn.cursor(row_factory=class_row(ApiKey)) as cursor:
            await cursor.execute(_KEY + owner + " and k.id = %(key)s", {"key": key_id, **parameters})
            key = await cursor.fetchone()
        if key is None:
            raise NotFound("api key not found")
        return key

    async def _revoke(self, conn: Connection, owner: LiteralString, key_id: int, **parameters: object) -> ApiKey:
        await self._usage.flush()
        key = await self._get(conn, owner, key_id, **parameters)
        await conn.execute("update api_keys set revoked_at = %s where id = %s", (self._kernel.now(), key_id))
        return key
