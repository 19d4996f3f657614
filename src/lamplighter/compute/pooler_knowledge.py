"""What one PgBouncer is to know of its Postgres: which roles get in, and by which verifiers.

Asked of Postgres by a session that stays open. All roles are read only when a digest says that one has changed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import psycopg
import structlog

from lamplighter.compute.pooler_config import Users, may_enter, users_of
from lamplighter.compute.pooler_errors import PoolerFailed
from lamplighter.compute.pooler_roles import Digest, Limits, read_digest, read_role, read_roles
from lamplighter.compute.sql import Connection

log = structlog.get_logger("lamplighter.compute")

T = TypeVar("T")
#: Opens a session of the platform's superuser in a database of a compute, as `Supervisor.connect`.
ConnectTo = Callable[[str, str], Awaitable[Connection]]


class Knowledge:
    """`users` is what PgBouncer knows or, unless `told`, is to be told.

    `answer` and `reread` are in seconds: so long Postgres may take to answer, and so long are at least between two
    readings of all roles that logins ask for. Whoever asks or tells holds `telling`. All that asks raises
    `PoolerFailed`, and what `connect` raises.
    """

    def __init__(self, compute_id: str, *, connect: ConnectTo, limits: Limits, answer: float, reread: float) -> None:
        self._compute_id = compute_id
        self._connect = connect
        self._limits = limits
        self._answer = answer
        self._reread = reread
        self.telling = asyncio.Lock()
        self.users = Users()
        self.told = True
        self._session: Connection | None = None
        #: What the roles were when `users` was made of them, in the words of `_session`.
        self._digest: Digest | None = None
        #: By the monotonic clock: when all roles were read last.
        self._read_at = 0.0
        self._too_many = False

    async def begin(self) -> None:
        """For a PgBouncer that is to be started: read who gets in now."""
        self._digest = None
        self.users, self.told = await self._read(Users()) or Users(), True

    async def refresh(self) -> None:
        """Ask who gets in now. With another answer than before, `told` is false from here on.

        It stays so if the telling is cut off: PgBouncer may have read it, and those names are then to be locked.
        """
        users = await self._read(self.users)
        if users is not None:
            self.users, self.told = users, False

    async def verifier(self, role: str) -> str | None:
        """What Postgres says of that role, at this moment; None if it may not get in."""
        now = await self._ask(lambda session: read_role(session, role))
        return now if now is not None and may_enter(role, now) else None

    def is_beyond(self, role: str, since: float) -> bool:
        """Whether a role that Postgres has got no place in a reading that was made since then (monotonic)."""
        return self._too_many and role not in self.users.open and self._read_at >= since

    def pause(self) -> float:
        """Seconds until a login may have all roles read; none are left if that is zero or less."""
        return self._read_at + self._reread - time.monotonic()

    @property
    def locks_too_many(self) -> bool:
        """Whether so many names are known of roles that are gone that PgBouncer is to begin anew."""
        return len(self.users.locked) > self._limits.locked

    async def close(self) -> None:
        """End the session; the next question opens another."""
        session, self._session = self._session, None
        self._digest = None
        if session is not None:
            await session.close()

    async def _read(self, former: Users) -> Users | None:
        """Who gets in now, after `former`; None if that is who did. All roles are read only if any has changed."""

        async def ask(session: Connection) -> tuple[Digest | None, Sequence[tuple[bytes, str]], bool] | None:
            # The digest first: what changes between the two is read, and read once more the next time.
            digest = await read_digest(session)
            if digest is not None and digest == self._digest:
                return None
            self._read_at = time.monotonic()
            return digest, *await read_roles(session, self._limits.roles)

        answer = await self._ask(ask)
        if answer is None:
            return None
        digest, roles, more = answer
        if more and not self._too_many:
            log.warning("pooler.too_many_roles", compute_id=self._compute_id, limit=self._limits.roles)
        self._too_many = more

        def compare() -> Users | None:
            users = users_of(roles, former, os.urandom)
            return None if users == former else users

        many = len(roles) + len(former.open) + len(former.locked) > self._limits.at_once
        users = await asyncio.to_thread(compare) if many else compare()
        # Not before: a reading that was cut off must be made again. With a session that is gone it says nothing.
        self._digest = digest if self._session is not None else None
        return users

    async def _ask(self, question: Callable[[Connection], Awaitable[T]]) -> T:
        """An answer by a session that stays open: a new one each second would cost ten times as much."""
        kept = self._session is not None
        try:
            async with asyncio.timeout(self._answer):
                try:
                    return await question(await self._open())
                except psycopg.OperationalError:
                    if not kept:
                        raise
                # It was a session with an earlier postmaster.
                await self.close()
                return await question(await self._open())
        except TimeoutError as error:
            await self.close()
            why = f"cannot be told of roles: its Postgres did not say them within {self._answer:g} s"
            raise PoolerFailed(self._compute_id, why) from error
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> Connection:
        if self._session is None:
            self._session = await self._connect(self._compute_id, "postgres")
            # Users look into that view, and would find these queries on top.
            await self._session.execute("SET pg_stat_statements.track = 'none'")
        return self._session
