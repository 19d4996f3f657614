"""Compute endpoints: the Postgres processes that serve a branch, and how to connect to them."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import DEPRECATED, Given, Hidden, Id, Maybe, Model, OneOf, Timestamp
from lamplighter.api.models.operations import OperationsResponse
from lamplighter.api.models.settings import ComputeUnit, EndpointSettingsData, Provisioner, SuspendTimeoutSeconds

EndpointType = Annotated[str, OneOf("read_only", "read_write")]

EndpointState = Annotated[str, OneOf("init", "active", "idle")]

EndpointPoolerMode = Annotated[str, OneOf("transaction")]


class Endpoint(Model):
    """A compute endpoint: the Postgres that serves a branch, its size, and whether it runs."""

    host: str
    id: Given[Id]
    name: Maybe[str] = None
    project_id: Given[Id]
    branch_id: Given[Id]
    autoscaling_limit_min_cu: Given[ComputeUnit]
    autoscaling_limit_max_cu: Given[ComputeUnit]
    region_id: str
    type: EndpointType
    current_state: EndpointState
    pending_state: Maybe[EndpointState] = None
    settings: EndpointSettingsData
    pooler_enabled: Annotated[bool, DEPRECATED]
    pooler_mode: Annotated[EndpointPoolerMode, DEPRECATED]
    disabled: bool
    passwordless_access: bool
    last_active: Maybe[Timestamp] = None
    creation_source: str
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Maybe[Timestamp] = None
    suspended_at: Maybe[Timestamp] = None
    proxy_host: str
    suspend_timeout_seconds: Given[SuspendTimeoutSeconds]
    provisioner: Provisioner
    compute_release_version: Maybe[str] = None


class EndpointResponse(Model):
    """One endpoint."""

    endpoint: Endpoint


class EndpointsResponse(Model):
    """Endpoints of a project or branch."""

    endpoints: list[Endpoint]


class EndpointsOptionalResponse(Model):
    """Endpoints, where there are any."""

    endpoints: Maybe[list[Endpoint]] = None


class EndpointOperations(EndpointResponse, OperationsResponse):
    """An endpoint, and what the change of it started."""


class EndpointCreate(Model):
    """An endpoint to make on a branch; a branch has one that is read-write at most."""

    branch_id: Id
    region_id: Maybe[str] = None
    type: EndpointType
    settings: Maybe[EndpointSettingsData] = None
    autoscaling_limit_min_cu: Maybe[ComputeUnit] = None
    autoscaling_limit_max_cu: Maybe[ComputeUnit] = None
    provisioner: Maybe[Provisioner] = None
    pooler_enabled: Annotated[Maybe[bool], DEPRECATED] = None
    pooler_mode: Annotated[Maybe[EndpointPoolerMode], DEPRECATED] = None
    disabled: Maybe[bool] = None
    passwordless_access: Maybe[bool] = None
    suspend_timeout_seconds: Maybe[SuspendTimeoutSeconds] = None
    name: Maybe[Annotated[str, Field(min_length=1, max_length=64)]] = None


class EndpointCreateRequest(Model):
    """The body that makes an endpoint."""

    endpoint: EndpointCreate


class EndpointUpdate(Model):
    """What to change of an endpoint; fields left out stay as they are."""

    branch_id: Annotated[Maybe[Id], DEPRECATED] = None
    autoscaling_limit_min_cu: Maybe[ComputeUnit] = None
    autoscaling_limit_max_cu: Maybe[ComputeUnit] = None
    provisioner: Maybe[Provisioner] = None
    settings: Maybe[EndpointSettingsData] = None
    pooler_enabled: Annotated[Maybe[bool], DEPRECATED] = None
    pooler_mode: Annotated[Maybe[EndpointPoolerMode], DEPRECATED] = None
    disabled: Maybe[bool] = None
    passwordless_access: Maybe[bool] = None
    suspend_timeout_seconds: Maybe[SuspendTimeoutSeconds] = None
    name: Maybe[Annotated[str, Field(min_length=1, max_length=64)]] = None


class EndpointUpdateRequest(Model):
    """The body that changes an endpoint."""

    endpoint: EndpointUpdate


class ConnectionParameters(Model):
    """The parts of a connection string."""

    database: str
    password: Hidden[str]
    role: str
    host: str
    pooler_host: str


class ConnectionDetails(Model):
    """A connection string and its parts, password included."""

    connection_uri: Hidden[str]
    connection_parameters: ConnectionParameters


class ConnectionURIResponse(Model):
    """A connection string, password included."""

    uri: Hidden[str]


class ConnectionURIsResponse(Model):
    """Connection strings to what was just made."""

    connection_uris: list[ConnectionDetails]


class ConnectionURIsOptionalResponse(Model):
    """Connection strings, where there is one to give."""

    connection_uris: Maybe[list[ConnectionDetails]] = None
