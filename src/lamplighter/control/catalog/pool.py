"""Connections to the catalog.

Rows are dictionaries, times are in UTC, and each statement commits by itself unless `transaction()` is used. The
catalog may restart below us: a dead connection is noticed before it is handed out, without a round trip.
"""

from __future__ import annotations

import select
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Identifier
from psycopg_pool import AsyncConnectionPool

Connection = AsyncConnection[DictRow]

#: Nothing we do waits this long for a lock or forgets a transaction for so long, unless something is wrong.
_SESSION = "-c TimeZone=UTC -c jit=off -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"


class Catalog:
    """A pool of connections to one catalog. Made by `open_pool`; `close()` it."""

    def __init__(self, pool: AsyncConnectionPool[Connection], *, conninfo: str, options: dict[str, Any]) -> None:
        self._pool = pool
        self._conninfo = conninfo
        self._options = options

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit. Raises psycopg_pool.PoolTimeout when none is free in time."""
        conn = await self._take_living()
        try:
            async with conn:
                yield conn
        finally:
            await self._pool.putconn(conn)

    async def _take_living(self) -> Connection:
        # Not the pool's own check: after each dead connection that waits for a second, then for two, four and so on.
        while True:
            conn = await self._pool.getconn()
            try:
                if _has_something_to_say(conn):
                    await self._pool.check_connection(conn)
            except psycopg.OperationalError:
                await self._pool.putconn(conn)
            except BaseException:
                await self._pool.putconn(conn)
                raise
            else:
                return conn

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction that is committed at the end of the block, or undone by an exception."""
        async with self.connection() as conn, conn.transaction():
            yield conn

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[AsyncGenerator[str, None]]:
        """The payloads notified on `channel` from now on, over a connection of its own.

        The generator raises psycopg.OperationalError when the connection is lost.
        """
        async with await _connect(self._conninfo, self._options) as conn:
            await conn.execute(SQL("listen {}").format(Identifier(channel)))
            async with aclosing(_payloads(conn)) as payloads:
                yield payloads

    async def close(self) -> None:
        """Close what is idle now, and what is in use as soon as it is given back."""
        await self._pool.close()


async def open_pool(conninfo: str, *, min_size: int = 2, max_size: int = 10, timeout: float = 10.0) -> Catalog:  # noqa: ASYNC109 - the pool's own limit
    """Connect to the catalog with `min_size` connections at once and up to `max_size` as needed.

    `timeout` is in seconds, for this opening and later for each wait for a free connection.
    Raises psycopg_pool.PoolTimeout when the catalog does not answer in time.
    """
    options = _connection_options(conninfo)
    pool = AsyncConnectionPool[Connection](
        conninfo,
        kwargs=options,
        min_size=min_size,
        max_size=max_size,
        timeout=timeout,
        # When it gives up, the next request for a connection tries again: sooner than its ever longer pauses would.
        reconnect_timeout=2.0,
        open=False,
        name="catalog",
    )
    try:
        await pool.open(wait=True, timeout=timeout)
    except BaseException:
        await pool.close()
        raise
    return Catalog(pool, conninfo=conninfo, options=options)


def _connection_options(conninfo: str) -> dict[str, Any]:
    # Options given twice would replace each other: those of the caller come last, so that they win.
    given = conninfo_to_dict(conninfo).get("options") or ""
    return {"autocommit": True, "row_factory": dict_row, "options": f"{_SESSION} {given}".rstrip()}


async def _connect(conninfo: str, options: dict[str, Any]) -> Connection:
    return await AsyncConnection[DictRow].connect(conninfo, **options)


async def _payloads(conn: Connection) -> AsyncGenerator[str, None]:
    async for note in conn.notifies():
        yield note.payload


def _has_something_to_say(conn: Connection) -> bool:
    # An idle connection is silent. If there is something to read, it is most likely the server's farewell: only then is
    # a round trip worth its price. poll() because select() cannot take descriptors above 1023.
    poller = select.poll()
    poller.register(conn.fileno(), select.POLLIN)
    return bool(poller.poll(0))
