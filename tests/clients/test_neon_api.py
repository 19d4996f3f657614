"""PyPI `neon-api` 0.3.0, unmodified: every method that the contract serves answers its parsed model.

It parses into closed models: a field that is missing or an enum value that it does not know raises, so an answer that
comes through is one that such a client can read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from neon_api import NeonAPI, exceptions, schema

from support.lamp import Lamp, sql
from support.tidy import only_for_now


@pytest.fixture(autouse=True)
def tidy(lamp: Lamp) -> Iterator[None]:
    with only_for_now(lamp):
        yield


@pytest.fixture
def api(lamp: Lamp) -> Iterator[NeonAPI]:
    client = NeonAPI(lamp.key, base_url=f"{lamp.url}/")
    yield client
    client._session.close()  # it has no way of its own, and an open socket is a warning


@pytest.fixture
def made(lamp: Lamp) -> Any:
    """The answer to the creation of a new project, which is ready."""
    return lamp.project()


@pytest.fixture
def project(made: Any) -> str:
    return str(made["project"]["id"])


@pytest.fixture
def branch(made: Any) -> str:
    return str(made["branch"]["id"])


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    """What the client says of an answer that is an error."""
    with pytest.raises(exceptions.NeonAPIError) as caught:
        call(*arguments, **named)
    return str(caught.value)


def test_me(api: NeonAPI):
    me = api.me()
    assert isinstance(me, schema.CurrentUserInfoResponse)
    assert isinstance(me.billing_account, schema.BillingAccount)
    assert me.plan == "scale"


def test_api_keys(api: NeonAPI, lamp: Lamp):
    made = api.api_key_create(key_name="from neon-api")
    assert isinstance(made, schema.ApiKeyCreateResponse)
    listed = {one.id: one for one in api.api_keys()}
    assert isinstance(listed[made.id], schema.ApiKeysListResponseItem)
    assert listed[made.id].name == "from neon-api"
    revoked = api.api_key_revoke(made.id)
    assert isinstance(revoked, schema.ApiKeyRevokeResponse)
    assert revoked.revoked is True
    assert lamp.request("GET", "/users/me", key=made.key).status_code == 401


def test_projects(api: NeonAPI, lamp: Lamp):
    """Created, found, changed, deleted."""
    created = api.project_create(project={"name": "by neon-api", "pg_version": 17})
    assert isinstance(created, schema.ProjectResponse)
    assert created.project.name == "by neon-api"
    project_id = created.project.id
    lamp.settle(project_id)

    listed = api.projects(limit=400)
    assert isinstance(listed, schema.ProjectsResponse)
    assert project_id in {one.id for one in listed.projects}
    assert isinstance(api.projects(shared=True), schema.ProjectsResponse)

    got = api.project(project_id)
    assert isinstance(got, schema.ProjectResponse)
    assert isinstance(got.project.owner, schema.ProjectOwnerData)
    changed = api.project_update(project_id, project={"name": "renamed"})
    assert isinstance(changed, schema.ProjectResponse)
    assert changed.project.name == "renamed"

    deleted = api.project_delete(project_id)
    assert isinstance(deleted, schema.ProjectResponse)
    assert "project not found" in refused(api.project, project_id)


def test_projects_by_pages(api: NeonAPI, lamp: Lamp):
    """Following the cursor shows every project once and comes to an end."""
    wanted = {lamp.project()["project"]["id"] for _ in range(2)}
    seen: list[str] = []
    cursor: str | None = None
    # The models drop `pagination`, as the client's own users know: the cursor is the id of the last project.
    while page := api.projects(cursor=cursor, limit=1).projects:
        seen += [one.id for one in page]
        cursor = seen[-1]
    assert wanted <= set(seen)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("pooled", [False, True])
def test_connection_uri(api: NeonAPI, project: str, pooled: bool):
    """The client sends Python's `True` and `False` in the query."""
    found = api.connection_uri(project, database_name="neondb", role_name="neondb_owner", pooled=pooled)
    assert isinstance(found, schema.ConnectionURIResponse)
    assert sql(found.uri, "select current_user::text") == [("neondb_owner",)]


def test_branches(api: NeonAPI, lamp: Lamp, project: str):
    created = api.branch_create(project, branch={"name": "dev"}, endpoints=[{"type": "read_write"}])
    assert isinstance(created, schema.BranchOperations)
    assert [one.action.value for one in created.operations] == ["create_branch", "start_compute"]
    branch_id = created.branch.id
    lamp.settle(project)
    listed = api.branches(project)
    assert isinstance(listed, schema.BranchesResponse)
    assert {one.name for one in listed.branches} == {"main", "dev"}
    got = api.branch(project, branch_id)
    assert isinstance(got, schema.BranchResponse)
    assert got.branch.current_state == "ready"
    changed = api.branch_update(project, branch_id, branch={"name": "test"})
    assert isinstance(changed, schema.BranchOperations)
    assert changed.branch.name == "test"
    deleted = api.branch_delete(project, branch_id)
    assert isinstance(deleted, schema.BranchOperations)
    assert [one.action.value for one in deleted.operations] == ["suspend_compute", "delete_timeline"]
    lamp.settle(project)
    assert [one.name for one in api.branches(project).branches] == ["main"]


def test_branches_by_pages(api: NeonAPI, lamp: Lamp, project: str):
    """`limit` is honoured; the client drops `pagination.next`, so its users take the first page or all."""
    lamp.branch(project, "dev", endpoint=False)
    assert len(api.branches(project, limit=1).branches) == 1
    assert len(api.branches(project, limit=10).branches) == 2


def test_databases(api: NeonAPI, lamp: Lamp, project: str, branch: str):
    place = (project, branch)
    created = api.database_create(*place, database={"name": "orders", "owner_name": "neondb_owner"})
    assert isinstance(created, schema.DatabaseResponse)
    lamp.settle(project)
    listed = api.databases(*place)
    assert isinstance(listed, schema.DatabasesResponse)
    assert {one.name for one in listed.databases} == {"neondb", "orders"}
    got = api.database(*place, "orders")
    assert isinstance(got, schema.DatabaseResponse)
    assert got.database.id == created.database.id
    changed = api.database_update(*place, "orders", database={"name": "sales"})
    assert isinstance(changed, schema.DatabaseResponse)
    lamp.settle(project)
    uri = api.connection_uri(project, database_name="sales", role_name="neondb_owner").uri
    assert sql(uri, "select current_database()::text") == [("sales",)]
    deleted = api.database_delete(*place, "sales")
    assert isinstance(deleted, schema.DatabaseResponse)
    assert deleted.database.id == created.database.id


def test_endpoints(api: NeonAPI, lamp: Lamp, project: str):
    branch = lamp.branch(project, "dev", endpoint=False)["branch"]["id"]
    created = api.endpoint_create(project, endpoint={"branch_id": branch, "type": "read_write"})
    assert isinstance(created, schema.EndpointOperations)
    place = (project, created.endpoint.id)
    lamp.settle(project)
    listed = api.endpoints(project)
    assert isinstance(listed, schema.EndpointsResponse)
    assert created.endpoint.id in {one.id for one in listed.endpoints}
    got = api.endpoint(*place)
    assert isinstance(got, schema.EndpointResponse)
    assert got.endpoint.current_state == schema.EndpointState.active

    suspended = api.endpoint_suspend(*place)
    assert isinstance(suspended, schema.EndpointOperations)
    assert [one.action.value for one in suspended.operations] == ["suspend_compute"]
    lamp.settle(project)
    assert api.endpoint(*place).endpoint.current_state == schema.EndpointState.idle
    started = api.endpoint_start(*place)
    assert isinstance(started, schema.EndpointOperations)
    lamp.settle(project)
    assert api.endpoint(*place).endpoint.current_state == schema.EndpointState.active

    changed = api.endpoint_update(*place, endpoint={"autoscaling_limit_max_cu": 0.5})
    assert isinstance(changed, schema.EndpointOperations)
    assert changed.endpoint.autoscaling_limit_max_cu == 0.5
    lamp.settle(project)
    deleted = api.endpoint_delete(*place)
    assert isinstance(deleted, schema.EndpointOperations)
    lamp.settle(project)
    assert created.endpoint.id not in {one.id for one in api.endpoints(project).endpoints}


def test_roles(api: NeonAPI, lamp: Lamp, project: str, branch: str):
    place = (project, branch)
    created = api.role_create(*place, "baker")
    assert isinstance(created, schema.RoleOperations)
    assert created.role.password
    lamp.settle(project)
    listed = api.roles(*place)
    assert isinstance(listed, schema.RolesResponse)
    assert {one.name for one in listed.roles} == {"neondb_owner", "baker"}
    assert all(one.password is None for one in listed.roles)
    got = api.role(*place, "baker")
    assert isinstance(got, schema.RoleResponse)
    reset = api.role_password_reset(*place, "baker")
    assert isinstance(reset, schema.RoleOperations)
    assert reset.role.password not in (None, created.role.password)
    lamp.settle(project)
    uri = api.connection_uri(project, database_name="neondb", role_name="baker").uri
    assert f"baker:{reset.role.password}@" in uri
    assert sql(uri, "select current_user::text") == [("baker",)]
    deleted = api.role_delete(*place, "baker")
    assert isinstance(deleted, schema.RoleOperations)
    assert deleted.role.name == "baker"


def test_operations(api: NeonAPI, project: str):
    """Every action that a project's life brings about is one that the client knows."""
    listed = api.operations(project)
    assert isinstance(listed, schema.OperationsResponse)
    assert [one.action.value for one in listed.operations] == ["start_compute", "create_timeline"]
    got = api.operation(project, listed.operations[0].id)
    assert isinstance(got, schema.OperationResponse)
    assert got.operation.status == schema.OperationStatus.finished
    newest = api.operations(project, limit=1).operations
    assert [one.id for one in newest] == [listed.operations[0].id]
    past_it = api.operations(project, cursor=newest[0].created_at, limit=10).operations
    assert {one.id for one in past_it} <= {one.id for one in listed.operations}


def test_methods_of_routes_that_the_contract_does_not_have(api: NeonAPI, project: str, branch: str):
    """They were dropped from Neon's API, or never were in it: the client shows the answer, which says so."""
    assert "this route does not exist" in refused(api.branch_set_as_primary, project, branch)
    revealed = refused(api.role_password_reveal, project, branch, "neondb_owner")
    assert "this method is not allowed on this route" in revealed
    assert "npg_" not in revealed
    assert "this method is not allowed" in refused(api.project_permissions_revoke, project, email="a@example.com")


def test_methods_that_this_server_does_not_have(api: NeonAPI, project: str):
    assert "listProjectPermissions is not available on this server" in refused(api.project_permissions, project)
    assert "grantPermissionToProject is not available on this server" in refused(
        api.project_permissions_grant, project, email="a@example.com"
    )


def test_errors_come_through(api: NeonAPI, lamp: Lamp, project: str):
    assert 'branch already exists; branch_name:\\"main\\"' in refused(
        api.branch_create, project, branch={"name": "main"}
    )
    assert "endpoint not found" in refused(api.endpoint, project, "ep-no-such-00000000")
    stranger = NeonAPI("napi_wrong", base_url=f"{lamp.url}/")
    try:
        assert "supplied credentials do not pass authentication" in refused(stranger.me)
    finally:
        stranger._session.close()


def test_this_file_calls_every_method_of_the_client():
    """A method that a later version of the client adds is looked at too."""
    here = globals().values()
    called = {name for one in here if hasattr(one, "__code__") for name in one.__code__.co_names}
    public = {name for name in vars(NeonAPI) if not name.startswith("_") and name != "from_environ"}
    assert public <= called
    assert dataclasses.is_dataclass(schema.ProjectResponse)
