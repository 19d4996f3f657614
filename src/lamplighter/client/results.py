"""What the methods give that are more than one operation. Both clients give the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamplighter.api.models.branches import Branch, BranchCreated
    from lamplighter.api.models.projects import Project, ProjectCreated, ProjectListItem


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchFound:
    """The branch of that name. `reply` (roles, passwords, connection strings) is there only where it was created."""

    branch: Branch
    created: bool
    reply: BranchCreated | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFound:
    """The project of that name. `reply` (roles, passwords, connection strings) is there only where it was created."""

    project: Project | ProjectListItem
    created: bool
    reply: ProjectCreated | None = None
