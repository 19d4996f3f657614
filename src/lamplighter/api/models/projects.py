"""Projects: the unit that holds branches, settings and a Postgres major version."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.annotations import AnnotationValueData
from lamplighter.api.models.base import (
    DEPRECATED,
    Count,
    Email,
    Given,
    Id,
    Int32,
    Int64,
    Maybe,
    Model,
    Name,
    OneOf,
    Timestamp,
)
from lamplighter.api.models.billing import BillingSubscriptionType
from lamplighter.api.models.branches import BranchesResponse, BranchResponse
from lamplighter.api.models.common import PaginationResponse
from lamplighter.api.models.databases import DatabasesResponse
from lamplighter.api.models.endpoints import ConnectionURIsResponse, EndpointsResponse
from lamplighter.api.models.operations import OperationsResponse
from lamplighter.api.models.roles import RolesResponse
from lamplighter.api.models.settings import (
    ComputeUnit,
    DefaultEndpointSettings,
    PgVersion,
    ProjectSettingsData,
    Provisioner,
)

ProjectPermissionLevel = Annotated[str, OneOf("CAN_VIEW", "CAN_EDIT", "CAN_MANAGE")]


class ProjectOwnerData(Model):
    """Who owns a project."""

    email: Given[Email]
    name: str
    branches_limit: int
    subscription_type: BillingSubscriptionType


class Project(Model):
    """A project as itself: settings, use, and the period that use is counted in."""

    data_storage_bytes_hour: Count
    data_transfer_bytes: Count
    written_data_bytes: Count
    compute_time_seconds: Count
    active_time_seconds: Count
    cpu_used_sec: Annotated[Int64, DEPRECATED]
    id: Given[Id]
    platform_id: str
    region_id: str
    name: str
    provisioner: Provisioner
    default_endpoint_settings: Maybe[DefaultEndpointSettings] = None
    settings: Maybe[ProjectSettingsData] = None
    pg_version: Given[PgVersion]
    proxy_host: str
    branch_logical_size_limit: Int64
    branch_logical_size_limit_bytes: Int64
    store_passwords: bool
    maintenance_starts_at: Maybe[Timestamp] = None
    creation_source: str
    history_retention_seconds: Int32
    created_at: Timestamp
    updated_at: Timestamp
    synthetic_storage_size: Maybe[Int64] = None
    consumption_period_start: Timestamp
    consumption_period_end: Timestamp
    quota_reset_at: Annotated[Maybe[Timestamp], DEPRECATED] = None
    owner_id: str
    owner: Maybe[ProjectOwnerData] = None
    compute_last_active_at: Maybe[Timestamp] = None
    org_id: Maybe[Given[Id]] = None
    maintenance_scheduled_for: Maybe[Timestamp] = None
    hipaa_enabled_at: Maybe[Timestamp] = None
    effective_project_permission: ProjectPermissionLevel | None = None


class ProjectListItem(Model):
    """A project as lists show it: less of its use, and nothing of its owner."""

    id: Given[Id]
    platform_id: str
    region_id: str
    name: str
    provisioner: Provisioner
    default_endpoint_settings: Maybe[DefaultEndpointSettings] = None
    settings: Maybe[ProjectSettingsData] = None
    pg_version: Given[PgVersion]
    proxy_host: str
    branch_logical_size_limit: Int64
    branch_logical_size_limit_bytes: Int64
    store_passwords: bool
    active_time: Count
    cpu_used_sec: Annotated[Int64, DEPRECATED]
    maintenance_starts_at: Maybe[Timestamp] = None
    creation_source: str
    created_at: Timestamp
    updated_at: Timestamp
    synthetic_storage_size: Maybe[Int64] = None
    quota_reset_at: Annotated[Maybe[Timestamp], DEPRECATED] = None
    owner_id: str
    compute_last_active_at: Maybe[Timestamp] = None
    org_id: Maybe[Given[Id]] = None
    org_name: Maybe[str] = None
    history_retention_seconds: Maybe[Int32] = None
    hipaa_enabled_at: Maybe[Timestamp] = None
    deleted_at: Maybe[Timestamp] = None
    recoverable_until: Maybe[Timestamp] = None
    effective_project_permission: ProjectPermissionLevel | None = None


class ProjectResponse(Model):
    """One project."""

    project: Project


class ProjectsResponse(Model):
    """Projects, and the ids of those that could not be read in time."""

    projects: list[ProjectListItem]
    unavailable_project_ids: Maybe[list[Given[Id]]] = None


ApplicationType = Annotated[str, OneOf("vercel", "github", "datadog", "opentelemetry")]


class ProjectsApplicationsMapResponse(Model):
    """Applications connected to the projects, by project id; always there, if empty."""

    applications: dict[str, list[ApplicationType]]


class ProjectsIntegrationsMapResponse(Model):
    """Integrations of the projects, by project id; always there, if empty."""

    integrations: dict[str, list[ApplicationType]]


class ProjectsPage(
    ProjectsResponse, PaginationResponse, ProjectsApplicationsMapResponse, ProjectsIntegrationsMapResponse
):
    """A page of the caller's projects."""


class SharedProjectsPage(ProjectsResponse, PaginationResponse):
    """A page of the projects that others share with the caller."""


class ProjectCreateBranch(Model):
    """The first branch of a new project, and what is made on it."""

    name: Maybe[Name] = None
    role_name: Maybe[str] = None
    database_name: Maybe[str] = None
    annotations: Maybe[AnnotationValueData] = None


class ProjectCreate(Model):
    """A project to make; every field has a default."""

    settings: Maybe[ProjectSettingsData] = None
    name: Maybe[Name] = None
    branch: Maybe[ProjectCreateBranch] = None
    autoscaling_limit_min_cu: Annotated[Maybe[ComputeUnit], DEPRECATED] = None
    autoscaling_limit_max_cu: Annotated[Maybe[ComputeUnit], DEPRECATED] = None
    provisioner: Maybe[Provisioner] = None
    region_id: Maybe[str] = None
    default_endpoint_settings: Maybe[DefaultEndpointSettings] = None
    pg_version: Maybe[PgVersion] = None
    store_passwords: Maybe[bool] = None
    history_retention_seconds: Maybe[Annotated[Int32, Field(ge=0, le=2592000)]] = None
    org_id: Maybe[Id] = None


class ProjectCreateRequest(Model):
    """The body that makes a project."""

    project: ProjectCreate


class ProjectCreated(
    ProjectResponse,
    ConnectionURIsResponse,
    RolesResponse,
    DatabasesResponse,
    OperationsResponse,
    BranchResponse,
    EndpointsResponse,
):
    """A new project, with all that was made in it and how to connect. Passwords are shown in `roles`."""


class ProjectUpdate(Model):
    """What to change of a project; fields left out stay as they are."""

    settings: Maybe[ProjectSettingsData] = None
    name: Maybe[Name] = None
    default_endpoint_settings: Maybe[DefaultEndpointSettings] = None
    history_retention_seconds: Maybe[Annotated[Int32, Field(ge=0, le=2592000)]] = None


class ProjectUpdateRequest(Model):
    """The body that changes a project."""

    project: ProjectUpdate


class ProjectUpdated(ProjectResponse, OperationsResponse):
    """The changed project, and what the change started."""


class ProjectRecoverResponse(ProjectResponse, BranchesResponse):
    """A deleted project that is back, with its branches."""
