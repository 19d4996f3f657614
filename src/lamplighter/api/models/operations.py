"""Operations: the work that a change starts, and what became of it."""

from typing import Annotated

from lamplighter.api.models.base import Given, Id, Int32, Maybe, Model, OneOf, Timestamp, Uuid
from lamplighter.api.models.common import PaginationResponse

OperationAction = Annotated[
    str,
    OneOf(
        "create_compute",
        "create_timeline",
        "start_compute",
        "suspend_compute",
        "apply_config",
        "check_availability",
        "delete_timeline",
        "create_branch",
        "import_data",
        "tenant_ignore",
        "tenant_attach",
        "tenant_detach",
        "tenant_reattach",
        "replace_safekeeper",
        "disable_maintenance",
        "apply_storage_config",
        "prepare_secondary_pageserver",
        "switch_pageserver",
        "detach_parent_branch",
        "timeline_archive",
        "timeline_unarchive",
        "start_reserved_compute",
        "sync_dbs_and_roles_from_compute",
        "apply_schema_from_branch",
        "timeline_mark_invisible",
        "timeline_update_protected_config",
        "prewarm_replica",
        "promote_replica",
        "set_storage_non_dirty",
        "swap_binding_id",
        "finalize_migration",
        "mark_migration_prepared",
        "update_catalog",
    ),
]

OperationStatus = Annotated[
    str, OneOf("scheduling", "running", "finished", "failed", "error", "cancelling", "cancelled", "skipped")
]


class Operation(Model):
    """A piece of work on a project, and how far it is."""

    id: Given[Uuid]
    project_id: Given[Id]
    branch_id: Maybe[Given[Id]] = None
    endpoint_id: Maybe[Given[Id]] = None
    action: OperationAction
    status: OperationStatus
    error: Maybe[str] = None
    failures_count: Int32
    retry_at: Maybe[Timestamp] = None
    created_at: Timestamp
    updated_at: Timestamp
    total_duration_ms: Int32


class OperationResponse(Model):
    """One operation."""

    operation: Operation


class OperationsResponse(Model):
    """The operations that a change started, in the order in which they run."""

    operations: list[Operation]


class OperationsPage(OperationsResponse, PaginationResponse):
    """A page of a project's operations, newest first."""
