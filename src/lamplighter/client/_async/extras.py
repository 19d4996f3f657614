"""Methods that are more than one operation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import anyio

from lamplighter.client._async.base import Caller, Resource
from lamplighter.client.errors import Ambiguous, Conflict
from lamplighter.client.results import BranchFound, ProjectFound
from lamplighter.client.waiting import DONE, FAILED

if TYPE_CHECKING:
    from datetime import datetime

    from lamplighter.api.models.branches import Branch, BranchCreated, BranchCreateRequestEndpointOptions
    from lamplighter.api.models.operations import Operation
    from lamplighter.api.models.projects import Project, ProjectCreateBranch, ProjectListItem
    from lamplighter.api.models.settings import DefaultEndpointSettings, ProjectSettingsData
    from lamplighter.client._async.client import AsyncNeon
    from lamplighter.client._async.resources.branches import Branches
    from lamplighter.client._async.resources.projects import Projects

#: A little more than the unit that projects' times are in.
_SECOND = 1.1
#: Seconds that projects of one name, made at the same time, have to become one.
_YOUNG = 60.0
#: And how long their creation may be under way.
_NEW = 3600.0


class OperationExtras(Resource):
    """What `neon.operations` has besides its operations."""

    async def wait(
        self,
        project_id: str,
        operations: Iterable[Operation | str],
        *,
        timeout: float = 300.0,  # noqa: ASYNC109 - of the operations, not of one await
    ) -> list[Operation]:
        """Waits until operations, or those with these ids, have ended. Gives them as they ended.

        Looks at the first that has not, at growing intervals (0.1 s to 2 s), with `GET .../operations/{operation_id}`.
        Raises `OperationFailed` as soon as one failed or was cancelled, and `DeadlineExceeded` after `timeout` seconds.
        """
        return await self._caller.finished(project_id, operations, timeout)


class BranchExtras(Resource):
    """What `neon.branches` has besides its operations."""

    async def get_or_create(
        self,
        project_id: str,
        *,
        name: str,
        parent: str | None = None,
        at: datetime | str | None = None,
        protected: bool | None = None,
        init_source: str | None = None,
        expires_at: datetime | str | None = None,
        annotation: Mapping[str, str] | None = None,
        endpoints: Sequence[BranchCreateRequestEndpointOptions | Mapping[str, Any]] | None = None,
        wait: bool | float = False,
    ) -> BranchFound:
        """Gives the branch of exactly this name, and creates it where there is none.

        All but `name` and `wait` is for the creation: a branch that is there stays as it is. Safe to repeat, and safe
        to be called at the same time by others: a project has no two branches of a name, so all get the same one. With
        `wait`, what is still running for the branch is waited for, whoever started it.

        Raises `Ambiguous` if the server has several of that name all the same.
        """
        branches = cast("Branches", self)
        reply: BranchCreated | None = None
        found = await self._named(project_id, name)
        if found is None:
            try:
                reply = await branches.create(
                    project_id,
                    name=name,
                    parent=parent,
                    at=at,
                    protected=protected,
                    init_source=init_source,
                    expires_at=expires_at,
                    annotation=annotation,
                    endpoints=endpoints,
                    wait=wait,
                )
            except Conflict:
                # Somebody was faster; or it is something else that is there already.
                found = await self._named(project_id, name)
                if found is None:
                    raise
            else:
                found = reply.branch
        if wait is not False:
            if reply is None:
                await _ended(self._caller, project_id, wait, branch_id=found.id)
            found = await branches.get(project_id, found.id)
        return BranchFound(branch=found, created=reply is not None, reply=reply)

    async def _named(self, project_id: str, name: str) -> Branch | None:
        listed = cast("Branches", self).list(project_id, search=name, limit=1000)
        # A search finds names that only contain it.
        found = {each.id: each async for each in listed if each.name == name}
        if len(found) > 1:
            raise Ambiguous(f"{len(found)} branches are called {name!r}: {', '.join(found)}", ids=list(found))
        return next(iter(found.values()), None)


class ProjectExtras(Resource):
    """What `neon.projects` has besides its operations."""

    async def get_or_create(
        self,
        *,
        name: str,
        org_id: str | None = None,
        region_id: str | None = None,
        pg_version: int | None = None,
        branch: ProjectCreateBranch | Mapping[str, Any] | None = None,
        settings: ProjectSettingsData | Mapping[str, Any] | None = None,
        default_endpoint_settings: DefaultEndpointSettings | Mapping[str, Any] | None = None,
        history_retention_seconds: int | None = None,
        store_passwords: bool | None = None,
        wait: bool | float = False,
    ) -> ProjectFound:
        """Gives the project of exactly this name, and creates it where there is none.

        All but `name`, `org_id` and `wait` is for the creation: a project that is there stays as it is. Neon lets
        projects have the same name, so when several callers create it at the same time, all but one delete theirs again
        (only what this very call has just created) and give the one that stays. It takes a second more to see which
        that is. With `wait`, the creation is waited for, whoever started it.

        Raises `Ambiguous` if there are several of that name, or if the server could not list all projects.
        """
        projects = cast("Projects", self)
        found = await self._settled(name, org_id)
        if len(found) > 1:
            raise _several(name, [each.id for each in found])
        if found:
            return await self._found(found[0], wait)
        began = time.monotonic()
        reply = await projects.create(
            name=name,
            org_id=org_id,
            region_id=region_id,
            pg_version=pg_version,
            branch=branch,
            settings=settings,
            default_endpoint_settings=default_endpoint_settings,
            history_retention_seconds=history_retention_seconds,
            store_passwords=store_passwords,
        )
        made = reply.project
        # Times have whole seconds: only when this one is over do all that are as old as ours show, if their creation
        # took no longer than ours. Then everybody sees the same first one.
        await anyio.sleep(_SECOND + time.monotonic() - began)
        others = [each for each in await self._named(name, org_id) if each.id != made.id]
        first = min(others, key=_order, default=None)
        if first is None or _order(made) < _order(first):
            reply = await self._caller.settle(reply, wait, project_id=made.id)
            return ProjectFound(project=reply.project, created=True, reply=reply)
        await projects.delete(made.id)
        return await self._found(first, wait)

    async def _settled(self, name: str, org_id: str | None) -> list[ProjectListItem]:
        """The projects of this name, after those that lose against another one made at the same time are gone."""
        found = await self._named(name, org_id)
        if any(map(_is_young, found)):
            await anyio.sleep(_SECOND)
            found = await self._named(name, org_id)
        while len(found) > 1 and any(map(_is_young, found)):
            await anyio.sleep(_SECOND)
            found = await self._named(name, org_id)
        return found

    async def _found(self, project: ProjectListItem, wait: bool | float) -> ProjectFound:
        if wait is not False and _age(project) < _NEW:
            await _ended(self._caller, project.id, wait)
        return ProjectFound(project=project, created=False)

    async def _named(self, name: str, org_id: str | None) -> list[ProjectListItem]:
        found: dict[str, ProjectListItem] = {}
        async for page in cast("Projects", self).list(search=name, org_id=org_id, limit=400).pages():
            hidden = page.reply.unavailable_project_ids
            if hidden:
                raise Ambiguous(
                    f"whether there is a project {name!r} cannot be told: the server could not read all of them",
                    ids=list(hidden),
                )
            found.update((each.id, each) for each in page.items if each.name == name)
        return list(found.values())


def _order(project: Project | ProjectListItem) -> tuple[datetime, str]:
    """Of several, the least is the one that stays."""
    return project.created_at, project.id


def _age(project: ProjectListItem) -> float:
    """Seconds, as far as our clock and the server's agree."""
    return abs(time.time() - project.created_at.timestamp())


def _is_young(project: ProjectListItem) -> bool:
    return _age(project) < _YOUNG


async def _ended(caller: Caller, project_id: str, wait: bool | float, *, branch_id: str | None = None) -> None:
    """Waits for what is under way in the project, or for the branch."""
    from lamplighter.client._async.resources.operations import Operations  # noqa: PLC0415 - each at first use

    page = await Operations(caller).list(project_id, limit=100).page()
    running = [
        each
        for each in reversed(page.items)
        if branch_id in (None, each.branch_id) and each.status not in DONE | FAILED
    ]
    await caller.finished(project_id, running, 300.0 if wait is True else float(wait))


def _several(name: str, ids: Sequence[str]) -> Ambiguous:
    return Ambiguous(
        f"several projects are called {name!r}{': ' if ids else ''}{', '.join(ids)}",
        ids=ids,
        hint="rename or delete all but one, or use the id of the one that is meant",
    )


async def connection_string(
    neon: AsyncNeon,
    project_id: str,
    *,
    branch: str | None,
    endpoint: str | None,
    database: str | None,
    role: str | None,
    pooled: bool,
) -> str:
    """See `AsyncNeon.connection_string`."""
    # An empty branch is a mistake, not the default one: the server refuses it.
    if branch is None and (database is None or role is None):
        branch = await _branch_of(neon, project_id, endpoint)
    if database is None:
        found = {each.name: each.owner_name async for each in neon.databases.list(project_id, str(branch))}
        database = _only("database", branch, list(found))
        role = role or found[database]
    if role is None:
        role = (await neon.databases.get(project_id, str(branch), database)).owner_name
    return await neon.projects.connection_uri(
        project_id,
        database_name=database,
        role_name=role,
        branch_id=branch,
        endpoint_id=endpoint,
        pooled=pooled,
    )


async def _branch_of(neon: AsyncNeon, project_id: str, endpoint: str | None) -> str:
    if endpoint is not None:
        return (await neon.endpoints.get(project_id, endpoint)).branch_id
    async for each in neon.branches.list(project_id):
        if each.default:
            return each.id
    raise Ambiguous(f"project {project_id} has no default branch: name one")


def _only(kind: str, branch: str | None, names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    found = f"{len(names)} {kind}s: {', '.join(names)}" if names else f"no {kind}"
    raise Ambiguous(f"branch {branch} has {found}", ids=names, hint=f"say which is meant: {kind}=...")
