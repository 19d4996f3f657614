"""What a caller may reach: a project of its own, and a branch of that project.

Every feature begins here. A project that is not the caller's and one that does not exist are answered alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg.rows import class_row

from lamplighter.api.errors import BadRequest, NotFound, PermissionDenied
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection


@dataclass(frozen=True, slots=True)
class ProjectScope:
    """The part of a project that other features decide by."""

    id: str
    org_id: str
    pg_version: int
    region_id: str
    provisioner: str
    store_passwords: bool
    default_endpoint_settings: dict[str, Any]
    settings: dict[str, Any]

    @property
    def logical_replication(self) -> bool:
        return bool(self.settings.get("enable_logical_replication"))


@dataclass(frozen=True, slots=True)
class BranchScope:
    """The part of a branch that other features decide by."""

    id: str
    project_id: str
    parent_id: str | None
    name: str
    is_default: bool
    protected: bool
    current_state: str
    init_source: str


_PROJECT: LiteralString = """
    select p.id, p.org_id, p.pg_version, p.region_id, p.provisioner, p.store_passwords, p.default_endpoint_settings,
           p.settings
      from projects p
     where p.id = %(project)s and p.deleted_at is null
       and (%(org)s::text is null or p.org_id = %(org)s)
       and (%(org)s::text is not null
            or exists (select from members m where m.org_id = p.org_id and m.user_id = %(user)s))
"""

_BRANCH: LiteralString = """
    select id, project_id, parent_id, name, is_default, protected, current_state, init_source
      from branches
     where project_id = %(project)s and deleted_at is null
"""


async def find_project(conn: Connection, caller: Caller, project_id: str, *, lock: bool = False) -> ProjectScope:
    """The project. `lock` holds it until the transaction ends, as scheduling operations demands.

    Raises NotFound.
    """
    if caller.project_id is not None and caller.project_id != project_id:
        raise NotFound("project not found")
    query = _PROJECT + (" for update" if lock else "")
    async with conn.cursor(row_factory=class_row(ProjectScope)) as cursor:
        await cursor.execute(query, {"project": project_id, "org": caller.org_id, "user": caller.user_id})
        row = await cursor.fetchone()
    if row is None:
        raise NotFound("project not found")
    return row


async def find_branch(conn: Connection, project_id: str, branch_id: str | None) -> BranchScope:
    """The branch, or the project's default branch for None. Raises NotFound."""
    condition: LiteralString = " and is_default" if branch_id is None else " and id = %(branch)s"
    async with conn.cursor(row_factory=class_row(BranchScope)) as cursor:
        await cursor.execute(_BRANCH + condition, {"project": project_id, "branch": branch_id})
        row = await cursor.fetchone()
    if row is None:
        raise NotFound("branch not found")
    return row


async def choose_organization(conn: Connection, caller: Caller, org_id: str | None, *, infer: bool) -> str:
    """The organization that a request means: the named one, the key's own, or (with `infer`) the caller's only one.

    Raises BadRequest when it must be named, NotFound, PermissionDenied when the named one is not the caller's.
    """
    named = org_id or caller.org_id
    if named is not None:
        await require_member(conn, caller, named)
        return named
    cursor = await conn.execute("select org_id from members where user_id = %s limit 2", (caller.user_id,))
    found = await cursor.fetchall()
    if len(found) != 1 or not infer:
        raise BadRequest("org_id is required, you can find it on your organization settings page")
    return str(found[0]["org_id"])


async def require_member(conn: Connection, caller: Caller, org_id: str) -> str:
    """The caller's role in the organization (an organization key acts as its admin).

    Raises NotFound when there is no such organization, PermissionDenied when it is not the caller's.
    """
    if caller.org_id is not None:
        if caller.org_id != org_id:
            raise PermissionDenied("not an organization member")
        return "admin"
    cursor = await conn.execute(
        "select m.role from organizations o left join members m on m.org_id = o.id and m.user_id = %s where o.id = %s",
        (caller.user_id, org_id),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("organization not found")
    if row["role"] is None:
        raise PermissionDenied("not an organization member")
    return str(row["role"])


@dataclass(frozen=True, slots=True)
class PrimaryScope:
    """The read-write endpoint of a branch."""

    id: str
    current_state: str
    disabled: bool


async def find_primary(conn: Connection, branch_id: str) -> PrimaryScope | None:
    """The branch's read-write endpoint, if it has one."""
    async with conn.cursor(row_factory=class_row(PrimaryScope)) as cursor:
        await cursor.execute(
            "select id, current_state, disabled from endpoints"
            " where branch_id = %s and type = 'read_write' and deleted_at is null",
            (branch_id,),
        )
        return await cursor.fetchone()
