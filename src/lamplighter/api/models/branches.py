"""Branches: copies of a project's data that share what has not changed."""

from typing import Annotated

from lamplighter.api.models.annotations import AnnotationCreateValueRequest, AnnotationResponse, AnnotationsMapResponse
from lamplighter.api.models.base import DEPRECATED, Given, Id, Int64, Maybe, Model, Name, OneOf, Timestamp
from lamplighter.api.models.common import CursorPaginationResponse
from lamplighter.api.models.databases import DatabasesResponse
from lamplighter.api.models.endpoints import (
    ConnectionURIsOptionalResponse,
    EndpointsOptionalResponse,
    EndpointsResponse,
    EndpointType,
)
from lamplighter.api.models.operations import OperationsResponse
from lamplighter.api.models.roles import RolesResponse
from lamplighter.api.models.settings import ComputeUnit, EndpointSettingsData, Provisioner, SuspendTimeoutSeconds

#: `init`, `resetting`, `ready` or `archived`; a server may name others.
BranchState = str

#: `restored`, `finalized` or `detaching`; a server may name others.
BranchRestoreStatus = str


class BranchRestrictedAction(Model):
    """Something that cannot be done with the branch now, and why."""

    name: str
    reason: str


class BranchRecoveryInfo(Model):
    """Until when a deleted branch can be brought back."""

    deleted_at: Timestamp
    recoverable_until: Timestamp
    deletion_method: Annotated[str, OneOf("user", "ttl")]


class BranchCreator(Model):
    """Who made the branch."""

    name: Maybe[str] = None
    image: Maybe[str] = None


class Branch(Model):
    """A branch: where it came from, how it stands, and what it used. A root has no `parent_id`."""

    id: Given[Id]
    project_id: Given[Id]
    parent_id: Maybe[Given[Id]] = None
    parent_lsn: Maybe[str] = None
    parent_timestamp: Maybe[Timestamp] = None
    name: str
    current_state: BranchState
    pending_state: Maybe[BranchState] = None
    state_changed_at: Timestamp
    logical_size: Maybe[Int64] = None
    creation_source: str
    primary: Annotated[Maybe[bool], DEPRECATED] = None
    default: bool
    protected: bool
    cpu_used_sec: Annotated[Int64, DEPRECATED]
    compute_time_seconds: Int64
    active_time_seconds: Int64
    written_data_bytes: Int64
    data_transfer_bytes: Int64
    created_at: Timestamp
    updated_at: Timestamp
    ttl_interval_seconds: Maybe[int] = None
    expires_at: Maybe[Timestamp] = None
    last_reset_at: Maybe[Timestamp] = None
    created_by: Maybe[BranchCreator] = None
    init_source: Maybe[str] = None
    restore_status: Maybe[BranchRestoreStatus] = None
    restored_from: Maybe[str] = None
    restored_as: Maybe[str] = None
    restricted_actions: Maybe[list[BranchRestrictedAction]] = None
    recovery: Maybe[BranchRecoveryInfo] = None


class BranchResponse(Model):
    """One branch."""

    branch: Branch


class BranchesResponse(Model):
    """Branches of a project."""

    branches: list[Branch]


class BranchesPage(BranchesResponse, AnnotationsMapResponse, CursorPaginationResponse):
    """A page of branches, with their annotations by branch id."""


class BranchesCountResponse(Model):
    """How many branches there are."""

    count: int


class BranchOperations(BranchResponse, OperationsResponse):
    """A branch, and what the change of it started."""


class BranchWithAnnotation(BranchResponse, AnnotationResponse):
    """One branch and its annotation."""


class BranchCreate(Model):
    """The branch to make: of which parent, and at which time or LSN of it."""

    parent_id: Maybe[Id] = None
    name: Maybe[Name] = None
    parent_lsn: Maybe[str] = None
    parent_timestamp: Maybe[Timestamp] = None
    protected: Maybe[bool] = None
    archived: Maybe[bool] = None
    init_source: Maybe[str] = None
    expires_at: Maybe[Timestamp] = None


class BranchCreateRequestEndpointOptions(Model):
    """An endpoint to make with the branch."""

    type: EndpointType
    settings: Maybe[EndpointSettingsData] = None
    autoscaling_limit_min_cu: Maybe[ComputeUnit] = None
    autoscaling_limit_max_cu: Maybe[ComputeUnit] = None
    provisioner: Maybe[Provisioner] = None
    suspend_timeout_seconds: Maybe[SuspendTimeoutSeconds] = None


class BranchCreateRequest(Model):
    """A branch to make and endpoints to make with it; all may be left out."""

    endpoints: Maybe[list[BranchCreateRequestEndpointOptions]] = None
    branch: Maybe[BranchCreate] = None


class AnnotatedBranchCreateRequest(BranchCreateRequest, AnnotationCreateValueRequest):
    """The body that makes a branch. Without one, it is a child of the default branch with no endpoint."""


class BranchCreated(
    BranchResponse,
    EndpointsResponse,
    OperationsResponse,
    RolesResponse,
    DatabasesResponse,
    ConnectionURIsOptionalResponse,
):
    """A new branch and all that came with it. `connection_uris` is there when one role and database make it clear."""


class BranchUpdate(Model):
    """What to change of a branch; `expires_at` null lets it live on."""

    name: Maybe[Name] = None
    protected: Maybe[bool] = None
    expires_at: Timestamp | None = None


class BranchUpdateRequest(Model):
    """The body that changes a branch."""

    branch: BranchUpdate


class BranchRestoreRequest(Model):
    """The branch, and the time or LSN of it, whose data is to replace the branch's own."""

    source_branch_id: Id
    source_lsn: Maybe[str] = None
    source_timestamp: Maybe[Timestamp] = None
    preserve_under_name: Maybe[str] = None


class BranchRecoverResponse(BranchResponse, EndpointsOptionalResponse):
    """A deleted branch that is back."""


class FinalizeRestoreRequest(Model):
    """The name that the replaced branch gets."""

    name: Maybe[str] = None
