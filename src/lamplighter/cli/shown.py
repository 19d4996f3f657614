"""What tables show of branches, endpoints and the like: columns, and cells that are more than a field. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lamplighter.cli.output import Column
from lamplighter.cli.text import NOTHING, human_bytes, human_duration

DAY = 86400


def age(created: Any, now: datetime) -> str:
    """How long ago a time of the API was: the largest unit alone."""
    moment = moment_of(created)
    if moment is None:
        return NOTHING
    return " ".join(human_duration((now - moment).total_seconds()).split()[:2])


def moment_of(text: Any) -> datetime | None:
    """A time of the API; None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def size(count: Any) -> str:
    """Bytes for people."""
    return human_bytes(count if isinstance(count, int) else None)


def suspend_timeout(seconds: Any) -> str:
    """The seconds of an endpoint, and the two numbers that mean something else."""
    if not isinstance(seconds, int):
        return NOTHING
    return {0: "default", -1: "never"}.get(seconds) or human_duration(seconds)


def number(value: Any) -> str:
    """A number of compute units."""
    return f"{value:g}" if isinstance(value, (int, float)) else NOTHING


def marks(branch: Mapping[str, Any]) -> str:
    """` (default, protected)`, or nothing."""
    said = [word for word in ("default", "protected") if branch.get(word)]
    return f" ({', '.join(said)})" if said else ""


PROJECT = (
    Column("id"),
    Column("name"),
    Column("region_id", "region"),
    Column("pg_version", "postgres"),
    Column("org_id", "organization"),
    Column("created_at", "created"),
)

PROJECT_DETAILS = (
    *PROJECT,
    Column("history_retention_seconds", "history", show=lambda value: suspend_timeout(value) if value else NOTHING),
    Column("default_endpoint_settings.autoscaling_limit_min_cu", "least CU", show=number),
    Column("default_endpoint_settings.autoscaling_limit_max_cu", "most CU", show=number),
    Column("default_endpoint_settings.suspend_timeout_seconds", "suspended after", show=suspend_timeout),
    Column("settings.enable_logical_replication", "logical replication"),
)

ENDPOINT = (
    Column("id"),
    Column("name"),
    Column("branch_id", "branch"),
    Column("type"),
    Column("current_state", "state"),
    Column("autoscaling_limit_min_cu", "least CU", right=True, show=number),
    Column("autoscaling_limit_max_cu", "most CU", right=True, show=number),
    Column("suspend_timeout_seconds", "suspended after", show=suspend_timeout),
    Column("host"),
)

DATABASE = (
    Column("name"),
    Column("owner_name", "owner"),
    Column("id"),
    Column("branch_id", "branch"),
    Column("created_at", "created"),
)

ROLE = (
    Column("name"),
    Column("protected"),
    Column("authentication_method", "authentication"),
    Column("branch_id", "branch"),
    Column("created_at", "created"),
)

SNAPSHOT = (
    Column("id"),
    Column("name"),
    Column("source_branch_id", "branch"),
    Column("created_at", "created"),
    Column("expires_at", "expires"),
    Column("full_size", "size", right=True, show=size),
)


def branch_columns(names: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """Of a branch; parents by name where `names` has their id."""
    known = names or {}
    return (
        Column("id"),
        Column("name"),
        Column("default"),
        Column("protected"),
        Column("parent_id", "parent", show=lambda value: known.get(value, value) if value else NOTHING, whole=False),
        Column("current_state", "state"),
        Column("logical_size", "size", right=True, show=size),
        Column("created_at", "created"),
        Column("expires_at", "expires"),
    )


def below(name: str, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """The same columns of an object that is a field of what is shown."""
    return tuple(
        Column(f"{name}.{one.field}", one.title, right=one.right, show=one.show, whole=one.whole) for one in columns
    )
