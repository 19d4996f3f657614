"""Our own clients against a real platform: all that it serves, by `Neon` and by `AsyncNeon`."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lamplighter.api.operations import OPERATIONS
from lamplighter.client.errors import (
    APIError,
    AuthenticationError,
    BadRequest,
    DeadlineExceeded,
    Locked,
    NotAvailable,
    NotFound,
    OperationFailed,
    PermissionDenied,
    RateLimited,
)
from lamplighter.client.names import PLACES
from support.lamp import Lamp, sql, temporary_lamp
from support.sdk import KINDS, Kind, Record, client, ids, together
from support.tidy import only_for_now

#: Every answer of the table, of what is served: some operations have two.
SERVED = {(each.id, status) for each in OPERATIONS.values() if each.served for status in each.statuses}


UNSERVED = [each.id for each in OPERATIONS.values() if not each.served]
#: What nobody has enabled is not there, as Neon would say too.
NEVER_ENABLED = {"getNeonAuth", "getProjectBranchDataAPI"}


@pytest.fixture
def anyio_backend() -> str:
    """Psycopg knows no other."""
    return "asyncio"


@pytest.fixture(autouse=True)
def tidy(lamp: Lamp) -> Iterator[None]:
    with only_for_now(lamp):
        yield


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
async def neon(kind: Kind, lamp: Lamp, record: Record) -> AsyncIterator[Any]:
    async with client(kind, record=record, api_key=lamp.key, base_url=lamp.url) as made:
        yield made


@pytest.fixture
def project(lamp: Lamp) -> str:
    """A project's id; it is ready."""
    return str(lamp.project()["project"]["id"])


@dataclass(frozen=True)
class Walk:
    """One way through all that is served, and where it is."""

    neon: Any
    lamp: Lamp
    kind: Kind
    org_id: str = ""
    project_id: str = ""
    main: str = ""
    uri: str = ""

    @property
    def place(self) -> tuple[str, str]:
        return self.project_id, self.main

    def stranger(self, key: str) -> Any:
        return client(self.kind, api_key=key, base_url=self.lamp.url)


async def test_a_whole_life(neon: Any, lamp: Lamp, kind: Kind, record: Record) -> None:
    """Every operation that is served does what it says, and none was forgotten."""
    org_id = await account(neon, lamp)
    walk = await a_project(Walk(neon, lamp, kind, org_id))
    await personal_keys(walk)
    await organization_keys(walk)
    await what_is_said_of_the_project(walk)
    await operations(walk)
    dev, endpoint_id = await branches(walk)
    await endpoints(walk, dev, endpoint_id)
    await roles(walk)
    await databases(walk)
    await the_end_of_a_branch(walk, dev)
    await the_end_of_the_project(walk)
    called = {(id_, status) for id_, status in record.answered if status < 300}
    assert called == SERVED


async def account(neon: Any, lamp: Lamp) -> str:
    me = await neon.users.me()
    assert str(me.id) == lamp.call("GET", "/users/me")["id"]
    assert me.plan == "scale"
    details = await neon.users.auth_details()
    assert (details.account_id, details.auth_method) == (str(me.id), "api_key_user")
    (one,) = [each async for each in neon.users.organizations()]
    assert await neon.organizations.get(one.id) == one
    (member,) = await neon.organizations.members(one.id).all()
    assert (member.member.user_id, member.member.role, member.user.email) == (me.id, "admin", me.email)
    (region,) = [each async for each in neon.regions.list() if each.default]
    assert region.region_id == "aws-us-east-2"
    return str(one.id)


async def a_project(walk: Walk) -> Walk:
    made = await walk.neon.projects.create(
        name="whole life",
        pg_version=17,
        org_id=walk.org_id,
        branch={"name": "trunk", "database_name": "shop", "role_name": "keeper"},
        history_retention_seconds=3600,
        default_endpoint_settings={"autoscaling_limit_min_cu": 0.25, "autoscaling_limit_max_cu": 0.25},
        wait=True,
    )
    assert (made.project.name, made.project.org_id, made.project.pg_version) == ("whole life", walk.org_id, 17)
    assert made.project.history_retention_seconds == 3600
    assert [(each.action, each.status) for each in made.operations] == [
        ("create_timeline", "finished"),
        ("start_compute", "finished"),
    ]
    assert (made.branch.name, made.branch.default) == ("trunk", True)
    assert ([each.name for each in made.roles], [each.name for each in made.databases]) == (["keeper"], ["shop"])
    uri = made.connection_uris[0].connection_uri
    assert sql(uri, "select current_user::text, current_database()::text") == [("keeper", "shop")]
    sql(uri, "create table kept as select 7 as n")
    return Walk(walk.neon, walk.lamp, walk.kind, walk.org_id, made.project.id, made.branch.id, uri)


async def personal_keys(walk: Walk) -> None:
    neon = walk.neon
    made = await neon.api_keys.create(name="one of mine")
    listed = {each.id: each for each in await neon.api_keys.list().all()}
    assert listed[made.id].name == "one of mine"
    assert listed[made.id].last_used_at is None
    async with walk.stranger(made.key) as with_it:
        assert (await with_it.users.me()).id == made.created_by
        revoked = await neon.api_keys.revoke(made.id)
        assert (revoked.id, revoked.revoked) == (made.id, True)
        with pytest.raises(AuthenticationError):
            await with_it.users.me()
    assert made.id not in ids(await neon.api_keys.list().all())


async def organization_keys(walk: Walk) -> None:
    neon = walk.neon
    wide = await neon.organizations.create_api_key(walk.org_id, name="wide")
    scoped = await neon.organizations.create_api_key(walk.org_id, name="scoped", project_id=walk.project_id)
    assert (wide.project_id, scoped.project_id) == (None, walk.project_id)
    listed = {each.id: each for each in await neon.organizations.api_keys(walk.org_id).all()}
    assert (listed[wide.id].project_id, listed[scoped.id].project_id) == (None, walk.project_id)
    async with walk.stranger(wide.key) as with_it:
        details = await with_it.users.auth_details()
        assert (details.account_id, details.auth_method) == (walk.org_id, "api_key_org")
    for each in (wide, scoped):
        revoked = await neon.organizations.revoke_api_key(walk.org_id, each.id)
        assert (revoked.id, revoked.revoked) == (each.id, True)
    assert not {wide.id, scoped.id} & ids(await neon.organizations.api_keys(walk.org_id).all())


async def what_is_said_of_the_project(walk: Walk) -> None:
    neon = walk.neon
    (listed,) = await neon.projects.list(search="whole", org_id=walk.org_id).all()
    assert (listed.id, listed.name) == (walk.project_id, "whole life")
    assert await neon.projects.list_shared().all() == []
    got = await neon.projects.get(walk.project_id)
    assert (got.id, got.default_endpoint_settings.autoscaling_limit_max_cu) == (walk.project_id, 0.25)
    changed = await neon.projects.update(walk.project_id, name="half a life", history_retention_seconds=7200, wait=True)
    assert (changed.project.name, changed.project.history_retention_seconds) == ("half a life", 7200)
    assert (await neon.projects.get(walk.project_id)).name == "half a life"
    for pooled in (False, True):
        uri = await neon.projects.connection_uri(
            walk.project_id, database_name="shop", role_name="keeper", pooled=pooled
        )
        assert sql(uri, "select n from kept") == [(7,)]
    assert await neon.connection_string(walk.project_id) == walk.uri


async def operations(walk: Walk) -> None:
    found = await walk.neon.operations.list(walk.project_id).all()
    assert [each.action for each in found] == ["start_compute", "create_timeline"]
    for each in found:
        assert await walk.neon.operations.get(walk.project_id, each.id) == each
        # An id as it is in the address of the operation, too.
        assert await walk.neon.operations.get(walk.project_id, uuid.UUID(str(each.id))) == each


async def branches(walk: Walk) -> tuple[str, str]:
    neon, project_id = walk.neon, walk.project_id
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    made = await neon.branches.create(
        project_id,
        name="dev/1 %",
        parent=walk.main,
        expires_at=until,
        annotation={"owner": "tests"},
        endpoints=[{"type": "read_write"}],
        wait=True,
    )
    dev = made.branch.id
    assert (made.branch.name, made.branch.parent_id, made.branch.expires_at) == ("dev/1 %", walk.main, until)
    assert [(each.action, each.status) for each in made.operations] == [
        ("create_branch", "finished"),
        ("start_compute", "finished"),
    ]
    assert sql(made.connection_uris[0].connection_uri, "select n from kept") == [(7,)]
    page = await neon.branches.list(project_id).page()
    assert ids(page.items) == {walk.main, dev}
    assert page.reply.annotations[dev].value == {"owner": "tests"}
    assert [each.id for each in await neon.branches.list(project_id, search="1 %").all()] == [dev]
    assert await neon.branches.count(project_id) == 2
    assert await neon.branches.count(project_id, search="trunk") == 1
    got = await neon.branches.get(project_id, dev)
    assert (got.id, got.name, got.current_state) == (dev, "dev/1 %", "ready")
    changed = await neon.branches.update(project_id, dev, name="test", expires_at=None, wait=True)
    assert (changed.branch.name, changed.branch.expires_at) == ("test", None)
    assert (await neon.branches.set_default(project_id, dev, wait=True)).branch.default
    assert not (await neon.branches.get(project_id, walk.main)).default
    assert (await neon.branches.set_default(project_id, walk.main, wait=True)).branch.id == walk.main
    (endpoint,) = [each async for each in neon.branches.endpoints(project_id, dev)]
    assert endpoint.id == made.endpoints[0].id
    return dev, endpoint.id


async def endpoints(walk: Walk, dev: str, endpoint_id: str) -> None:
    neon, project_id = walk.neon, walk.project_id
    place = (project_id, endpoint_id)
    uri = await neon.connection_string(project_id, branch=dev)
    started = sql(uri, "select pg_postmaster_start_time()")

    asleep = await neon.endpoints.suspend(*place, wait=True)
    assert [(each.action, each.status) for each in asleep.operations] == [("suspend_compute", "finished")]
    assert (await neon.endpoints.get(*place)).current_state == "idle"
    awake = await neon.endpoints.start(*place, wait=True)
    assert [(each.action, each.status) for each in awake.operations] == [("start_compute", "finished")]
    assert (await neon.endpoints.get(*place)).current_state == "active"
    started_again = sql(uri, "select pg_postmaster_start_time()")
    assert started_again > started
    again = await neon.endpoints.restart(*place, wait=True)
    assert {each.status for each in again.operations} == {"finished"}
    assert sql(uri, "select pg_postmaster_start_time()") > started_again
    assert (await neon.endpoints.start(*place, wait=True)).endpoint.current_state == "active"

    changed = await neon.endpoints.update(*place, autoscaling_limit_max_cu=0.5, suspend_timeout_seconds=-1, wait=True)
    assert (changed.endpoint.autoscaling_limit_max_cu, changed.endpoint.suspend_timeout_seconds) == (0.5, -1)
    made = await neon.endpoints.create(project_id, branch_id=walk.main, type="read_only", wait=True)
    reader = made.endpoint.id
    assert (made.endpoint.branch_id, made.endpoint.type) == (walk.main, "read_only")
    listed = {each.id: each.current_state for each in await neon.endpoints.list(project_id).all()}
    assert len(listed) == 3
    assert (listed[reader], listed[endpoint_id]) == ("active", "active")
    deleted = await neon.endpoints.delete(project_id, reader, wait=True)
    assert deleted.endpoint.id == reader
    assert await neon.endpoints.delete(project_id, reader) is None
    with pytest.raises(NotFound):
        await neon.endpoints.get(project_id, reader)


async def roles(walk: Walk) -> None:
    neon, place = walk.neon, walk.place
    made = await neon.roles.create(*place, name="le boulanger 1 %", wait=True)
    assert made.role.name == "le boulanger 1 %"
    group = await neon.roles.create(*place, name="group", no_login=True, wait=True)
    assert group.role.password is None
    assert {each.name for each in await neon.roles.list(*place).all()} == {"keeper", "le boulanger 1 %", "group"}
    got = await neon.roles.get(*place, "le boulanger 1 %")
    assert (got.name, got.password) == ("le boulanger 1 %", None)
    first = await neon.roles.reveal_password(*place, "le boulanger 1 %")
    assert first == made.role.password
    reset = await neon.roles.reset_password(*place, "le boulanger 1 %", wait=True)
    assert reset.role.password == await neon.roles.reveal_password(*place, "le boulanger 1 %") != first
    uri = await neon.connection_string(walk.project_id, role="le boulanger 1 %")
    assert sql(uri, "select current_user::text") == [("le boulanger 1 %",)]


async def databases(walk: Walk) -> None:
    neon, place = walk.neon, walk.place
    made = await neon.databases.create(*place, name="orders & co", owner_name="le boulanger 1 %", wait=True)
    assert (made.database.name, made.database.owner_name) == ("orders & co", "le boulanger 1 %")
    assert {each.name for each in await neon.databases.list(*place).all()} == {"shop", "orders & co"}
    assert (await neon.databases.get(*place, "orders & co")).id == made.database.id
    changed = await neon.databases.update(*place, "orders & co", name="sales", owner_name="keeper", wait=True)
    assert (changed.database.name, changed.database.owner_name) == ("sales", "keeper")
    uri = await neon.connection_string(walk.project_id, database="sales", role="keeper")
    assert sql(uri, "select current_database()::text") == [("sales",)]
    assert (await neon.databases.delete(*place, "sales", wait=True)).database.name == "sales"
    assert await neon.databases.delete(*place, "sales") is None
    assert (await neon.roles.delete(*place, "le boulanger 1 %", wait=True)).role.name == "le boulanger 1 %"
    assert await neon.roles.delete(*place, "le boulanger 1 %") is None
    assert sql(walk.uri, "select datname::text from pg_database where datname in ('sales', 'orders & co')") == []
    assert sql(walk.uri, "select rolname::text from pg_roles where rolname like '%boulanger%'") == []


async def the_end_of_a_branch(walk: Walk, dev: str) -> None:
    neon, project_id = walk.neon, walk.project_id
    await neon.branches.update(project_id, dev, protected=True, wait=True)
    with pytest.raises(BadRequest, match="protected"):
        await neon.branches.delete(project_id, dev)
    await neon.branches.update(project_id, dev, protected=False, wait=True)
    deleted = await neon.branches.delete(project_id, dev, wait=True)
    assert deleted.branch.id == dev
    assert {each.status for each in deleted.operations} == {"finished"}
    assert await neon.branches.delete(project_id, dev) is None
    with pytest.raises(NotFound):
        await neon.branches.get(project_id, dev)
    assert [each.id for each in await neon.branches.list(project_id).all()] == [walk.main]


async def the_end_of_the_project(walk: Walk) -> None:
    assert (await walk.neon.projects.delete(walk.project_id)).id == walk.project_id
    with pytest.raises(NotFound):
        await walk.neon.projects.get(walk.project_id)
    assert await walk.neon.projects.list(search="half a life").all() == []


# What is not served


def least(name: str, annotation: str) -> Any:
    """Something of that type, as it is written in a generated method."""
    first = annotation.partition(" | ")[0]
    if name == "archive":
        return b"PK\x05\x06" + bytes(18)
    if first.startswith("Literal["):
        return first.removeprefix("Literal[").partition(",")[0].strip("\"']")
    if first.startswith(("Sequence[", "Mapping[")):
        return [] if first.startswith("Sequence[") else {}
    known = {"str": "x-1", "int": 1, "bool": True, "datetime": datetime(2026, 1, 31, tzinfo=UTC)}
    return known.get(first, {})


def asked_for_least(neon: Any, operation_id: str) -> Any:
    """A call of the operation with no more than its method demands."""
    group, call = PLACES[operation_id]
    twin = getattr(importlib.import_module(f"lamplighter.client._sync.resources.{group.name}"), group.class_name)
    given: dict[str, Any] = {}
    positional: list[Any] = []
    for each in list(inspect.signature(getattr(twin, call.method)).parameters.values())[1:]:
        value = least(each.name, str(each.annotation))
        if each.kind is inspect.Parameter.KEYWORD_ONLY:
            if each.default is inspect.Parameter.empty:
                given[each.name] = value
        else:
            positional.append(value)
    made = getattr(getattr(neon, group.name), call.method)(*positional, **given)
    return made.page() if call.paged else made


@pytest.mark.filterwarnings("ignore:.* is deprecated by Neon:DeprecationWarning")
async def test_what_is_not_served_is_not_available(neon: Any, record: Record) -> None:
    """It says which operation, and is not tried again; what nobody could have enabled is just not there."""
    refused: dict[str, tuple[type[Exception], str]] = {}
    for operation_id in UNSERVED:
        with pytest.raises(APIError, match=r" is not .*on this server") as caught:
            await asked_for_least(neon, operation_id)
        assert not caught.value.retryable
        refused[operation_id] = (type(caught.value), caught.value.message.partition(" ")[0])
    assert refused == {id_: (NotFound if id_ in NEVER_ENABLED else NotAvailable, id_) for id_ in UNSERVED}
    assert [each.operation_id for each in record.exchanges] == UNSERVED


# Waiting


async def test_operations_are_waited_for_later(neon: Any, project: str) -> None:
    """By themselves or by their ids; the reply to a change that is not waited for has them as they began."""
    made = await neon.branches.create(project, name="later", endpoints=[{"type": "read_write"}])
    assert {each.status for each in made.operations} <= {"scheduling", "running"}
    ended = await neon.operations.wait(project, made.operations)
    assert [(each.id, each.status) for each in ended] == [(each.id, "finished") for each in made.operations]
    assert await neon.operations.wait(project, [each.id for each in made.operations]) == ended
    assert (await neon.branches.get(project, made.branch.id)).current_state == "ready"


async def test_a_wait_that_was_too_short_is_gone_on_with(neon: Any, project: str) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await neon.branches.create(project, name="slow", endpoints=[{"type": "read_write"}], wait=0.01)
    seen = caught.value.operations
    assert [each.action for each in seen] == ["create_branch", "start_compute"]
    assert "start_compute" in str(caught.value)
    ended = await neon.operations.wait(project, seen)
    assert {each.status for each in ended} == {"finished"}


async def test_a_start_that_fails_says_why(lamp: Lamp, project: str, record: Record) -> None:
    """Its log cannot be written while it sleeps. Until that is given up, all else is refused; then it starts again."""
    async with client("async", record=record, api_key=lamp.key, base_url=lamp.url) as neon:
        (endpoint,) = await neon.endpoints.list(project).all()
        await neon.endpoints.suspend(project, endpoint.id, wait=True)
        log = lamp.data_dir / "logs" / f"{endpoint.id}.log"
        kept = log.with_suffix(".kept")
        log.rename(kept)
        log.mkdir()
        begun = await neon.endpoints.start(project, endpoint.id)
        with pytest.raises(Locked) as refused:
            await neon.with_options(retries=0).branches.create(project, name="next")
        with pytest.raises(OperationFailed, match=f"start_compute of endpoint {endpoint.id} failed: .*") as found:
            await neon.operations.wait(project, begun.operations)
        log.rmdir()
        kept.rename(log)
        assert (refused.value.status, refused.value.retryable, refused.value.attempts) == (423, True, 1)
        assert record.statuses("createProjectBranch") == [423]
        failed = found.value.operation
        assert (failed.status, failed.project_id, failed.endpoint_id) == ("failed", project, endpoint.id)
        assert found.value.error
        assert found.value.hint
        assert await neon.operations.get(project, failed.id) == failed
        started = await neon.endpoints.start(project, endpoint.id, wait=True)
        assert [each.status for each in started.operations] == ["finished"]
        assert await neon.branches.count(project) == 1


async def test_a_change_that_postgres_refuses_says_why(neon: Any, project: str) -> None:
    """A database of that name was made by SQL."""
    uri = await neon.connection_string(project)
    sql(uri, "create database foo")
    main = (await neon.branches.list(project).all())[0].id
    with pytest.raises(OperationFailed, match="foo"):
        await neon.databases.update(project, main, "neondb", name="foo", wait=True)
    assert [each.name for each in await neon.databases.list(project, main).all()] == ["neondb"]


# At the same time


async def test_eight_at_once_get_one_branch(neon: Any, project: str, record: Record) -> None:
    def get() -> Any:
        return neon.branches.get_or_create(project, name="preview", endpoints=[{"type": "read_write"}], wait=True)

    found = await together(*[get] * 8)
    assert len(ids(each.branch for each in found)) == 1
    assert [each.created for each in found].count(True) == 1
    assert all((each.reply is not None) == each.created for each in found)
    assert {each.branch.current_state for each in found if not each.created} == {"ready"}
    assert [each.name for each in await neon.branches.list(project, search="preview").all()] == ["preview"]
    assert record.statuses("createProjectBranch").count(201) == 1
    uri = await neon.connection_string(project, branch=found[0].branch.id)
    assert sql(uri, "select 1") == [(1,)]


async def test_eight_at_once_get_one_project(neon: Any, kind: Kind) -> None:
    name = f"one for all {kind}"
    found = await together(*[lambda: neon.projects.get_or_create(name=name, wait=True)] * 8)
    left = await neon.projects.list(search=name).all()
    assert len(left) == 1
    assert ids(each.project for each in found) == ids(left)
    assert [each.created for each in found].count(True) == 1


async def test_changes_that_collide_are_asked_for_again(neon: Any, project: str, record: Record) -> None:
    """The server refuses a change while another one of the project is under way: here the one before."""
    for number in range(4):
        await neon.branches.create(project, name=f"b{number}", endpoints=[{"type": "read_write"}])
    statuses = record.statuses("createProjectBranch")
    assert set(statuses) == {201, 423}
    assert statuses.count(201) == 4
    assert await neon.branches.count(project) == 5


# Lists


async def test_lists_are_read_page_by_page(neon: Any, project: str, record: Record) -> None:
    for number in range(4):
        await neon.branches.create(project, name=f"b{number}", wait=True)
    every = await neon.branches.list(project).all()
    assert {each.name for each in every} == {"main", "b0", "b1", "b2", "b3"}
    record.exchanges.clear()

    assert [each async for each in neon.branches.list(project, limit=2)] == every
    asked = record.of("listProjectBranches")
    assert [each.query["limit"] for each in asked] == ["2"] * len(asked)
    assert "cursor" not in asked[0].query
    assert len({each.query["cursor"] for each in asked[1:]}) == len(asked) - 1 >= 2

    first = await neon.branches.list(project, limit=2).page()
    assert [each.id for each in first.items] == [each.id for each in every[:2]]
    rest = await neon.branches.list(project, limit=2, cursor=first.next).all()
    assert [each.id for each in rest] == [each.id for each in every[2:]]
    pages = [len(page.items) async for page in neon.branches.list(project, limit=2).pages()]
    assert pages == [2, 2, 1]


async def test_operations_and_projects_have_pages_too(neon: Any, project: str) -> None:
    await neon.branches.create(project, endpoints=[{"type": "read_write"}], wait=True)
    every = await neon.operations.list(project).all()
    assert len(every) == 4
    assert await neon.operations.list(project, limit=2).all() == every
    others = {(await neon.projects.create(name=f"listed {number}")).project.id for number in range(2)}
    listed = [each.id async for each in neon.projects.list(limit=2)]
    assert {project, *others} <= set(listed)
    assert len(listed) == len(set(listed))


# Answers, options


async def test_raw_responses(neon: Any, project: str, record: Record) -> None:
    raw = await neon.projects.with_raw_response.get(project)
    assert (raw.status, raw.headers["Content-Type"]) == (200, "application/json")
    assert uuid.UUID(raw.request_id).version == 4
    assert json.loads(raw.content)["project"]["id"] == project
    assert raw.parse() == await neon.projects.get(project)
    listed = await neon.branches.with_raw_response.list(project, limit=1)
    assert [each.name for each in listed.parse().items] == ["main"]
    changed = await neon.branches.with_raw_response.create(project, name="raw", wait=True)
    assert changed.status == 201
    assert [each.status for each in changed.parse().operations] == ["finished"]
    gone = await neon.branches.with_raw_response.delete(project, changed.parse().branch.id, wait=True)
    again = await neon.branches.with_raw_response.delete(project, changed.parse().branch.id)
    assert (gone.status, again.status, again.content, again.parse()) == (200, 204, b"", None)
    record.exchanges.clear()
    free = await neon.request("GET", f"/projects/{project}/branches", query={"limit": 1})
    assert (free.status, len(free.parse()["branches"])) == (200, 1)
    assert record.answered == {("listProjectBranches", 200)}


async def test_options_are_for_one_view_of_the_client(neon: Any, project: str) -> None:
    hurried = neon.with_options(deadline=0.000001)
    with pytest.raises(DeadlineExceeded):
        await hurried.projects.get(project)
    assert (await neon.projects.get(project)).id == project
    patient = hurried.with_options(deadline=float("inf"), timeout=30, retries=1)
    assert (await patient.projects.get(project)).id == project


# Keys


async def test_a_key_that_was_revoked_is_refused_at_once(neon: Any, lamp: Lamp, kind: Kind, project: str) -> None:
    """And is in no error."""
    made = await neon.api_keys.create(name="for a moment")
    seen = Record()
    async with client(kind, record=seen, api_key=made.key, base_url=lamp.url) as other:
        assert (await other.projects.get(project)).id == project
        await neon.api_keys.revoke(made.id)
        seen.exchanges.clear()
        with pytest.raises(AuthenticationError, match="do not pass authentication") as caught:
            await other.branches.create(project, name="no")
        assert caught.value.hint
        assert made.key not in f"{caught.value!r} {caught.value}"
    assert seen.statuses("createProjectBranch") == [401]


async def test_a_key_of_one_project(neon: Any, lamp: Lamp, kind: Kind, project: str) -> None:
    """It does all in its project, and sees nothing of another one."""
    org_id = (await neon.projects.get(project)).org_id
    other = (await neon.projects.create(name="another", wait=True)).project.id
    key = await neon.organizations.create_api_key(org_id, name="scoped", project_id=project)
    async with client(kind, api_key=key.key, base_url=lamp.url) as scoped:
        assert (await scoped.projects.get(project)).id == project
        made = await scoped.branches.create(project, name="mine", endpoints=[{"type": "read_write"}], wait=True)
        assert sql(await scoped.connection_string(project, branch=made.branch.id), "select 1") == [(1,)]
        assert not (await scoped.branches.get_or_create(project, name="mine")).created
        with pytest.raises(NotFound, match="project not found"):
            await scoped.projects.get(other)
        with pytest.raises(NotFound, match="project not found"):
            await scoped.branches.create(other, name="theirs")
        with pytest.raises(PermissionDenied, match="not allowed to create projects"):
            await scoped.projects.create(name="new")
        outside = "outside the project this key is scoped to"
        for call in (
            lambda: scoped.projects.list().all(),
            lambda: scoped.projects.get_or_create(name="new"),
            lambda: scoped.projects.delete(project),
            scoped.users.me,
            lambda: scoped.api_keys.create(name="more"),
            lambda: scoped.organizations.create_api_key(org_id, name="more"),
        ):
            with pytest.raises(NotFound, match=outside):
                await call()


# Postgres


async def rows(neon: Any, project_id: str, statement: str, **where: Any) -> list[Any]:
    """What a statement gives through `neon.connect`."""
    connection = await neon.connect(project_id, autocommit=True, **where)
    try:
        cursor = await now(connection.execute(statement))
        return list(await now(cursor.fetchall())) if cursor.description else []
    finally:
        await now(connection.close())


async def now(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def test_a_branch_is_a_world_of_its_own(neon: Any, project: str) -> None:
    """What was there when it was made is there; what is done to one afterwards is not seen in the other."""
    await rows(neon, project, "create table t as select n from generate_series(1, 3) n")
    # Not waited for: connect does that.
    made = await neon.branches.create(project, name="dev", endpoints=[{"type": "read_write"}])
    dev = made.branch.id
    assert await rows(neon, project, "select count(*) from t", branch=dev) == [(3,)]
    await rows(neon, project, "drop table t", branch=dev)
    await rows(neon, project, "insert into t values (4)")
    assert await rows(neon, project, "select to_regclass('t')::text", branch=dev) == [(None,)]
    assert await rows(neon, project, "select count(*) from t") == [(4,)]
    await neon.branches.delete(project, dev, wait=True)
    assert await rows(neon, project, "select count(*) from t") == [(4,)]


# Neon's limits


@pytest.fixture(scope="module")
def strict() -> Iterator[Lamp]:
    """A platform that limits requests as Neon does."""
    with temporary_lamp(options=("--rate-limits", "neon")) as platform:
        yield platform


#: Without retries: the first 429 ends it.
PACED = """
import sys
from lamplighter import Neon
with Neon(api_key=sys.argv[1], base_url=sys.argv[2], pacing="machine", retries=0) as neon:
    print(sum(neon.organizations.get(sys.argv[3]).id == sys.argv[3] for _ in range(60)))
"""


def test_processes_of_one_machine_pace_together(strict: Lamp, tmp_path: Path) -> None:
    """Each of them alone would stay within the limits, and both together would not: 40 requests a second of a kind."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    org_id = strict.call("GET", "/users/me/organizations")["organizations"][0]["id"]
    command = [sys.executable, "-c", PACED, strict.key, strict.url, org_id]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["60\n"] * 2


async def until_refused(neon: Any) -> None:
    """Ask for the same again and again, by many at once."""
    for _ in range(200):
        await together(*[lambda: neon.regions.list().page()] * 20)


async def test_a_limit_that_was_hit_is_waited_out(strict: Lamp, kind: Kind, record: Record) -> None:
    """The limits are real: unpaced, a burst is refused. Then it is the server's Retry-After that is waited for."""
    options = {"record": record, "api_key": strict.key, "base_url": strict.url, "pacing": "off"}
    async with client(kind, **options) as unpaced:
        with pytest.raises(RateLimited) as caught:
            await until_refused(unpaced.with_options(retries=0))
        assert (caught.value.status, caught.value.retry_after) == (429, 1)
        record.exchanges.clear()
        pages = await together(*[lambda: unpaced.regions.list().page()] * 60)
    assert all(page.items for page in pages)
    assert record.statuses("getActiveRegions").count(200) == 60
    assert 429 in record.statuses("getActiveRegions")


async def test_a_paced_client_meets_no_limit(strict: Lamp, kind: Kind, record: Record) -> None:
    async with client(kind, record=record, api_key=strict.key, base_url=strict.url) as paced:
        # Nobody has asked for these before: a client can only count what it sends itself.
        ask = paced.users.me if kind == "sync" else paced.users.auth_details
        await together(*[ask] * 45)
    assert [each.status for each in record.exchanges] == [200] * 45
