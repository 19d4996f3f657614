"""Settings of computes and projects, which requests and replies both carry."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import DEPRECATED, Count, Given, Int64, Maybe, Model, OneOf

#: A major version of Postgres.
PgVersion = Annotated[int, Field(ge=14, le=18, json_schema_extra={"default": 17})]

#: A size of compute: 1 is one vCPU with 4 GB of memory, and a quarter is the least.
ComputeUnit = Annotated[float, Field(ge=0.25, allow_inf_nan=False)]

#: Seconds without a connection until a compute is suspended: 0 for the default (300), -1 for never.
SuspendTimeoutSeconds = Annotated[Int64, Field(ge=-1, le=604800)]

#: What runs the compute; `k8s-neonvm` on every answer.
Provisioner = str

#: Postgres settings by name, as text.
PgSettingsData = dict[str, str]

#: Settings of the pooler by name, as text. Deprecated.
PgbouncerSettingsData = dict[str, str]


class PreloadLibraries(Model):
    """The libraries that Postgres loads as it starts."""

    use_defaults: Maybe[bool] = None
    enabled_libraries: Maybe[list[str]] = None


class EndpointSettingsData(Model):
    """What Postgres on an endpoint is started with."""

    pg_settings: Maybe[PgSettingsData] = None
    pgbouncer_settings: Annotated[Maybe[PgbouncerSettingsData], DEPRECATED] = None
    preload_libraries: Maybe[PreloadLibraries] = None


class DefaultEndpointSettings(Model):
    """What a new endpoint of the project gets where nothing else is asked."""

    pg_settings: Maybe[PgSettingsData] = None
    pgbouncer_settings: Annotated[Maybe[PgbouncerSettingsData], DEPRECATED] = None
    autoscaling_limit_min_cu: Maybe[Given[ComputeUnit]] = None
    autoscaling_limit_max_cu: Maybe[Given[ComputeUnit]] = None
    suspend_timeout_seconds: Maybe[Given[SuspendTimeoutSeconds]] = None


class AllowedIps(Model):
    """The addresses that may connect; an empty list means all."""

    ips: Maybe[list[str]] = None
    protected_branches_only: Maybe[bool] = None


class MaintenanceWindow(Model):
    """When the project may be restarted for upkeep: weekdays from 1 (Monday), times as `HH:MM` in UTC."""

    weekdays: list[int]
    start_time: str
    end_time: str


class ProjectQuota(Model):
    """How much a project may use in a billing period; 0 or nothing means no limit."""

    active_time_seconds: Maybe[Count] = None
    compute_time_seconds: Maybe[Count] = None
    written_data_bytes: Maybe[Count] = None
    data_transfer_bytes: Maybe[Count] = None
    logical_size_bytes: Maybe[Count] = None


ProjectAuditLogLevel = Annotated[str, OneOf("base", "extended", "full")]


class ProjectSettingsData(Model):
    """Settings of a project as a whole."""

    quota: Maybe[ProjectQuota] = None
    allowed_ips: Maybe[AllowedIps] = None
    enable_logical_replication: Maybe[bool] = None
    maintenance_window: Maybe[MaintenanceWindow] = None
    block_public_connections: Maybe[bool] = None
    block_vpc_connections: Maybe[bool] = None
    audit_log_level: Maybe[ProjectAuditLogLevel] = None
    hipaa: Maybe[bool] = None
    preload_libraries: Maybe[PreloadLibraries] = None


class AvailablePreloadLibrary(Model):
    """A library that can be preloaded."""

    library_name: str
    description: str
    is_default: bool
    is_experimental: bool
    version: str


class AvailablePreloadLibraries(Model):
    """The libraries that a project can preload."""

    libraries: Maybe[list[AvailablePreloadLibrary]] = None
