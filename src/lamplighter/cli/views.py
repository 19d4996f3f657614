"""Facts in, text out: how `lamp status` shows what it found. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lamplighter.cli.text import NOTHING, fields, human_bytes, human_duration, plural, table

if TYPE_CHECKING:
    from lamplighter.platform.inspect import (
        BranchFacts,
        CatalogFacts,
        ComputeFacts,
        EndpointFacts,
        FailingOperation,
        PlatformFacts,
        ProjectFacts,
        Status,
        StorageFacts,
    )

_HEADER = ("BRANCH", "ENDPOINT", "STATE", "PORT", "SIZE", "MEMORY", "OWN", "LOGICAL")
_RIGHT = (5, 6, 7)
#: Of an operation's error; the whole of it is in the JSON.
_ERROR_CHARACTERS = 200


def as_json(facts: Any) -> str:
    """Any of the fact classes, with the names of its fields."""
    return json.dumps(asdict(facts), indent=2, ensure_ascii=False)


def status_text(status: Status, *, now: float) -> str:
    """`now` is in seconds of the Unix epoch."""
    head = [*_platform(status.platform, now), *_catalog(status.catalog), *_storage(status.storage)]
    blocks = [fields(head)]
    if status.platform.state == "stopped" and status.computes:
        blocks.append(_orphans(status.computes))
    blocks += [[_title(project), *_branches(project)] for project in status.projects]
    if status.catalog is not None and status.catalog.reachable and not status.projects:
        blocks.append(["There are no projects."])
    if status.failing:
        blocks.append(_failing(status.failing))
    return "\n\n".join("\n".join(block) for block in blocks)


def _platform(platform: PlatformFacts, now: float) -> list[tuple[str, str]]:
    data = ("Data", platform.data_dir)
    if platform.state == "stopped":
        return [("Platform", "not running; start it with `lamp up`"), data]
    since = ""
    if platform.since is not None:
        moment = datetime.fromtimestamp(platform.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        since = f", since {moment} ({human_duration(now - platform.since)})"
    if platform.state == "busy":
        return [("Platform", f"starting or stopping (process {platform.pid}{since})"), data]
    return [("Platform", f"running (process {platform.pid}{since})"), ("API", platform.base_url or NOTHING), data]


def _catalog(catalog: CatalogFacts | None) -> list[tuple[str, str]]:
    if catalog is None:
        return []
    if not catalog.reachable:
        return [("Catalog", f"cannot be read: {catalog.why}")]
    known = f" of {catalog.migrations_known}" if catalog.migrations != catalog.migrations_known else ""
    size = human_bytes(catalog.size_bytes)
    migrations = plural(catalog.migrations or 0, "migration") + known
    return [("Catalog", f"{catalog.where}, PostgreSQL {catalog.version}, {size}, {migrations}")]


def _storage(storage: StorageFacts) -> list[tuple[str, str]]:
    if storage.why:
        return [("Storage", f"cannot be read: {storage.why}")]
    if storage.filesystem is None:
        return [("Storage", "nothing on disk")]
    driver = storage.driver or "no driver chosen yet"
    free, total, reserve = map(human_bytes, (storage.free_bytes, storage.total_bytes, storage.reserve_bytes))
    lines = [f"{driver} on {storage.filesystem}, {free} free of {total}, {reserve} kept in reserve"]
    if storage.pool is not None:
        mounted = "mounted" if storage.pool.mounted else "not mounted"
        lines.append(f"pool of {human_bytes(storage.pool.size_bytes)} ({storage.pool.fs}, {mounted})")
    if storage.volumes is not None:
        lines.append(plural(len(storage.volumes), "volume"))
    return [("Storage", "\n".join(lines))]


def _orphans(computes: Iterable[ComputeFacts]) -> list[str]:
    return [
        "A platform crashed here and its computes go on. `lamp up` takes them over, `lamp down` stops them:",
        *(f"  {one.id}  process {one.pid}" + (f"  port {one.port}" if one.port else "") for one in computes),
    ]


def _title(project: ProjectFacts) -> str:
    return f"Project {project.id}  {project.name}  PostgreSQL {project.pg_version}"


def _branches(project: ProjectFacts) -> list[str]:
    rows = []
    for branch in project.branches:
        cells = _branch_cells(branch)
        rows += [
            (name, *_endpoint_cells(endpoint), *sizes)
            for (name, sizes), endpoint in zip(_repeated(cells, len(branch.endpoints)), branch.endpoints, strict=True)
        ]
        if not branch.endpoints:
            rows.append((cells[0], NOTHING, branch.pending_state or branch.state, NOTHING, NOTHING, NOTHING, *cells[1]))
    return table(_HEADER, rows, right=_RIGHT)


def _branch_cells(branch: BranchFacts) -> tuple[str, tuple[str, str]]:
    mark = " (default)" if branch.is_default else ""
    name = f"{'  ' * branch.depth}{branch.name}{mark}  {branch.id}"
    return name, (human_bytes(branch.own_bytes), human_bytes(branch.logical_bytes))


def _repeated(cells: tuple[str, tuple[str, str]], times: int) -> list[tuple[str, tuple[str, str]]]:
    """What is a branch's is said once, beside its first endpoint."""
    return [cells, *[("", ("", ""))] * (times - 1)][:times]


def _endpoint_cells(endpoint: EndpointFacts) -> tuple[str, str, str, str, str]:
    kind = "" if endpoint.type == "read_write" else " (read only)"
    size = (
        f"{endpoint.min_cu:g} CU"
        if endpoint.min_cu == endpoint.max_cu
        else (f"{endpoint.min_cu:g}-{endpoint.max_cu:g} CU")
    )
    memory = human_bytes(endpoint.compute.memory_bytes) if endpoint.compute is not None else NOTHING
    return endpoint.id + kind, _state(endpoint), str(endpoint.port), size, memory


def _state(endpoint: EndpointFacts) -> str:
    if endpoint.pending_state is not None and endpoint.pending_state != endpoint.state:
        return f"{endpoint.state} > {endpoint.pending_state}"
    if endpoint.state == "active" and endpoint.compute is None:
        return "active, no postmaster"
    return endpoint.state


def _failing(operations: Iterable[FailingOperation]) -> list[str]:
    lines = ["Operations in trouble:"]
    for one in operations:
        again = f", again at {one.retry_at}" if one.retry_at else ""
        where = one.endpoint_id or one.branch_id or one.project_id
        lines.append(
            f"  {one.updated_at[:19]}  {one.action} of {where}: {one.status}, {plural(one.failures, 'failure')}{again}"
        )
        said = one.error.strip().partition("\n")[0]
        if said:
            lines.append(f"    {said[:_ERROR_CHARACTERS]}")
    return lines
