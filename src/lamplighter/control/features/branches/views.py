"""A branch as the API shows it."""

from __future__ import annotations

from typing import Any

from lamplighter.api.models import branches as wire
from lamplighter.control.features.branches.model import Branch
from lamplighter.control.http.calls import present


def show_branch(branch: Branch) -> wire.Branch:
    return wire.Branch(
        id=branch.id,
        project_id=branch.project_id,
        name=branch.name,
        current_state=branch.current_state,
        state_changed_at=branch.state_changed_at,
        creation_source=branch.creation_source,
        primary=branch.is_default,
        default=branch.is_default,
        protected=branch.protected,
        cpu_used_sec=branch.compute_seconds,
        compute_time_seconds=branch.compute_seconds,
        active_time_seconds=branch.active_seconds,
        written_data_bytes=0,
        data_transfer_bytes=branch.transferred,
        created_at=branch.created_at,
        updated_at=branch.updated_at,
        init_source=branch.init_source,
        created_by=wire.BranchCreator(name=branch.created_by_name, image=""),
        **present(
            parent_id=branch.parent_id,
            parent_timestamp=branch.parent_timestamp,
            pending_state=branch.pending_state,
            logical_size=branch.logical_size,
            expires_at=branch.expires_at,
            ttl_interval_seconds=branch.ttl_interval_seconds,
        ),
    )


def show_annotation(branch: Branch) -> dict[str, Any]:
    return {
        "object": {"type": "console/branch", "id": branch.id},
        "value": branch.annotation,
        "created_at": branch.created_at,
        "updated_at": branch.created_at,
    }
