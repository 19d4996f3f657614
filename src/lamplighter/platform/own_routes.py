"""What this server answers beside Neon's API: SQL over HTTP and WebSocket, figures for Prometheus and for `top`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from lamplighter.address_ranges import of_this_host
from lamplighter.api.errors import ApiError
from lamplighter.control.app import Control
from lamplighter.control.features.endpoints.model import Endpoint
from lamplighter.control.http.auth import authenticate
from lamplighter.control.http.binding import error_response
from lamplighter.control.ports import Door
from lamplighter.gateway import refusals
from lamplighter.gateway.admission import WAKES_A_MINUTE, WAKES_AT_ONCE, Wakes, allowed, is_loopback
from lamplighter.gateway.serverless import Serverless, SqlFailed, Target, TooBusy, UnknownHost
from lamplighter.gateway.wire.hosts import split_pooler
from lamplighter.platform.gateway import LocalGateway
from lamplighter.platform.metrics import CONTENT_TYPE, EndpointNumbers, Numbers

TOP = "/lamplighter/v1/endpoints/top"
#: For a gateway that is away: another one is there in some 2 seconds.
AWAY_SECONDS = 10.0
_LOOK_SECONDS = 0.05
#: What reverse proxies say of whom they ask for. Beside these: X-Forwarded-For and others that begin so.
_OF_PROXIES = frozenset({"forwarded", "via", "x-real-ip"})


def door_at(doors: Mapping[str, Door], host: str, port: int | None) -> Door | None:
    """Whose address a connection string names: by the endpoint's id in the host, else by the port. Pure.

    The host is never connected to, so any will do.
    """
    endpoint_id, _ = split_pooler(host.partition(".")[0].lower())
    found = doors.get(endpoint_id)
    if found is None and port is not None:
        found = next((door for door in doors.values() if port in (door.port, door.pooler_port)), None)
    return found


class StrangersWakes:
    """What callers of other hosts wake by the API's port: of endpoints that sleep, each wake once, whoever comes along.

    A door is shown anew by whatever ends a wake, be it a compute that runs or one that did not start. So a wake is paid
    for as long as its door is the same one.
    """

    def __init__(self, wakes: Wakes | None = None) -> None:
        self._wakes = Wakes() if wakes is None else wakes
        self._paid: dict[str, Door] = {}

    def take(self, door: Door, address: str, *, doors: Mapping[str, Door], now: float) -> bool:
        """Whether this address may come in. `doors`: as they are shown now; `now` as for `Wakes`."""
        if door.state != "asleep" or self._paid.get(door.endpoint_id) is door:
            return True
        if not self._wakes.take(address, now):
            return False
        self._paid = {one: paid for one, paid in self._paid.items() if doors.get(one) is paid}
        self._paid[door.endpoint_id] = door
        return True


async def target_of(
    gateway: LocalGateway, host: str, port: int | None, *, wakes: StrangersWakes, patience: float = AWAY_SECONDS
) -> Target:
    """Where the gateway lets our own programs in, by any address that it listens on. Raises UnknownHost, TooBusy.

    It does not see who asks: what strangers wake by the API's port is put into their account in `wakes`. A gateway that
    is away is waited for, as clients of its own ports wait, `patience` seconds.
    """
    door = door_at(gateway.doors, host, port)
    if door is None:
        raise UnknownHost(host)
    deadline = time.monotonic() + patience
    while (at := _where(gateway, door)) is None:
        if time.monotonic() > deadline:
            raise TooBusy("the gateway is being started; try again later")
        await asyncio.sleep(_LOOK_SECONDS)
    admits = None if door.allowed is None else partial(allowed, rules=door.allowed)
    return Target(str(at), door.port, admits, partial(_pay, wakes, gateway, door))


def _where(gateway: LocalGateway, door: Door) -> Path | None:
    """The directory of its socket; None while the gateway is away, or has just come and was not told of doors yet."""
    at = gateway.doors_dir
    return at if at is not None and (at / f".s.PGSQL.{door.port}").exists() else None


def _pay(wakes: StrangersWakes, gateway: LocalGateway, door: Door, client: str | None, server: str | None) -> None:
    """Raises SqlFailed."""
    if of_this_host(client, server):
        return
    if not wakes.take(door, client or "", doors=gateway.doors, now=time.monotonic()):
        raise SqlFailed.of(refusals.too_many_wakes(WAKES_AT_ONCE, WAKES_A_MINUTE))


def row_of(endpoint: Endpoint, numbers: EndpointNumbers) -> dict[str, str | int | None]:
    """One line of `top`. Counts are since the platform started. Pure."""
    waited = numbers.last_wake_seconds
    return {
        "id": endpoint.id,
        "project_id": endpoint.project_id,
        "branch_id": endpoint.branch_id,
        "name": endpoint.name,
        "state": endpoint.current_state,
        "connections": numbers.connections,
        "accepted": numbers.accepted,
        "bytes_in": numbers.bytes_in,
        "bytes_out": numbers.bytes_out,
        "wakes": numbers.wakes,
        "last_wake_ms": None if waited is None else round(waited * 1000),
        "started_at": _text(endpoint.started_at),
        "last_active": _text(endpoint.last_active),
        "suspended_at": _text(endpoint.suspended_at),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def own_routes(control: Control, numbers: Numbers, serverless: Serverless) -> list[BaseRoute]:
    """Routes for the API's server. `/metrics` is for whoever is on this host and no proxy, or has a key."""

    async def metrics(request: Request) -> Response:
        if not is_of_this_host(request):
            try:
                await authenticate(control.kernel.catalog, request.headers.get("authorization"))
            except ApiError as error:
                return error_response(error, str(uuid4()))
        states = Counter(one.current_state for one in await control.endpoints.everyone())
        return PlainTextResponse(numbers.render(endpoints=states), media_type=CONTENT_TYPE)

    async def top(request: Request) -> Response:
        try:
            caller = await authenticate(control.kernel.catalog, request.headers.get("authorization"))
            found = await control.endpoints.of_caller(caller)
        except ApiError as error:
            return error_response(error, str(uuid4()))
        return JSONResponse({"endpoints": [row_of(one, numbers.of(one.id)) for one in found]})

    return [
        Route("/metrics", metrics),
        Route(TOP, top),
        Route("/sql", serverless),
        WebSocketRoute("/v2", serverless),
    ]


def is_of_this_host(request: Request) -> bool:
    """By the loopback address, and for itself: a reverse proxy on this host asks for anybody."""
    proxied = any(name in _OF_PROXIES or name.startswith("x-forwarded-") for name in request.headers)
    return not proxied and request.client is not None and is_loopback(request.client.host)
