"""The kinds of operation that there are: what the engine runs for each, and the action by which clients see it.

Kinds are written to the catalog, so a name once released stays.
"""

from __future__ import annotations

from lamplighter.control.operations.model import NewOperation

PROJECT_CREATE = "project.create"
PROJECT_DELETE = "project.delete"
BRANCH_CREATE = "branch.create"
BRANCH_DELETE = "branch.delete"
BRANCH_APPLY = "branch.apply"
ENDPOINT_START = "endpoint.start"
ENDPOINT_SUSPEND = "endpoint.suspend"
ENDPOINT_CONFIGURE = "endpoint.configure"
ENDPOINT_DELETE = "endpoint.delete"


def start(branch_id: str, endpoint_id: str) -> NewOperation:
    return NewOperation(ENDPOINT_START, "start_compute", branch_id=branch_id, endpoint_id=endpoint_id)


def suspend(branch_id: str, endpoint_id: str) -> NewOperation:
    return NewOperation(ENDPOINT_SUSPEND, "suspend_compute", branch_id=branch_id, endpoint_id=endpoint_id)


def configure(branch_id: str, endpoint_id: str) -> NewOperation:
    return NewOperation(ENDPOINT_CONFIGURE, "apply_config", branch_id=branch_id, endpoint_id=endpoint_id)


def remove_endpoint(branch_id: str, endpoint_id: str) -> NewOperation:
    return NewOperation(ENDPOINT_DELETE, "suspend_compute", branch_id=branch_id, endpoint_id=endpoint_id)


def apply(branch_id: str, endpoint_id: str | None) -> NewOperation:
    return NewOperation(BRANCH_APPLY, "apply_config", branch_id=branch_id, endpoint_id=endpoint_id)


def remove_branch(branch_id: str) -> NewOperation:
    return NewOperation(BRANCH_DELETE, "delete_timeline", branch_id=branch_id)


def remove_project() -> NewOperation:
    """Neon shows no operation of a deleted project, so this one is hidden."""
    return NewOperation(PROJECT_DELETE, "delete_timeline", visible=False)
