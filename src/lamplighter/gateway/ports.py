"""Routes, and what platform and gateway say to each other.

A route is looked up, never computed: whoever sets up new kinds of hosts (read-only, a point in time) adds routes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: `asleep`: the first connection asks for a wake. `holding`: about to be stopped, or being restarted; connections wait.
#: `disabled`: refused with Neon's text.
RouteState = Literal["awake", "asleep", "holding", "disabled"]


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a Postgres or PgBouncer listens on this host. `tls`: it answers SSLRequest with `S`."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `port` and `pooler_port` are the public ones, which stay for its whole life.

    `compute` is there while it is awake. `pooler` is there once somebody has asked for it by a `Wake` of an awake
    route, where the host can have one (`pools`). `allowed` None lets everybody in; else addresses,
    `a-b` ranges and CIDR blocks, as in Neon's `allowed_ips`. `max_connections` counts connections by the gateway.
    """

    endpoint_id: str
    project_id: str
    state: RouteState
    port: int
    pooler_port: int | None = None
    compute: Backend | None = None
    pooler: Backend | None = None
    pools: bool = False
    allowed: tuple[str, ...] | None = None
    max_connections: int = 10_000


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the gateway listens. `domain`: endpoints are `<endpoint id>[-pooler].<domain>`, too, all on `domain_port`.

    `certificate` and `key` are read again when they change. They are those that the computes use, so that channel
    binding holds wherever TLS is ended.
    """

    address: str = "127.0.0.1"
    certificate: str | None = None
    key: str | None = None
    domain: str | None = None
    domain_port: int | None = None


# From the platform to the gateway. Those with `seq` are answered by `Done` once they hold.


@dataclass(frozen=True, slots=True)
class Hello:
    """First of all. A gateway of another version answers `Welcome` with its own, and is then told to `Drain`."""

    version: str
    listening: Listening
    kind: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class SetRoutes:
    """The whole table: what it does not name is gone."""

    seq: int
    routes: tuple[Route, ...]
    kind: Literal["set_routes"] = "set_routes"


@dataclass(frozen=True, slots=True)
class SetRoute:
    """One route, new or changed. Waiting connections go on as soon as it says `awake`."""

    seq: int
    route: Route
    kind: Literal["set_route"] = "set_route"


@dataclass(frozen=True, slots=True)
class DropRoute:
    """The endpoint is gone: its ports are closed, its connections are cut."""

    seq: int
    endpoint_id: str
    kind: Literal["drop_route"] = "drop_route"


@dataclass(frozen=True, slots=True)
class WakeFailed:
    """Those who wait get this as a FATAL error. `code` is a SQLSTATE.

    `message` is for everybody; `detail` and `hint`, which may tell of paths and errors of this host, for its own
    clients.
    """

    endpoint_id: str
    code: str
    message: str
    detail: str = ""
    hint: str = ""
    kind: Literal["wake_failed"] = "wake_failed"


@dataclass(frozen=True, slots=True)
class Verifier:
    """Answer to `AskVerifier`: `SCRAM-SHA-256$...` as in pg_authid, or None when there is no such role.

    `failed`: nobody knows, for its Postgres does not answer.
    """

    ask: int
    verifier: str | None
    failed: bool = False
    kind: Literal["verifier"] = "verifier"


@dataclass(frozen=True, slots=True)
class Drain:
    """Listen no more; end when the last connection has ended."""

    kind: Literal["drain"] = "drain"


# From the gateway to the platform.


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to `Hello`: `version` is the gateway's own."""

    version: str
    kind: Literal["welcome"] = "welcome"


@dataclass(frozen=True, slots=True)
class Done:
    """`problems`: sentences, such as a port that is taken."""

    seq: int
    problems: tuple[str, ...] = ()
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Wake:
    """Somebody waits for this endpoint. Repeated by nobody: it holds until the route is awake or `WakeFailed` comes."""

    endpoint_id: str
    kind: Literal["wake"] = "wake"


@dataclass(frozen=True, slots=True)
class AskVerifier:
    """Who logs in as this role shows a proof of a password. `ask` is the number that `Verifier` answers with."""

    ask: int
    endpoint_id: str
    role: str
    kind: Literal["ask_verifier"] = "ask_verifier"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one endpoint since the last report: `accepted` connections, bytes from and to clients; `open` is now."""

    endpoint_id: str
    open: int
    accepted: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Report:
    """Once a second, and at once when a connection count falls to zero. `refused` counts by reason since the last."""

    traffic: tuple[Traffic, ...]
    refused: dict[str, int]
    kind: Literal["report"] = "report"


ToGateway = Hello | SetRoutes | SetRoute | DropRoute | WakeFailed | Verifier | Drain
ToPlatform = Welcome | Done | Wake | AskVerifier | Report
