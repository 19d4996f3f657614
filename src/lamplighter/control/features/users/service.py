"""The user behind a personal key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from lamplighter.api.errors import NotFound
from lamplighter.control.caller import Caller
from lamplighter.control.catalog.pool import Connection
from lamplighter.control.kernel import Kernel


@dataclass(frozen=True, slots=True)
class User:
    """A row of `users`."""

    id: UUID
    email: str
    name: str
    last_name: str
    login: str
    image: str
    created_at: datetime


_COLUMNS = "id, email, name, last_name, login, image, created_at"


class Users:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def create(self, conn: Connection, *, email: str, name: str) -> UUID:
        """A new user, made by the platform itself."""
        user_id = self._kernel.uuid()
        await conn.execute(
            "insert into users (id, email, name, login, created_at) values (%s, %s, %s, %s, %s)",
            (user_id, email, name, email.partition("@")[0], self._kernel.now()),
        )
        return user_id

    async def me(self, caller: Caller) -> User:
        """The owner of a personal key. Raises NotFound."""
        async with self._kernel.catalog.connection() as conn, conn.cursor(row_factory=class_row(User)) as cursor:
            await cursor.execute(f"select {_COLUMNS} from users where id = %s", (caller.user_id,))
            user = await cursor.fetchone()
        if user is None:
            raise NotFound("user not found")
        return user
