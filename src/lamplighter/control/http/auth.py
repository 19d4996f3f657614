"""From a bearer token to a caller, and whether a caller of that kind may use an operation at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from lamplighter.api.errors import ApiError, NotFound, PermissionDenied, Unauthenticated
from lamplighter.api.operations import Operation
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Catalog


def hash_token(token: str) -> bytes:
    """What is stored of a key. A plain hash is enough: 300 random bits cannot be guessed from it."""
    return hashlib.sha256(token.encode()).digest()


def bearer(authorization: str | None) -> str:
    """The token of an `Authorization` header. Raises Unauthenticated."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated
    return token


@dataclass(slots=True)
class KeyUsage:
    """When and from where keys were last used, written to the catalog now and then: not a row update a request."""

    catalog: Catalog
    _seen: dict[int, tuple[datetime, str]] = field(default_factory=dict)

    def note(self, key_id: int, *, address: str, at: datetime) -> None:
        self._seen[key_id] = (at, address)

    async def flush(self) -> None:
        """Write what was seen since the last time. Called each second, and before keys are shown."""
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        async with self.catalog.connection() as conn, conn.cursor() as cursor:
            await cursor.executemany(
                "update api_keys set last_used_at = greatest(last_used_at, %s), last_used_from_addr = %s where id = %s",
                [(at, address, key_id) for key_id, (at, address) in seen.items()],
            )


_CALLER = """
    select id as key_id,
           case when project_id is not null then 'project' when org_id is not null then 'organization'
                else 'personal' end as kind,
           created_by as user_id, org_id, project_id
      from api_keys
     where token_hash = %s and revoked_at is null
"""


async def authenticate(catalog: Catalog, authorization: str | None) -> Caller:
    """The caller whom the header proves. Raises Unauthenticated, with the same text for a missing and a wrong key."""
    digest = hash_token(bearer(authorization))
    async with catalog.connection() as conn, conn.cursor(row_factory=class_row(Caller)) as cursor:
        await cursor.execute(_CALLER, (digest,))
        caller = await cursor.fetchone()
    if caller is None:
        raise Unauthenticated
    return caller


def refuse(operation: Operation, caller: Caller) -> ApiError:
    """Why a key of this kind may not call this operation, in Neon's words where they are known."""
    if caller.kind == "organization":
        return NotFound("not allowed for organization API keys")
    if operation.id == "createProject":
        return PermissionDenied("project-scoped keys are not allowed to create projects")
    return NotFound(
        "not allowed to perform actions outside the project this key is scoped to; "
        f'subject_project_id:"{caller.project_id}"'
    )


def authorize(operation: Operation, caller: Caller, path: Mapping[str, Any]) -> None:
    """Check the kind of key, and a project-scoped key's project. Raises NotFound or PermissionDenied."""
    if caller.kind not in operation.callers:
        raise refuse(operation, caller)
    if caller.project_id is not None and path.get("project_id", caller.project_id) != caller.project_id:
        raise NotFound("project not found")
