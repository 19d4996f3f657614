"""The SQL of operations.

Scheduling (`require_idle`, `enqueue`) happens in the transaction of a request that has locked the row of its project
(`for update`): that lock is what makes "is it idle?" and the order of `seq` free of races. A project made in the same
transaction needs none, for nobody else sees it. Everything an engine writes says who it is, and does nothing once its
lease is gone. Leases are measured by the catalog's clock, the only one that several hosts share.

Operations in the background (`blocking` is false) are an engine's own: see `FollowUp`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection, AsyncCursor
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from lamplighter.api.errors import NotFound
from lamplighter.control.errors import LeaseLost, ProjectBusy
from lamplighter.control.operations.model import NewOperation, Operation, parse_cursor
from lamplighter.control.operations.states import FATAL, Event, Retry, Status, after

Connection = AsyncConnection[Any]
FinishFunction = Callable[[Operation, Connection], Awaitable[None]]

#: Notified, with the project's id, when operations are scheduled.
CHANNEL: LiteralString = "lamplighter_operations"
#: Operations that one statement of `prune` looks at.
PRUNE_BATCH = 1000

# Two requests may carry the same time, and a clock may be set back. A page ends at a time, so each operation gets one
# of its own, later than that of all visible ones before it.
_ENQUEUE: LiteralString = """
    insert into operations as o
        (id, project_id, branch_id, endpoint_id, kind, action, status, visible, group_id, arguments,
         created_at, updated_at)
    select n.id, %(project)s, n.branch_id, n.endpoint_id, n.kind, n.action, n.status, n.visible, %(group)s, n.arguments,
           first.at + n.position * interval '1 microsecond', first.at + n.position * interval '1 microsecond'
      from jsonb_to_recordset(%(operations)s)
           as n (id uuid, branch_id text, endpoint_id text, kind text, action text, status text, visible boolean,
                 arguments jsonb, position int),
           (select greatest(%(now)s, max(created_at) + interval '1 microsecond') as at
              from operations where project_id = %(project)s and visible) as first
     order by n.position
    returning o.*"""

_BUSY: LiteralString = """
    select exists (select from operations where project_id = %s and finished_at is null and blocking) as busy"""
_ANY_BUSY: LiteralString = "select exists (select from operations where finished_at is null and blocking) as busy"

_GET: LiteralString = "select o.* from operations o where o.project_id = %s and o.id = %s and o.visible"

_PAGE: LiteralString = """
    select o.* from operations o
     where o.project_id = %(project)s and o.visible and o.created_at < coalesce(%(before)s, 'infinity'::timestamptz)
     order by o.created_at desc limit %(limit)s"""

# At most one operation of a project can be claimed: the one at work if there is one (its lease may have run out, its
# engine be gone), else the first that has not ended, else one in the background. An engine takes back at once what is
# its own and not being run: the answer to an earlier claim got lost on the way. `busy` are the projects that it does
# run. One reading of the clock for all rows, for two readings might find two operations due.
_CLAIM: LiteralString = """
    with due as (
        select o.id from operations o
         where o.finished_at is null
           and (%(project)s::text is null or o.project_id = %(project)s)
           and o.project_id <> all (%(busy)s)
           and (o.retry_at is null or o.retry_at <= statement_timestamp())
           and (o.lease_until is null or o.lease_until <= statement_timestamp() or o.lease_owner = %(owner)s)
           and not exists (
               select from operations other
                where other.finished_at is null and other.project_id = o.project_id and other.id <> o.id
                  and (other.lease_owner is not null
                       or (o.lease_owner is null
                           and ((other.blocking and not o.blocking)
                                or (other.blocking = o.blocking and other.seq < o.seq
                                    and (o.blocking or coalesce(other.retry_at <= statement_timestamp(), true)))))))
         order by o.seq limit %(limit)s
           for update skip locked)
    update operations o
       set status = %(status)s, retry_at = null, started_at = coalesce(o.started_at, statement_timestamp()),
           updated_at = statement_timestamp(), lease_owner = %(owner)s,
           lease_until = statement_timestamp() + %(lease)s * interval '1 second'
      from due where o.id = due.id
    returning o.*"""

# What waits in the background for another of its project falls due when that one ends, whatever its own time says.
_NEXT_DUE: LiteralString = """
    select extract(epoch from min(coalesce(o.lease_until, o.retry_at)) - statement_timestamp())::float8 as seconds
      from operations o
     where o.finished_at is null and o.project_id <> all (%(busy)s)
       and (o.blocking or o.lease_owner is not null or not exists (
               select from operations other
                where other.finished_at is null and other.project_id = o.project_id and other.id <> o.id
                  and (other.blocking or other.lease_owner is not null)))"""

_EXTEND: LiteralString = """
    update operations set lease_until = statement_timestamp() + %(lease)s * interval '1 second'
     where id = any (%(ids)s) and lease_owner = %(owner)s
    returning id"""

_RECORD_STEP: LiteralString = """
    update operations
       set steps_done = %(steps)s, lease_until = statement_timestamp() + %(lease)s * interval '1 second'
     where id = %(id)s and lease_owner = %(owner)s"""

_POSTPONE: LiteralString = """
    update operations
       set status = %(status)s, steps_done = %(steps)s, error = %(error)s, failures_count = %(failures)s,
           retry_at = %(at)s, updated_at = statement_timestamp(), lease_owner = null, lease_until = null
     where id = %(id)s and lease_owner = %(owner)s"""

_END: LiteralString = """
    update operations
       set status = %(status)s, steps_done = %(steps)s, error = %(error)s, failures_count = %(failures)s,
           retry_at = null, finished_at = statement_timestamp(), updated_at = statement_timestamp(),
           lease_owner = null, lease_until = null
     where id = %(id)s and lease_owner = %(owner)s
    returning id"""

# One statement, so that what follows from the failure happens once: when the lease is gone, `failed` is empty.
_FAIL: LiteralString = """
    with failed as (
        update operations
           set status = %(status)s, steps_done = %(steps)s, error = %(error)s, failures_count = %(failures)s,
               retry_at = null, finished_at = statement_timestamp(), updated_at = statement_timestamp(),
               lease_owner = null, lease_until = null
         where id = %(id)s and lease_owner = %(owner)s
        returning *),
    withdrawn as (
        update operations o
           set status = %(withdrawn)s, error = %(reason)s, finished_at = statement_timestamp(),
               updated_at = statement_timestamp()
          from failed
         where o.group_id = failed.group_id and o.project_id = failed.project_id and o.seq > failed.seq
           and o.finished_at is null
        returning o.*),
    followed_up as (
        insert into operations
            (id, project_id, branch_id, endpoint_id, kind, action, status, visible, blocking, group_id, arguments,
             error, failures_count, retry_at, created_at, updated_at)
        select gen_random_uuid(), project_id, branch_id, endpoint_id, kind, action, %(waiting)s, false, false,
               gen_random_uuid(), arguments, error, failures_count, %(at)s::timestamptz,
               statement_timestamp(), statement_timestamp()
          from (select * from failed union all select * from withdrawn) as lost
         where kind = any (%(kinds)s)
         order by seq)
    select id from failed"""

_PRUNE: LiteralString = """
    with batch as (
        select id, seq, created_at, finished_at from operations where seq > %(last)s order by seq limit %(batch)s),
    gone as (
        delete from operations o using batch
         where o.id = batch.id and batch.finished_at < %(before)s
        returning o.id)
    select (select count(*) from gone) as deleted, max(seq) as last,
           coalesce(bool_or(created_at < %(before)s), false) as more
      from batch"""

_RELEASE: LiteralString = """
    update operations set lease_owner = null, lease_until = null
     where finished_at is null and lease_owner = %s"""


# A commit that does not wait for the disk. What a crash of the catalog can lose here is the record of a step, which
# bears to run again anyway, a lease's renewal, or a claim: the operation is then claimed once more, the engine that had
# it finds out at its next write or heartbeat, and steps run again. How an operation ended never goes through here.
_RELAX: LiteralString = "set local synchronous_commit = off"


@dataclass(frozen=True, slots=True)
class Lease:
    """Who claims, and for how many seconds."""

    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What an operation leaves behind when it fails: a copy for each of `kinds`, to be run from `at` on.

    It is for the operation that failed and for those cancelled with it. The copy is invisible, begins with the first
    step, and runs in the background: only while no other operation of its project is left to run, and the project
    counts as idle all the same. What is scheduled while it runs waits for it.
    """

    kinds: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Ending:
    """How an operation ended: the event, the text for clients, and all failures on the way.

    `follow_up` counts only when the event is a failure.
    """

    event: Event
    steps_done: tuple[str, ...]
    error: str | None = None
    failures: int = 0
    follow_up: FollowUp | None = None


async def enqueue(
    conn: Connection,
    project_id: str,
    ops: Sequence[NewOperation],
    *,
    group_id: UUID,
    ids: Callable[[], UUID],
    now: datetime,
    running: int = 1,
) -> list[Operation]:
    """Schedule `ops` in this order, in the caller's transaction; engines are woken when it commits.

    As Neon answers, the first `running` visible ones (and what is invisible before them) are `running` already, the
    others `scheduling`. `group_id` binds them together: when one fails, those after it are cancelled.
    The caller holds the lock of the project's row.
    """
    if not ops:
        return []
    shown = 0
    rows: list[dict[str, Any]] = []
    for position, op in enumerate(ops):
        status = Status.RUNNING if shown < running else Status.SCHEDULING
        shown += op.visible
        rows.append(_new_row(op, position=position, id=ids(), status=status))
    values = {"project": project_id, "group": group_id, "operations": Jsonb(rows), "now": now}
    async with _cursor(conn) as cursor:
        await cursor.execute(_ENQUEUE, values)
        found = sorted(map(Operation.from_row, await cursor.fetchall()), key=lambda op: op.seq)
        await cursor.execute("select pg_notify(%s, %s)", (CHANNEL, project_id))
    return found


def _new_row(op: NewOperation, *, position: int, id: UUID, status: Status) -> dict[str, Any]:  # noqa: A002 - Neon's name
    return {
        "id": str(id),
        "branch_id": op.branch_id,
        "endpoint_id": op.endpoint_id,
        "kind": op.kind,
        "action": op.action,
        "status": status,
        "visible": op.visible,
        "arguments": dict(op.arguments),
        "position": position,
    }


async def require_idle(conn: Connection, project_id: str) -> None:
    """Raises ProjectBusy while any operation of the project, seen by clients or not, has not ended.

    What is tried again in the background does not count. The caller holds the lock of the project's row, and got it in
    an earlier statement than this one.
    """
    if await is_busy(conn, project_id):
        raise ProjectBusy(project_id)


async def is_busy(conn: Connection, project_id: str | None = None) -> bool:
    """Whether an operation of the project, or of any project, has not ended; those in the background do not count."""
    async with _cursor(conn) as cursor:
        if project_id is None:
            await cursor.execute(_ANY_BUSY)
        else:
            await cursor.execute(_BUSY, (project_id,))
        row = await cursor.fetchone()
    return row is not None and bool(row["busy"])


async def get(conn: Connection, project_id: str, id: UUID) -> Operation:  # noqa: A002 - Neon's name
    """One visible operation. Raises NotFound."""
    async with _cursor(conn) as cursor:
        await cursor.execute(_GET, (project_id, id))
        row = await cursor.fetchone()
    if row is None:
        raise NotFound("operation not found")
    return Operation.from_row(row)


async def page(
    conn: Connection, project_id: str, *, limit: int, cursor: str | None = None
) -> tuple[list[Operation], str | None]:
    """Up to `limit` visible operations, newest first, and the cursor of the page after.

    Every page that is not empty has a cursor, also the last one: the page after that is empty and has none.
    Raises BadRequest for a malformed cursor.
    """
    before = None if cursor is None else parse_cursor(cursor)
    async with _cursor(conn) as reader:
        await reader.execute(_PAGE, {"project": project_id, "before": before, "limit": limit})
        found = [Operation.from_row(row) for row in await reader.fetchall()]
    return found, found[-1].cursor if found else None


async def claim(
    conn: Connection, lease: Lease, *, limit: int, busy: Iterable[str]
) -> tuple[list[Operation], float | None]:
    """Take up to `limit` operations, one a project and none of the projects `busy`, in the order they were scheduled.

    Also answers in how many seconds something else falls due (a retry, a lease that may expire; negative when it is
    overdue), or None. `conn` is in autocommit.
    """
    values = _claim_values(lease, project_id=None, limit=limit, busy=list(busy))
    async with _cursor(conn) as claimed, _cursor(conn) as due:
        try:
            async with conn.pipeline(), conn.transaction():
                await conn.execute(_RELAX, prepare=True)
                await claimed.execute(_CLAIM, values, prepare=True)
                await due.execute(_NEXT_DUE, values, prepare=True)
        except UniqueViolation:
            # Another engine took another operation of one of these projects in the same moment: look again at once.
            return [], 0.0
        rows = await claimed.fetchall()
        row = await due.fetchone()
    return sorted(map(Operation.from_row, rows), key=lambda op: op.seq), None if row is None else row["seconds"]


def _claim_values(lease: Lease, *, project_id: str | None, limit: int, busy: list[str]) -> dict[str, Any]:
    return {
        "project": project_id,
        "owner": lease.owner,
        "lease": lease.seconds,
        "limit": limit,
        "busy": busy,
        "status": Status.RUNNING,
    }


async def extend(conn: Connection, lease: Lease, ids: Iterable[UUID]) -> set[UUID]:
    """Renew the leases of these operations; answers whose are still the owner's."""
    values = {"ids": list(ids), "owner": lease.owner, "lease": lease.seconds}
    async with _cursor(conn) as cursor:
        await _execute_relaxed(conn, cursor, _EXTEND, values)
        return {row["id"] for row in await cursor.fetchall()}


async def record_step(conn: Connection, lease: Lease, op: Operation) -> None:
    """Write down `op.steps_done`, and renew the lease. Raises LeaseLost."""
    values = {"steps": list(op.steps_done), "lease": lease.seconds, "id": op.id, "owner": lease.owner}
    async with _cursor(conn) as cursor:
        await _execute_relaxed(conn, cursor, _RECORD_STEP, values)
        if cursor.rowcount != 1:
            raise LeaseLost(op.id)


async def postpone(conn: Connection, lease: Lease, op: Operation, *, error: str, retry: Retry) -> None:
    """Let go of an operation that failed and shall be tried again. Raises LeaseLost."""
    values = {
        "status": after(op.status, Event.POSTPONED),
        "steps": list(op.steps_done),
        "error": error,
        "failures": op.failures_count + 1,
        "at": retry.at,
        "id": op.id,
        "owner": lease.owner,
    }
    async with _cursor(conn) as cursor:
        await cursor.execute(_POSTPONE, values)
        if cursor.rowcount != 1:
            raise LeaseLost(op.id)


async def end(
    conn: Connection,
    lease: Lease,
    op: Operation,
    ending: Ending,
    *,
    claim_next: bool,
    on_finish: FinishFunction | None = None,
) -> tuple[bool, Operation | None]:
    """Record how `op` ended and take the project's next operation, in one durable commit.

    Answers whether the lease still held (otherwise nothing was recorded), and the next operation if one is due. All of
    it takes one round trip, unless there is an `on_finish`: that is called in the same transaction if the lease held,
    and what it raises undoes everything.
    """
    query, values = _ending_query(lease, op, ending)
    following = _claim_values(lease, project_id=op.project_id, limit=1, busy=[])
    async with _cursor(conn) as ended, _cursor(conn) as claimed:
        if on_finish is None:
            async with conn.pipeline(), conn.transaction():
                await ended.execute(query, values, prepare=True)
                if claim_next:
                    await claimed.execute(_CLAIM, following, prepare=True)
            # Only now: to fetch inside the pipeline would cost a round trip before the commit.
            held = await ended.fetchone() is not None
        else:
            async with conn.transaction():
                await ended.execute(query, values, prepare=True)
                held = await ended.fetchone() is not None
                if held:
                    await on_finish(op, conn)
                if claim_next:
                    await claimed.execute(_CLAIM, following, prepare=True)
        row = await claimed.fetchone() if claim_next else None
    return held, None if row is None else Operation.from_row(row)


def _ending_query(lease: Lease, op: Operation, ending: Ending) -> tuple[LiteralString, dict[str, Any]]:
    values = {
        "status": after(op.status, ending.event),
        "steps": list(ending.steps_done),
        "error": ending.error,
        "failures": ending.failures,
        "id": op.id,
        "owner": lease.owner,
    }
    if ending.event not in FATAL:
        return _END, values
    follow_up = ending.follow_up
    return _FAIL, values | {
        "withdrawn": after(Status.SCHEDULING, Event.WITHDRAWN),
        "reason": f"cancelled, since the operation {op.id} before it failed",
        "waiting": Status.SCHEDULING,
        "kinds": [] if follow_up is None else list(follow_up.kinds),
        "at": None if follow_up is None else follow_up.at,
    }


async def release(conn: Connection, owner: str) -> int:
    """Give up all leases of `owner`, so that anybody may claim at once; answers how many there were."""
    return (await conn.execute(_RELEASE, (owner,))).rowcount


async def prune(conn: Connection, *, before: datetime) -> int:
    """Delete the operations that ended before `before`, and answer how many there were. `conn` is in autocommit.

    Each batch commits by itself. It goes through them in the order in which they were scheduled and stops at the first
    batch that is all younger, so the price is that of the old ones; one that took very long may stay for another time.
    """
    deleted: int = 0
    last: int = 0
    while True:
        async with _cursor(conn) as cursor:
            await cursor.execute(_PRUNE, {"before": before, "last": last, "batch": PRUNE_BATCH})
            row = await cursor.fetchone()
        assert row is not None
        deleted += row["deleted"]
        if not row["more"]:
            return deleted
        last = row["last"]


def _cursor(conn: Connection) -> AsyncCursor[DictRow]:
    return conn.cursor(row_factory=dict_row)


async def _execute_relaxed(
    conn: Connection, cursor: AsyncCursor[DictRow], query: LiteralString, values: Mapping[str, Any]
) -> None:
    async with conn.pipeline(), conn.transaction():
        await conn.execute(_RELAX, prepare=True)
        await cursor.execute(query, values, prepare=True)
