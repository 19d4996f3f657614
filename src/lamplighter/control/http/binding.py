"""From the operation table to routes: one endpoint an operation, all alike.

A request is authenticated, allowed, limited, parsed and handed to the feature that serves it; what nobody serves
answers 501. Every error leaves as Neon's error body. An operation that the table calls served and that no feature
serves, or the other way round, stops the platform at start: the table is what README and OpenAPI tell users.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import psycopg
import structlog
from psycopg_pool import PoolTimeout
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lamplighter.api.errors import (
    ApiError,
    BadRequest,
    Conflict,
    InternalError,
    Locked,
    MethodNotAllowed,
    NotFound,
    NotServed,
    PayloadTooLarge,
    Unavailable,
    Unprocessable,
)
from lamplighter.api.operations import OPERATIONS, Operation
from lamplighter.control.errors import ProjectBusy, SealBroken
from lamplighter.control.http import auth
from lamplighter.control.http.calls import NEVER_ENABLED, Call, Handler, Reply, Routes, to_wire
from lamplighter.control.http.limits import Limiter
from lamplighter.control.http.parsing import MAX_BODY, parse_body, parse_parameters
from lamplighter.control.kernel import Kernel

log = structlog.get_logger(__name__)

BASE = "/api/v2"
REQUEST_ID = "x-request-id"
ANSWER_ID = "x-neon-ret-request-id"
NOT_AVAILABLE = "NOT_AVAILABLE"
BODY_SECONDS = 30.0
#: Stands for a slash inside of a part of a path until the route is found. No text that is read from a URL can hold it.
SLASH = "\ud800"
CONFLICT = "a request made at the same time created this resource first"
#: What two requests at once can both find free, by the constraint that lets one of them through.
CONFLICTS = {
    "branches_name": "branch already exists",
    "databases_name": "database already exists",
    "endpoints_read_write": "read-write endpoint already exists",
    "roles_pkey": "role already exists",
}


class TableMismatch(Exception):
    """The operation table and the features do not serve the same operations."""

    def __init__(self, *, unserved: frozenset[str], unlisted: frozenset[str]) -> None:
        self.unserved = unserved
        self.unlisted = unlisted
        super().__init__(
            f"{self.__doc__} Served by no feature: {sorted(unserved)}; not in the table: {sorted(unlisted)}."
        )


def check_table(routes: Routes) -> None:
    """Raise TableMismatch unless `routes` serves exactly what the table calls served."""
    listed = frozenset(operation.id for operation in OPERATIONS.values() if operation.served)
    if listed != frozenset(routes):
        raise TableMismatch(unserved=listed - frozenset(routes), unlisted=frozenset(routes) - listed)


@dataclass(frozen=True, slots=True)
class Door:
    """What every endpoint shares. `limiter` None leaves requests uncounted."""

    kernel: Kernel
    usage: auth.KeyUsage
    limiter: Limiter | None
    monotonic: Callable[[], float] = field(default=time.monotonic)


async def read_body(request: Request) -> bytes:
    """The whole body, given up as soon as it is too large: the rest is not read into memory. Raises PayloadTooLarge."""
    declared = request.headers.get("content-length", "")
    # One that is no such number is left to the count below.
    if declared.isdecimal() and len(declared) < 20 and int(declared) > MAX_BODY:
        raise PayloadTooLarge(f"request body is larger than {MAX_BODY} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise PayloadTooLarge(f"request body is larger than {MAX_BODY} bytes")
    except TimeoutError:
        raise BadRequest(f"the request body did not arrive within {BODY_SECONDS:.0f} seconds") from None
    return bytes(body)


def request_id_of(request: Request) -> str:
    """The client's own id where it is short and plain, else a new one."""
    given = request.headers.get(REQUEST_ID, "")
    return given if 0 < len(given) <= 128 and given.isprintable() and given.isascii() else str(uuid4())


def error_response(error: ApiError, request_id: str) -> Response:
    headers = {ANSWER_ID: request_id}
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return JSONResponse(error.with_request_id(request_id).body(), status_code=error.status, headers=headers)


def as_api_error(error: Exception) -> ApiError | None:
    """Faults below the features that are the request's doing, or pass by themselves; None for what is ours to mend."""
    match error:
        case ApiError():
            return error
        case ProjectBusy():
            return Locked()
        case SealBroken():
            return InternalError(str(error))
        case PoolTimeout():
            return Unavailable("the catalog does not answer; try again")
        case psycopg.Error():
            return _as_refusal(error)
        case _:
            return None


def _as_refusal(error: psycopg.Error) -> ApiError | None:
    match error:
        case psycopg.errors.UniqueViolation():
            return Conflict(CONFLICTS.get(error.diag.constraint_name or "", CONFLICT))
        case psycopg.errors.LockNotAvailable():
            # Another request holds the project: nothing was changed, as with operations that are under way.
            return Locked()
        case psycopg.DataError():
            log.warning("request.unfit_value", error=str(error))
            return BadRequest("invalid request: a value is out of the range that can be stored")
        case psycopg.OperationalError():
            return Unavailable("the catalog does not answer; try again")
        case _:
            return None


def unserved(operation: Operation) -> ApiError:
    """What is answered for an operation that no feature serves."""
    if operation.id in NEVER_ENABLED:
        return NotFound(f"{operation.id} is not enabled on this branch, and not available on this server")
    return NotServed.operation(operation.id)


def endpoint(operation: Operation, handler: Handler | None, door: Door) -> Callable[[Request], Any]:
    """The Starlette endpoint of one operation."""

    async def answer(request: Request, request_id: str) -> Response:
        caller = await auth.authenticate(door.kernel.catalog, request.headers.get("authorization"))
        address = request.client.host if request.client else ""
        door.usage.note(caller.key_id, address=address, at=door.kernel.now())
        if door.limiter is not None:
            door.limiter.take(caller.account, operation.id, now=door.monotonic())
        if handler is None:
            raise unserved(operation)
        given = {name: value.replace(SLASH, "/") for name, value in request.path_params.items()}
        auth.authorize(operation, caller, given)
        path, query = parse_parameters(operation, given, request.query_params)
        body = parse_body(operation, await read_body(request))
        try:
            reply = await handler(Call(caller, path, query, body, request_id))
        except NotServed as error:
            # 501 is for operations that this server lacks altogether. A wish that one of its own cannot fulfil is
            # refused like any other: clients take a 5xx for a failure that is worth another try.
            raise Unprocessable(error.message, code=NOT_AVAILABLE) from error
        return render(reply, request_id)

    async def run(request: Request) -> Response:
        request_id = request_id_of(request)
        try:
            return await answer(request, request_id)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            known = as_api_error(error)
            if known is None:
                log.exception("request.failed", operation=operation.id, request_id=request_id)
                known = InternalError("internal error; the platform's log tells more under this request id")
            return error_response(known, request_id)

    return run


def render(reply: Reply, request_id: str) -> Response:
    headers = {ANSWER_ID: request_id}
    if reply.content is None:
        return Response(status_code=reply.status, headers=headers)
    return JSONResponse(to_wire(reply.content), status_code=reply.status, headers=headers)


def path_order(operation: Operation) -> tuple[tuple[bool, str], ...]:
    """Literal segments before parameters, so that `/projects/shared` is not taken for a project."""
    return tuple((part.startswith("{"), part) for part in operation.path.split("/"))


def routes(features: Routes, door: Door) -> list[BaseRoute]:
    """A route for every operation of the table. Raises TableMismatch."""
    check_table(features)
    return [
        Route(BASE + operation.path, endpoint(operation, features.get(operation.id), door), methods=[operation.method])
        for operation in sorted(OPERATIONS.values(), key=path_order)
    ]


async def http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such route, wrong method) in Neon's error body."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    match status:
        case 404:
            known: ApiError = NotFound("this route does not exist; GET /openapi.json lists those that do")
        case 405:
            known = MethodNotAllowed("this method is not allowed on this route")
        case _:
            known = ApiError("the request could not be handled", status=status)
    response = error_response(known, request_id_of(request))
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    if status == 405:
        response.headers["allow"] = ", ".join(sorted(methods_of(request)))
    return response


def methods_of(request: Request) -> set[str]:
    """What may be asked of the request's path: it has a route for each, and Starlette names those of one alone."""
    fitting = [
        route
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    # In the order of `path_order`: `/projects/shared` comes before the `/projects/{project_id}` that it fits as well.
    return {method for route in fitting if route.path == fitting[0].path for method in route.methods or ()}


class WholeParts:
    """Keeps `%2F` inside of a part of the path apart from the slashes between parts, as in the role `a/b`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path")
        if raw and b"%2" in raw:
            parts = raw.decode("latin-1").split("/")
            scope["path"] = "/".join(unquote(part).replace("/", SLASH) for part in parts)
        await self.app(scope, receive, send)


def application(features: Routes, door: Door, *extra: BaseRoute) -> Starlette:
    """The ASGI application: the API, and `extra` routes such as the OpenAPI document."""
    app = Starlette(
        routes=[*routes(features, door), *extra],
        exception_handlers={HTTPException: http_error},
        middleware=[Middleware(WholeParts)],
    )
    app.router.redirect_slashes = False
    return app
