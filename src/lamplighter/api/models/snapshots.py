"""Snapshots of a branch and the schedule that takes them."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Given, Id, Int64, Maybe, Model
from lamplighter.api.models.branches import BranchResponse
from lamplighter.api.models.endpoints import EndpointsOptionalResponse
from lamplighter.api.models.operations import Operation, OperationsResponse


class Snapshot(Model):
    """A snapshot: a branch's data as it was."""

    id: Given[Id]
    name: str
    lsn: Maybe[str] = None
    timestamp: Maybe[str] = None
    source_branch_id: Maybe[Given[Id]] = None
    created_at: str
    expires_at: Maybe[str] = None
    manual: Maybe[bool] = None
    full_size: Maybe[Int64] = None
    diff_size: Maybe[Int64] = None


class SnapshotResponse(Model):
    """One snapshot."""

    snapshot: Snapshot


class SnapshotsResponse(Model):
    """Snapshots of a project."""

    snapshots: list[Snapshot]


class SnapshotCreated(Model):
    """A new snapshot, and what taking it started."""

    snapshot: Snapshot
    operations: list[Operation]


class SnapshotUpdate(Model):
    """What to change of a snapshot."""

    name: Maybe[str] = None


class SnapshotUpdateRequest(Model):
    """The body that changes a snapshot."""

    snapshot: SnapshotUpdate


class SnapshotRestoreRequest(Model):
    """Where a snapshot is restored to, and whether it replaces the target at once."""

    name: Maybe[str] = None
    target_branch_id: Maybe[str] = None
    finalize_restore: bool = False


class SnapshotRestored(BranchResponse, EndpointsOptionalResponse, OperationsResponse):
    """The branch that holds the snapshot's data."""


class BackupScheduleItem(Model):
    """When a snapshot is taken, and for how long it is kept."""

    frequency: str
    hour: Maybe[Given[Annotated[int, Field(ge=0, le=23)]]] = None
    day: Maybe[Given[Annotated[int, Field(ge=1, le=31)]]] = None
    month: Maybe[Given[Annotated[int, Field(ge=1, le=12)]]] = None
    retention_seconds: Maybe[Given[Annotated[int, Field(ge=3600)]]] = None


class BackupSchedule(Model):
    """When snapshots of a branch are taken."""

    schedule: list[BackupScheduleItem]
