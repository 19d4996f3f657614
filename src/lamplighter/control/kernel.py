"""What every feature is given: the catalog, the machine below, and the few things that are not deterministic."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from lamplighter.api.errors import NotFound
from lamplighter.control.catalog.pool import Catalog
from lamplighter.control.http.calls import EMPTY, Reply
from lamplighter.control.ports import DataPlane, Gateway
from lamplighter.control.seal import Sealer


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """Where this platform is: what its answers say of hosts and regions."""

    host: str = "127.0.0.1"
    region_id: str = "aws-us-east-2"
    #: False answers 400 where Neon demands an `org_id`; True infers the only organization of the caller.
    infer_org: bool = True
    #: True answers 404 instead of 204 for a DELETE of what is not there (some clients cannot read an empty answer).
    missing_is_404: bool = False
    #: Endpoints are `<id>.<domain>` on this port; None leaves them `host` and a port each.
    domain: str | None = None
    domain_port: int = 5432
    #: How many endpoints may be active at once; None for as many as there are.
    active_limit: int | None = None
    #: Seconds that an endpoint with `suspend_timeout_seconds` 0 stays awake without clients (contract section 3.2).
    suspend_after: int = 300


def gone(place: Place, what: str) -> Reply:
    """The answer to a DELETE of what is not there: 204, or NotFound where clients cannot read an empty answer."""
    if place.missing_is_404:
        raise NotFound(f"{what} not found")
    return EMPTY


@dataclass(frozen=True, slots=True)
class Kernel:
    """Shared by all services of one control plane."""

    catalog: Catalog
    plane: DataPlane
    gateway: Gateway
    #: Tell the engine, after a commit, that there are new operations.
    wake: Callable[[], None]
    sealer: Sealer
    place: Place = field(default_factory=Place)
    now: Callable[[], datetime] = utc_now
    uuid: Callable[[], UUID] = uuid4
    choice: Callable[[Sequence[str]], str] = secrets.choice
