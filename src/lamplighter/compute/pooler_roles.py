"""What a pooler asks its Postgres about roles: whether anything changed, who may log in, and one role.

A tenant may make as many roles as they like, so whoever asks each second asks for the digest, and reads all roles only
when that is another. Names are compared and sent as UTF-8, whatever the database holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from lamplighter.compute.sql import Connection

#: Those who may log in by TCP with a password: PgBouncer would ask no more than that of anybody.
_WHO = """rolcanlogin AND NOT rolsuper AND rolpassword LIKE 'SCRAM-SHA-256$%%'
  AND (rolvaliduntil IS NULL OR rolvaliduntil > now())"""

#: The oldest come first: whoever is within the limit stays there when more are made.
_ROLES = f"SELECT textsend(rolname::text), rolpassword FROM pg_authid WHERE {_WHO} ORDER BY oid LIMIT %s"

_ROLE = f"SELECT rolpassword FROM pg_authid WHERE rolname = %s AND {_WHO}"

#: Each change of a role is a new version of its row, with the transaction that made it in `xmin`; passwords need not be
#: read for that. 50 to 90 ms for 200,000 roles, of which the last column finds those whose time has run out since.
_DIGEST = """
SELECT count(*), sum(hashoidextended(oid, xmin::text::int8)), count(*) FILTER (WHERE rolvaliduntil <= now())
FROM pg_authid
"""

#: Rows taken over in one go of the event loop.
_BATCH = 500

#: Of one session only: after a restore the same transaction numbers may stand for other roles.
Digest = tuple[int, Decimal | None, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a tenant's roles is kept.

    `roles`: so many of them can use the pooler. `locked`: with more than that, PgBouncer is started anew without them.
    `at_once`: with more than that, they are gone through in a thread.
    """

    roles: int = 20_000
    locked: int = 10_000
    at_once: int = 1_000


async def read_digest(session: Connection) -> Digest | None:
    """Another value if any role was made, changed or dropped, or has run out of time."""
    return await (await session.execute(_DIGEST)).fetchone()


async def read_roles(session: Connection, most: int) -> tuple[Sequence[tuple[bytes, str]], bool]:
    """Names as they are stored, and verifiers, of the oldest `most` roles; whether there are more."""
    cursor = await session.execute(_ROLES.encode(), (most + 1,))
    found: list[tuple[bytes, str]] = []
    while rows := await cursor.fetchmany(_BATCH):
        found.extend((bytes(name), str(verifier)) for name, verifier in rows)
        await asyncio.sleep(0)
    return found[:most], len(found) > most


async def read_role(session: Connection, role: str) -> str | None:
    """The verifier of one role; None if it may not log in by password. `role` has at most 63 bytes of UTF-8."""
    row = await (await session.execute(_ROLE.encode(), (role,))).fetchone()
    return None if row is None else str(row[0])
