"""`POST /sql` and `OPTIONS /sql`, as Neon's proxy answers them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass

import structlog
from starlette.types import Receive, Scope, Send

from lamplighter.gateway.serverless import answers, connection_string
from lamplighter.gateway.serverless.errors import (
    BadConnectionString,
    NotAvailable,
    RequestTooLarge,
    RequestTooSlow,
    ServerlessError,
)
from lamplighter.gateway.serverless.limits import Budget, Limits, Share
from lamplighter.gateway.serverless.running import run
from lamplighter.gateway.serverless.scopes import BEGAN, client_of, note_login
from lamplighter.gateway.serverless.statements import manner, read_body
from lamplighter.gateway.serverless.targets import Resolve
from lamplighter.gateway.serverless.warm import Warm

log = structlog.get_logger(__name__)

PATH = "/sql"
#: Bytes of an answer that are sent at once: the next ones wait until the caller has taken these.
_PIECE = 64 * 1024
_PREFLIGHT = {
    "allow": "OPTIONS, POST",
    "access-control-allow-headers": "Authorization, Neon-Connection-String, Neon-Raw-Text-Output, Neon-Array-Mode, "
    "Neon-Pool-Opt-In, Neon-Batch-Read-Only, Neon-Batch-Isolation-Level, Neon-Batch-Deferrable",
    "access-control-max-age": "86400",
}


class _Left(Exception):
    """The caller went away before the end of its request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes and headers of a response, beside those that each one has."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class SqlOverHttp:
    """Serves one request at a time and caller, many at once."""

    def __init__(self, resolve: Resolve, warm: Warm, limits: Limits, budget: Budget) -> None:
        self._resolve = resolve
        self._warm = warm
        self._limits = limits
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._budget.share(client_of(scope)) as share:
            try:
                answer = await self._routed(scope, receive, share)
            except _Left:
                return
            await _send(send, answer)

    async def _routed(self, scope: Scope, receive: Receive, share: Share) -> Answer:
        if scope["path"] == PATH and scope["method"] == "OPTIONS":
            return Answer(200, b"", _PREFLIGHT)
        if scope["path"] != PATH or scope["method"] != "POST":
            return Answer(400, json.dumps("query is not supported").encode(), _json())
        try:
            return await self._answer(scope, receive, share)
        except ServerlessError as error:
            # What is still to come of a request that was too slow is not waited for.
            more = {"connection": "close"} if isinstance(error, RequestTooSlow) else {}
            return Answer(error.status, answers.error(error.message, error.fields).encode(), _json() | more)
        except _Left:
            raise
        except Exception:
            log.exception("serverless.failed")
            return Answer(500, answers.error("internal error", {}).encode(), _json())

    async def _answer(self, scope: Scope, receive: Receive, share: Share) -> Answer:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("authorization", "").lower().startswith("bearer "):
            raise NotAvailable(
                "logging in with a JWT (Authorization: Bearer) is not available on this server: "
                "put the role's password into the connection string"
            )
        if "neon-connection-string" not in headers:
            raise BadConnectionString("invalid header: neon-connection-string")
        how = manner(headers)
        connection = connection_string.parse(headers["neon-connection-string"])
        target = await self._resolve(connection.host, connection.port)
        target.check(scope)
        work = read_body(await self._body(scope, receive, headers, share))

        async def answered() -> str:
            async with self._warm.session(target, connection) as session:
                note_login(scope)
                return await run(session, work, how, share=share, most_bytes=self._limits.response)

        body = await _unless_left(answered(), receive)
        return Answer(200, body.encode(), _json() | (how.echoed if work.batch else {}))

    async def _body(self, scope: Scope, receive: Receive, headers: Mapping[str, str], share: Share) -> bytes:
        """Raises RequestTooLarge, TooBusy, RequestTooSlow."""
        seconds = self._limits.request_seconds
        began = scope.get(BEGAN, asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout_at(began + seconds):
                return await _body(receive, headers, self._limits.request, share)
        except TimeoutError as error:
            raise RequestTooSlow(seconds) from error


def _json() -> dict[str, str]:
    return {"content-type": "application/json"}


async def _body(receive: Receive, headers: Mapping[str, str], most: int, share: Share) -> bytes:
    """All of it. Raises RequestTooLarge as soon as that is known, and TooBusy."""
    told = headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise RequestTooLarge(most)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Left
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise RequestTooLarge(most)
        share.take(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _unless_left(work: Coroutine[None, None, str], receive: Receive) -> str:
    """Do it as long as the caller is there. Raises _Left."""
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _Left
        return task.result()
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, answer: Answer) -> None:
    headers = {
        **answer.headers,
        "access-control-allow-origin": "*",
        "content-length": str(len(answer.body)),
        "neon-request-id": str(uuid.uuid4()),
    }
    start = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": start})
    for at in range(0, max(len(answer.body), 1), _PIECE):
        more = at + _PIECE < len(answer.body)
        await send({"type": "http.response.body", "body": answer.body[at : at + _PIECE], "more_body": more})
