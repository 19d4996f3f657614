"""One connection to an endpoint by libpq, without blocking: log in, run a statement, cancel, clear, close.

It needs libpq 17 or later, which psycopg's binary package brings. One task at a time uses a session. Whatever raises
but SqlFailed leaves it unfit for anything but `abandon`.
"""

from __future__ import annotations

import array
import asyncio
import base64
import contextlib
import fcntl
import select
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn, PGresult

from lamplighter.gateway.serverless.asked import Cost, NotUnderstood, Watch
from lamplighter.gateway.serverless.connection_string import Connection
from lamplighter.gateway.serverless.diagnostics import login_failed, sql_failed
from lamplighter.gateway.serverless.errors import ConnectionLost, ResponseTooLarge, SqlFailed, TooManyIterations
from lamplighter.gateway.serverless.hashing import apart
from lamplighter.gateway.serverless.targets import Target
from lamplighter.gateway.wire import scram

#: Rows that libpq hands over at once: few enough to count their bytes in time.
CHUNK_ROWS = 128
CANCEL_SECONDS = 5.0
RESET_SECONDS = 5.0
#: Iterations of SCRAM that libpq may do in the event loop: some ten milliseconds. Postgres' own default is 4,096.
CHEAP_ITERATIONS = 10_000
#: Beyond that they are done apart, by libpq 18, which takes the keys that come out; older ones only take the password.
MOST_ITERATIONS = scram.MOST_ITERATIONS if pq.version() >= 18_00_00 else CHEAP_ITERATIONS

_ROWS = {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.SINGLE_TUPLE}
_DONE = {*_ROWS, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY}
_COPIES = {pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH}
_READ, _WRITE = 1, 2


@dataclass(frozen=True, slots=True)
class Finished:
    """A statement's command tag, and its columns in a result without rows."""

    tag: bytes
    columns: PGresult


class Session:
    """A connection that is logged in."""

    def __init__(self, pgconn: PGconn) -> None:
        self._pg = pgconn
        self._fd = pgconn.socket

    @property
    def idle(self) -> bool:
        """Nothing runs, and no transaction is open."""
        return self._pg.transaction_status == pq.TransactionStatus.IDLE

    async def execute(
        self,
        query: str,
        parameters: Sequence[str | None] = (),
        *,
        on_rows: Callable[[PGresult], None] | None = None,
        most_bytes: int,
    ) -> Finished:
        """Run one statement. `on_rows` gets its rows by and by.

        Raises SqlFailed, ConnectionLost, ResponseTooLarge when Postgres sends more than twice `most_bytes`, and
        whatever `on_rows` raises.
        """
        await self._send(query, parameters)
        last = failed = None
        tag = b""
        received = 0
        while True:
            received += await self._fill(2 * most_bytes - received, most_bytes)
            result = self._pg.get_result()
            if result is None:
                break
            if result.status in _COPIES:
                raise SqlFailed(
                    "unexpected message from server: COPY is not available over HTTP, use a Postgres connection",
                    {"severity": "ERROR", "code": "08P01"},
                )
            if result.status not in _DONE:
                # The first one is Postgres' reason; after it libpq may complain that the connection ended.
                failed = failed or sql_failed(result)
                continue
            last = result
            # libpq leaves it at the last rows, or at the end of them, as it happens.
            tag = result.command_status or tag
            if on_rows is not None and result.status in _ROWS:
                on_rows(result)
        if failed is not None:
            # Without a code it is libpq that speaks, not Postgres.
            raise failed if failed.fields["code"] else ConnectionLost(failed.message)
        if last is None:
            raise ConnectionLost
        return Finished(tag, last)

    async def _send(self, query: str, parameters: Sequence[str | None]) -> None:
        values = [None if value is None else value.encode() for value in parameters]
        try:
            self._pg.send_query_params(query.encode(), values)
            self._pg.set_chunked_rows_mode(CHUNK_ROWS)
            while self._pg.flush():
                # Postgres may not read on before we have read what it says, such as notices.
                if await _ready(self._fd, _READ | _WRITE) & _READ:
                    self._pg.consume_input()
        except psycopg.OperationalError as error:
            raise ConnectionLost(_said(error)) from error

    async def _fill(self, allowed: int, most_bytes: int) -> int:
        """Read until a result is there. Gives how many bytes came, or a little less."""
        received = 0
        while self._pg.is_busy():
            await _ready(self._fd, _READ)
            waiting = _waiting(self._fd)
            try:
                self._pg.consume_input()
            except psycopg.OperationalError:
                # The reason may be among what was read before the end: get_result has it, and does not wait.
                return received
            # A row is in no result before it is whole, and it can have a gigabyte.
            received += max(waiting - _waiting(self._fd), 0)
            if received > allowed:
                raise ResponseTooLarge(most_bytes)
        return received

    async def clear(self) -> bool:
        """Make it as new for the next caller. False: it cannot be, abandon it."""
        if not self.idle:
            return False
        try:
            async with asyncio.timeout(RESET_SECONDS):
                await self.execute("DISCARD ALL", most_bytes=1 << 20)
        except (SqlFailed, ConnectionLost, ResponseTooLarge, TimeoutError):
            return False
        return self.idle

    @property
    def usable(self) -> bool:
        """Whether it can be used again: the server has said nothing since, not even that it ends."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return self.idle and not poll.poll(0)

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` when the server says anything while nobody uses it: mostly, that it ends."""
        asyncio.get_running_loop().add_reader(self._fd, gone)

    def unwatch(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)

    async def abandon(self) -> None:
        """End what runs, and close. Closing alone would let a statement run on to its end."""
        try:
            if self._pg.transaction_status == pq.TransactionStatus.ACTIVE:
                with contextlib.suppress(psycopg.Error, TimeoutError):
                    async with asyncio.timeout(CANCEL_SECONDS):
                        await self._cancel()
        finally:
            self.close()

    async def _cancel(self) -> None:
        request = self._pg.cancel_conn()
        try:
            request.start()
            while (status := request.poll()) in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
                await _ready(request.socket, _READ if status == pq.PollingStatus.READING else _WRITE)
        finally:
            request.finish()

    def close(self) -> None:
        if self._pg.status == pq.ConnStatus.OK:
            asyncio.get_running_loop().remove_reader(self._fd)
        self._pg.finish()


async def connect(target: Target, connection: Connection, *, seconds: float) -> Session:
    """Log in, which may wake the endpoint first. Raises SqlFailed as the server said it, and ConnectionLost.

    Raises TooManyIterations for a role whose password would cost us too much.
    """
    try:
        async with asyncio.timeout(seconds):
            try:
                return await _connected(target, connection)
            except _Costly as costly:
                return await _connected(target, connection, await _Keys.made(connection, costly.cost))
    except TimeoutError as error:
        raise ConnectionLost(f"the endpoint did not answer within {seconds:g} seconds") from error
    except _Costly as error:
        raise ConnectionLost("the role's password was changed during the login") from error


class _Costly(Exception):
    """libpq would have to hash for long."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        super().__init__(f"{cost.iterations} iterations")


@dataclass(frozen=True, slots=True)
class _Keys:
    """What libpq would have computed at this cost."""

    cost: Cost
    client: str
    server: str

    @classmethod
    async def made(cls, connection: Connection, cost: Cost) -> _Keys:
        """Raises TooManyIterations."""
        if cost.iterations > MOST_ITERATIONS:
            raise TooManyIterations(cost.iterations, MOST_ITERATIONS)
        keys = await apart(partial(scram.keys_of, connection.password.encode(), cost.salt, cost.iterations))
        return cls(cost, *(base64.b64encode(key).decode() for key in (keys.client_key, keys.server_key)))

    @property
    def parameters(self) -> dict[str, str]:
        return {"scram_client_key": self.client, "scram_server_key": self.server}


async def _connected(target: Target, connection: Connection, keys: _Keys | None = None) -> Session:
    """Raises _Costly where libpq would have to hash for long, unless `keys` are what would come out."""
    more = keys.parameters if keys is not None else {}
    pgconn = pq.PGconn.connect_start(conninfo(target, connection, **more).encode())
    try:
        await _log_in(pgconn, keys.cost if keys is not None else None)
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    return Session(pgconn)


async def _log_in(pgconn: PGconn, paid: Cost | None) -> None:
    watch = Watch()
    while pgconn.status != pq.ConnStatus.BAD:
        status = pgconn.connect_poll()
        if status == pq.PollingStatus.OK:
            return
        if status == pq.PollingStatus.FAILED:
            break
        if status == pq.PollingStatus.WRITING:
            await _ready(pgconn.socket, _WRITE)
            continue
        await _ready(pgconn.socket, _READ)
        try:
            cost = await watch.ahead(pgconn.socket)
        except NotUnderstood as error:
            raise ConnectionLost("the endpoint does not answer as Postgres does") from error
        if cost is not None and cost != paid and (paid is not None or cost.iterations > CHEAP_ITERATIONS):
            raise _Costly(cost)
    message = pgconn.get_error_message()
    # What libpq says before concerns this host alone: addresses and paths.
    why = message.strip().partition("\n")[0].rpartition(" failed: ")[2]
    raise login_failed(message) or ConnectionLost(f"the endpoint does not answer: {why}")


def conninfo(target: Target, connection: Connection, **more: str) -> str:
    """Everything that libpq would else take from the environment of this process is said."""
    unix = target.unix_path is not None
    return make_conninfo(
        "",
        host=target.address if unix else "",
        hostaddr="" if unix else target.address,
        port=target.port,
        user=connection.user,
        password=connection.password,
        dbname=connection.database,
        application_name=connection.application_name,
        options=connection.options,
        client_encoding="UTF8",
        # The way there does not leave this host.
        sslmode="disable",
        gssencmode="disable",
        channel_binding="disable",
        # Whoever might have taken the port must not be told the password.
        require_auth="scram-sha-256",
        target_session_attrs="any",
        **more,
    )


def _said(error: psycopg.Error) -> str:
    return str(error).strip() or "the connection to the endpoint was lost"


def _waiting(fd: int) -> int:
    """Bytes that have come and are not read."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


async def _ready(fd: int, wanted: int) -> int:
    """Wait until a socket can be read or written; says which."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()

    def set_ready(which: int) -> None:
        if not future.done():
            future.set_result(which)

    try:
        if wanted & _READ:
            loop.add_reader(fd, set_ready, _READ)
        if wanted & _WRITE:
            loop.add_writer(fd, set_ready, _WRITE)
        return await future
    finally:
        if wanted & _READ:
            loop.remove_reader(fd)
        if wanted & _WRITE:
            loop.remove_writer(fd)
