"""What a new or changed branch may be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lamplighter.api.errors import BadRequest, NotServed, Unprocessable

PARENT_DATA = "parent-data"
SCHEMA_ONLY = "schema-only"
#: Ways to begin a branch that the API knows and this server does not have.
NOT_SERVED = frozenset({"parent-schema", "import", "anonymized"})

LONGEST_LIFE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class BranchWish:
    """A branch to be made. `name` and `parent_id` None mean a generated name and the project's default branch."""

    name: str | None = None
    parent_id: str | None = None
    protected: bool = False
    init_source: str = PARENT_DATA
    expires_at: datetime | None = None
    annotation: Mapping[str, str] | None = None

    @property
    def schema_only(self) -> bool:
        return self.init_source == SCHEMA_ONLY


def wish(body: Any, *, now: datetime) -> BranchWish:
    """What a request body (or none) asks for. Raises BadRequest, NotServed."""
    branch = getattr(body, "branch", None)
    annotation = getattr(body, "annotation_value", None)
    if branch is None:
        return BranchWish(annotation=annotation)
    if branch.parent_lsn is not None and branch.parent_timestamp is not None:
        raise BadRequest("give parent_lsn or parent_timestamp, not both")
    if branch.parent_lsn is not None or branch.parent_timestamp is not None:
        raise NotServed("a branch of a past moment of its parent is not available on this server")
    if branch.archived:
        raise NotServed("an archived branch is not available on this server")
    protected = bool(branch.protected)
    check_expiry(branch.expires_at, protected=protected, is_default=False, now=now)
    return BranchWish(
        name=branch.name,
        parent_id=branch.parent_id,
        protected=protected,
        init_source=check_init_source(branch.init_source),
        expires_at=branch.expires_at,
        annotation=annotation,
    )


def check_init_source(init_source: str | None) -> str:
    """The source again, or the default. Raises NotServed, BadRequest."""
    if init_source is None:
        return PARENT_DATA
    if init_source in NOT_SERVED:
        raise NotServed(f"a branch with init_source {init_source!r} is not available on this server")
    if init_source not in (PARENT_DATA, SCHEMA_ONLY):
        raise BadRequest(f"unknown init_source {init_source!r}; use {PARENT_DATA!r} or {SCHEMA_ONLY!r}")
    return init_source


def check_expiry(expires_at: datetime | None, *, protected: bool, is_default: bool, now: datetime) -> None:
    """Raise BadRequest unless a branch may end then: in the future, within 30 days, neither default nor protected."""
    if expires_at is None:
        return
    if protected:
        raise BadRequest("a protected branch cannot expire", code="PROTECTED_BRANCH_EXPIRATION_NOT_ALLOWED")
    if is_default:
        raise BadRequest("the default branch cannot expire", code="DEFAULT_BRANCH_EXPIRATION_NOT_ALLOWED")
    if expires_at <= now:
        raise BadRequest("expires_at must be in the future")
    if expires_at - now > LONGEST_LIFE:
        raise BadRequest(f"expires_at must be at most {LONGEST_LIFE.days} days ahead")


def check_deletable(*, is_default: bool, protected: bool, original_root: bool, children: int) -> None:
    """Raise Unprocessable when the branch has to stay, and say what to do."""
    if is_default:
        raise Unprocessable("the default branch cannot be deleted; make another branch the default first")
    if protected:
        raise Unprocessable("a protected branch cannot be deleted; remove its protection first")
    if original_root:
        raise Unprocessable("the root branch of a project cannot be deleted; delete the project instead")
    if children:
        raise Unprocessable(f"the branch has {children} child branches; delete them first")


def ttl_seconds(expires_at: datetime | None, now: datetime) -> int | None:
    """How long the branch was given, in seconds."""
    return None if expires_at is None else round((expires_at - now).total_seconds())
