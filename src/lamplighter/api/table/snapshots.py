"""Snapshots of branches."""

from lamplighter.api.models.common import EmptyResponse
from lamplighter.api.models.operations import OperationsResponse
from lamplighter.api.models.snapshots import (
    BackupSchedule,
    SnapshotCreated,
    SnapshotResponse,
    SnapshotRestored,
    SnapshotRestoreRequest,
    SnapshotsResponse,
    SnapshotUpdateRequest,
)
from lamplighter.api.table.entry import BRANCH, PROJECT, Operation, Rows, query

snapshots = Rows("Snapshot")

OPERATIONS: tuple[Operation, ...] = (
    snapshots.get("getSnapshotSchedule", BRANCH + "/backup_schedule", reply=BackupSchedule),
    snapshots.put(
        "setSnapshotSchedule", BRANCH + "/backup_schedule", body=BackupSchedule, body_required=True, reply=EmptyResponse
    ),
    snapshots.post(
        "createSnapshot",
        BRANCH + "/snapshot",
        query("lsn", str),
        query("timestamp", str),
        query("name", str),
        query("expires_at", str),
        reply=SnapshotCreated,
    ),
    snapshots.get("listSnapshots", PROJECT + "/snapshots", reply=SnapshotsResponse),
    snapshots.delete("deleteSnapshot", PROJECT + "/snapshots/{snapshot_id}", reply=OperationsResponse, status=202),
    snapshots.patch(
        "updateSnapshot",
        PROJECT + "/snapshots/{snapshot_id}",
        body=SnapshotUpdateRequest,
        body_required=True,
        reply=SnapshotResponse,
    ),
    snapshots.post(
        "restoreSnapshot",
        PROJECT + "/snapshots/{snapshot_id}/restore",
        query("name", str),
        body=SnapshotRestoreRequest,
        reply=SnapshotRestored,
    ),
)
