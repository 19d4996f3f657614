"""Roles of a branch: what the API wants of them, and what is still to be done inside Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row

from lamplighter.api.errors import Conflict, NotFound, PreconditionFailed, Unprocessable
from lamplighter.api.ids import role_password
from lamplighter.api.secret import Secret
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.kernel import Kernel
from lamplighter.control.ports import RoleChange

PASSWORD = "password"  # noqa: S105 - Neon's name of the method
NO_LOGIN = "no_login"


@dataclass(frozen=True, slots=True)
class Role:
    """A row of `roles`."""

    branch_id: str
    name: str
    password_sealed: bytes | None
    authentication_method: str
    protected: bool
    made: bool
    applied: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PendingRoles:
    """What is to be done inside Postgres: roles to make or whose password to set, roles to drop."""

    wanted: Sequence[RoleChange]
    unwanted: Sequence[str]


_COLUMNS: LiteralString = (
    "branch_id, name, password_sealed, authentication_method, protected, made, applied, created_at, updated_at"
)


class Roles:
    """Works inside the caller's transaction; who may do it has been decided above."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def of_branch(self, conn: Connection, branch_id: str) -> list[Role]:
        async with conn.cursor(row_factory=class_row(Role)) as cursor:
            await cursor.execute(
                "select "
                + _COLUMNS
                + " from roles where branch_id = %s and deleted_at is null order by created_at, name",
                (branch_id,),
            )
            return await cursor.fetchall()

    async def get(self, conn: Connection, branch_id: str, name: str) -> Role:
        """Raises NotFound."""
        async with conn.cursor(row_factory=class_row(Role)) as cursor:
            await cursor.execute(
                "select " + _COLUMNS + " from roles where branch_id = %s and name = %s and deleted_at is null",
                (branch_id, name),
            )
            role = await cursor.fetchone()
        if role is None:
            raise NotFound("role not found")
        return role

    async def create(
        self, conn: Connection, branch_id: str, name: str, *, login: bool = True
    ) -> tuple[Role, Secret | None]:
        """A role to be made, with its new password. Raises Conflict."""
        now = self._kernel.now()
        password = Secret(role_password(self._kernel.choice)) if login else None
        # A role that waits to be dropped and is wanted again is the same role with a new password.
        async with conn.cursor(row_factory=class_row(Role)) as cursor:
            await cursor.execute(
                "insert into roles (branch_id, name, password_sealed, authentication_method, created_at, updated_at)"
                " values (%s, %s, %s, %s, %s, %s)"
                " on conflict (branch_id, name) do update set password_sealed = excluded.password_sealed,"
                " authentication_method = excluded.authentication_method, applied = false, deleted_at = null,"
                " created_at = excluded.created_at, updated_at = excluded.updated_at"
                " where roles.deleted_at is not null returning " + _COLUMNS,
                (branch_id, name, self._seal(branch_id, name, password), PASSWORD if login else NO_LOGIN, now, now),
            )
            role = await cursor.fetchone()
        if role is None:
            raise Conflict(f'role already exists; role_name:"{name}"')
        return role, password

    async def reset_password(self, conn: Connection, branch_id: str, name: str) -> tuple[Role, Secret]:
        """A new password, not yet applied. Raises NotFound, Unprocessable for a role that does not log in."""
        role = await self.get(conn, branch_id, name)
        if role.authentication_method == NO_LOGIN:
            raise Unprocessable("this role cannot log in, so it has no password")
        password = Secret(role_password(self._kernel.choice))
        await conn.execute(
            "update roles set password_sealed = %s, applied = false, updated_at = %s"
            " where branch_id = %s and name = %s",
            (self._seal(branch_id, name, password), self._kernel.now(), branch_id, name),
        )
        return await self.get(conn, branch_id, name), password

    async def delete(self, conn: Connection, branch_id: str, name: str) -> Role:
        """Mark it for dropping. Raises NotFound, Unprocessable while it owns databases."""
        role = await self.get(conn, branch_id, name)
        cursor = await conn.execute(
            "select string_agg(name, ', ' order by name) as owned from databases"
            " where branch_id = %s and owner_name = %s and deleted_at is null",
            (branch_id, name),
        )
        row = await cursor.fetchone()
        if row is not None and row["owned"]:
            raise Unprocessable(f"role owns databases ({row['owned']}); delete them or give them to another role first")
        now = self._kernel.now()
        await conn.execute(
            "update roles set deleted_at = %s, updated_at = %s where branch_id = %s and name = %s",
            (now, now, branch_id, name),
        )
        return role

    async def password(self, conn: Connection, branch_id: str, name: str, *, stored: bool) -> Secret:
        """The present password. Raises NotFound, PreconditionFailed where passwords are not stored."""
        role = await self.get(conn, branch_id, name)
        if not stored or role.password_sealed is None:
            raise PreconditionFailed(None if not stored else "this role has no password")
        return self._open(role)

    async def inherit(
        self, conn: Connection, parent_id: str, branch_id: str, *, new_passwords: bool, applied: bool
    ) -> None:
        """The parent's roles on its new child. `applied` is true when the child's Postgres is a copy of the parent's.

        What the parent still waits for, its child waits for too. A child of a protected branch gets passwords of its
        own: who may reach the child must not so reach the parent.
        """
        now = self._kernel.now()
        for role in await self.of_branch(conn, parent_id):
            password = self._inherited(role, new=new_passwords)
            await conn.execute(
                "insert into roles (branch_id, name, password_sealed, authentication_method, protected, made, applied,"
                " created_at, updated_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    branch_id,
                    role.name,
                    self._seal(branch_id, role.name, password),
                    role.authentication_method,
                    role.protected,
                    applied and role.made,
                    applied and role.applied and not new_passwords,
                    now,
                    now,
                ),
            )

    def _inherited(self, role: Role, *, new: bool) -> Secret | None:
        if role.authentication_method == NO_LOGIN:
            return None
        if new:
            return Secret(role_password(self._kernel.choice))
        return self._open(role) if role.password_sealed is not None else None

    async def pending(self, conn: Connection, branch_id: str) -> PendingRoles:
        """What has not been applied yet."""
        async with conn.cursor(row_factory=class_row(Role)) as cursor:
            await cursor.execute(
                "select " + _COLUMNS + " from roles where branch_id = %s and not applied and deleted_at is null",
                (branch_id,),
            )
            pending = await cursor.fetchall()
        replication = await self._may_replicate(conn, branch_id)
        wanted = [
            RoleChange(
                role.name,
                self._open(role).reveal() if role.password_sealed is not None else None,
                new=not role.made,
                replication=replication,
            )
            for role in pending
        ]
        rows = await conn.execute(
            "select name from roles where branch_id = %s and deleted_at is not null", (branch_id,)
        )
        return PendingRoles(wanted, [row["name"] for row in await rows.fetchall()])

    async def _may_replicate(self, conn: Connection, branch_id: str) -> bool:
        cursor = await conn.execute(
            "select p.settings from branches b join projects p on p.id = b.project_id where b.id = %s", (branch_id,)
        )
        row = await cursor.fetchone()
        return row is not None and bool(row["settings"].get("enable_logical_replication"))

    async def apply_again(self, conn: Connection, project_id: str) -> None:
        """What roles of the project may do has changed: brought about when their branch's Postgres next starts."""
        await conn.execute(
            "update roles set applied = false from branches b where b.id = roles.branch_id and b.project_id = %s",
            (project_id,),
        )

    async def settle(self, conn: Connection, branch_id: str, done: PendingRoles, *, keep_passwords: bool) -> None:
        """`done` has been applied. Where passwords are not stored, the sealed copy has served its purpose and goes."""
        await conn.execute(
            "update roles set made = true, applied = true, password_sealed = case when %s then password_sealed end"
            " where branch_id = %s and name = any(%s)",
            (keep_passwords, branch_id, [role.name for role in done.wanted]),
        )
        await conn.execute(
            "delete from roles where branch_id = %s and deleted_at is not null and name = any(%s)",
            (branch_id, list(done.unwanted)),
        )

    async def withdraw(self, conn: Connection, branch_id: str) -> None:
        """Postgres refused for good what is pending: roles that it never had are not listed, those it kept are again.

        A new password stays pending: it is set by the next start.
        """
        await conn.execute(
            "delete from roles where branch_id = %s and not made and not applied and deleted_at is null", (branch_id,)
        )
        await conn.execute(
            "update roles set deleted_at = null where branch_id = %s and deleted_at is not null", (branch_id,)
        )

    def _seal(self, branch_id: str, name: str, password: Secret | None) -> bytes | None:
        if password is None:
            return None
        return self._kernel.sealer.seal(password.reveal(), belongs_to=f"{branch_id}/{name}")

    def _open(self, role: Role) -> Secret:
        assert role.password_sealed is not None
        return Secret(self._kernel.sealer.open(role.password_sealed, belongs_to=f"{role.branch_id}/{role.name}"))
