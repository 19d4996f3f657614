"""`/v2`: Postgres' protocol inside WebSocket messages, for clients that cannot open a socket.

The driver sends its startup, its password in clear text and its first query at once. So clear text is what it is asked
for here, and the endpoint is logged in to by SCRAM; from then on bytes are passed on both ways.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from urllib.parse import parse_qs

import structlog
from starlette.types import Message, Receive, Scope, Send

from lamplighter.gateway.serverless.bounded_websocket import BoundedWebSocket
from lamplighter.gateway.serverless.connection_string import host_and_port, options_for_postgres
from lamplighter.gateway.serverless.errors import BadConnectionString, ServerlessError
from lamplighter.gateway.serverless.hashing import apart
from lamplighter.gateway.serverless.limits import Budget, Limits
from lamplighter.gateway.serverless.login import Login
from lamplighter.gateway.serverless.scopes import SOCKET, client_of, note_login
from lamplighter.gateway.serverless.targets import Resolve, Target
from lamplighter.gateway.wire import messages
from lamplighter.gateway.wire.errors import Malformed, WireError
from lamplighter.gateway.wire.startup import LONGEST, Kind, Opening, Startup, classify, parse_startup

log = structlog.get_logger(__name__)

PATH = "/v2"
_CHUNK = 64 * 1024
_LINGER_SECONDS = 5.0
_NORMAL, _UNSUPPORTED = 1000, 1003


class _Gone(Exception):
    """The client closed, or broke the rules; there is nobody to tell."""


class Client:
    """The client's end: bytes in order, whatever messages they came in."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._kept = b""

    async def accept(self) -> None:
        await self._receive()
        await self._send({"type": "websocket.accept"})

    async def piece(self) -> bytes:
        """Some bytes, at least one. Raises _Gone."""
        if self._kept:
            piece, self._kept = self._kept, b""
            return piece
        while True:
            message: Message = await self._receive()
            if message["type"] == "websocket.disconnect":
                raise _Gone
            if message.get("text") is not None:
                await self.close(_UNSUPPORTED, "unexpected text message in the websocket")
                raise _Gone
            if message.get("bytes"):
                return bytes(message["bytes"])

    def put_back(self, rest: bytes) -> None:
        self._kept = rest + self._kept

    async def write(self, data: bytes) -> None:
        """Returns when the client has taken most of what it was sent before."""
        await self._send({"type": "websocket.send", "bytes": data})

    async def close(self, code: int = _NORMAL, reason: str = "") -> None:
        # It may be closed already.
        with contextlib.suppress(RuntimeError, OSError):
            await self._send({"type": "websocket.close", "code": code, "reason": reason})


@dataclass(frozen=True, slots=True)
class _LoggedIn:
    """`first` is what the client gets first of the endpoint."""

    first: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class PostgresOverWebSocket:
    """Serves one session for each connection. What of it is on its way is held of `budget`, before a login of another.

    `strangers` is that other one: who cannot log in takes no room from those who are in.
    """

    def __init__(
        self, resolve: Resolve, limits: Limits, *, budget: Budget, strangers: Budget, connect_seconds: float
    ) -> None:
        self._resolve = resolve
        self._budget = budget
        self._strangers = strangers
        self._hello_seconds = limits.hello_seconds
        self._connect_seconds = connect_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(receive, send)
        await client.accept()
        try:
            await self._serve(scope, client)
        except _Gone:
            return
        except TimeoutError:
            await _tell(client, "57P03", "the endpoint or the client was too slow to log in")
        except WireError as error:
            await _tell(client, error.code, error.message)
        except ServerlessError as error:
            await _tell(client, error.fields.get("code") or "XX000", error.message)
        except OSError:
            await _tell(client, "08006", "the endpoint does not answer")
        except Exception:
            log.exception("serverless.websocket_failed")
            await _tell(client, "XX000", "internal error")
        await client.close()

    async def _serve(self, scope: Scope, client: Client) -> None:
        async with contextlib.AsyncExitStack() as session:
            with _charged(scope, self._strangers):
                found = await self._log_in(scope, client, session)
            if found is not None:
                note_login(scope)
                with _charged(scope, self._budget):
                    await client.write(found.first)
                    await _pump(client, found.reader, found.writer)

    async def _log_in(self, scope: Scope, client: Client, session: contextlib.AsyncExitStack) -> _LoggedIn | None:
        """Connect, for as long as `session`; None for who is not let in, which it is told, and for a cancel request."""
        async with asyncio.timeout(self._hello_seconds):
            opening, packet = await _opening(client)
        target = await self._target(scope)
        if opening.kind is Kind.CANCEL_REQUEST:
            await self._cancel(target, packet)
            return None
        startup = _for_postgres(parse_startup(packet))
        await client.write(messages.authentication_cleartext())
        async with asyncio.timeout(self._hello_seconds):
            password = await _password(client)
        async with asyncio.timeout(self._connect_seconds):
            reader, writer = await session.enter_async_context(_connected(target))
            first, logged_in = await _log_in(startup, password, reader, writer)
        if logged_in:
            return _LoggedIn(first, reader, writer)
        await client.write(first)
        return None

    async def _target(self, scope: Scope) -> Target:
        said = parse_qs(scope["query_string"].decode("latin-1")).get("address")
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"]
        if not said and not hosts:
            raise BadConnectionString("missing hostname")
        target = await self._resolve(*host_and_port((said or hosts)[0]))
        target.check(scope)
        return target

    async def _cancel(self, target: Target, packet: bytes) -> None:
        async with asyncio.timeout(self._connect_seconds), _connected(target) as (reader, writer):
            writer.write(packet)
            await writer.drain()
            # Postgres closes when it has done it.
            await reader.read(1)


@contextlib.contextmanager
def _charged(scope: Scope, budget: Budget) -> Iterator[None]:
    """What the connection holds meanwhile is held of this. Raises TooBusy."""
    socket: BoundedWebSocket = scope[SOCKET]
    with budget.share(client_of(scope)) as share:
        try:
            socket.charge(share)
            yield
        finally:
            socket.charge_nobody()


def _for_postgres(startup: Startup) -> Startup:
    options = startup.options
    return startup if options is None else startup.with_parameter("options", options_for_postgres(options) or None)


async def _tell(client: Client, code: str, message: str) -> None:
    with contextlib.suppress(RuntimeError, OSError):
        await client.write(messages.error_response("FATAL", code, message))


async def _opening(client: Client) -> tuple[Opening, bytes]:
    """The startup packet or cancel request, whole. Raises Malformed."""
    kept = b""
    while True:
        kept += await client.piece()
        opening = classify(kept)
        if opening is not None and opening.kind in {Kind.SSL_REQUEST, Kind.GSSENC_REQUEST}:
            await client.write(b"N")
            kept = kept[opening.length :]
            opening = classify(kept)
        if opening is not None and opening.kind not in {Kind.STARTUP, Kind.CANCEL_REQUEST}:
            raise Malformed("expected a startup packet of PostgreSQL's protocol 3")
        if opening is not None and len(kept) >= opening.length:
            client.put_back(kept[opening.length :])
            return opening, kept[: opening.length]
        assert len(kept) <= LONGEST


async def _password(client: Client) -> bytes:
    frames = messages.Frames()
    while (message := frames.pop()) is None:
        frames.push(await client.piece())
    client.put_back(frames.rest())
    if message.kind != b"p":
        raise Malformed(f"expected password response, got message type {message.kind[0]}")
    return messages.parse_password(message.body)


@contextlib.asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    if target.unix_path is not None:
        reader, writer = await asyncio.open_unix_connection(target.unix_path, limit=_CHUNK)
    else:
        reader, writer = await asyncio.open_connection(target.address, target.port, limit=_CHUNK)
    try:
        yield reader, writer
    finally:
        writer.close()
        # An endpoint that waits for us to read does not take what is left.
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await writer.wait_closed()
        writer.transport.abort()


async def _log_in(
    startup: Startup, password: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[bytes, bool]:
    """Give what the client gets first, and whether it is in. Raises WireError, OSError."""
    login = Login(startup, password, base64.b64encode(secrets.token_bytes(18)).decode())
    answer = login.begin()
    while True:
        writer.write(answer)
        await writer.drain()
        piece = await reader.read(_CHUNK)
        if not piece:
            raise Malformed("the endpoint closed the connection during the login", code="08006")
        # It may hash the password for long.
        answer = await apart(partial(login.feed, piece))
        if login.over:
            return login.to_client, login.welcome


async def _pump(client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on, until either end is done. Neither way is read faster than the other end takes it."""
    out = asyncio.ensure_future(_to_endpoint(client, writer))
    back = asyncio.ensure_future(_to_client(reader, client))
    try:
        done, _ = await asyncio.wait({out, back}, return_when=asyncio.FIRST_COMPLETED)
        if out in done and isinstance(out.exception(), OSError):
            # What the endpoint said last tells why it closed.
            await back
        for task in done:
            task.result()
    finally:
        out.cancel()
        back.cancel()
        await asyncio.gather(out, back, return_exceptions=True)


async def _to_endpoint(client: Client, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(await client.piece())
        await writer.drain()


async def _to_client(reader: asyncio.StreamReader, client: Client) -> None:
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(_CHUNK):
            await client.write(piece)
