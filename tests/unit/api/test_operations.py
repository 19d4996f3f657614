import re
from collections import Counter

import pytest
from pydantic import TypeAdapter, ValidationError

from lamplighter.api.models.base import Model
from lamplighter.api.operations import EVERY_KEY, OPERATIONS

SERVED = """
    listApiKeys createApiKey revokeApiKey getAuthDetails getCurrentUserInfo getCurrentUserOrganizations getActiveRegions
    getOrganization getOrganizationMembers listOrgApiKeys createOrgApiKey revokeOrgApiKey
    listProjects createProject getProject updateProject deleteProject listSharedProjects getConnectionURI
    listProjectBranches countProjectBranches createProjectBranch getProjectBranch updateProjectBranch
    deleteProjectBranch setDefaultProjectBranch listProjectBranchEndpoints
    listProjectBranchDatabases createProjectBranchDatabase getProjectBranchDatabase updateProjectBranchDatabase
    deleteProjectBranchDatabase
    listProjectBranchRoles createProjectBranchRole getProjectBranchRole deleteProjectBranchRole
    getProjectBranchRolePassword resetProjectBranchRolePassword
    listProjectEndpoints createProjectEndpoint getProjectEndpoint updateProjectEndpoint deleteProjectEndpoint
    startProjectEndpoint suspendProjectEndpoint restartProjectEndpoint
    listProjectOperations getProjectOperation
"""

every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.id)


def reading(operation_id, name):
    kind = next(p.type for p in OPERATIONS[operation_id].parameters if p.name == name)
    return lambda text: TypeAdapter(kind).validate_strings(text, strict=True)


def test_the_whole_contract_is_there():
    assert len(OPERATIONS) == 163
    assert sum(operation.deprecated for operation in OPERATIONS.values()) == 15
    assert {operation.id for operation in OPERATIONS.values() if operation.served} == set(SERVED.split())


def test_no_two_operations_share_a_route():
    """Two paths that differ in parameter names only are one route."""
    routes = Counter((o.method, re.sub(r"\{\w+\}", "{}", o.path)) for o in OPERATIONS.values())
    assert not [route for route, count in routes.items() if count > 1]


@every_operation
def test_a_row_is_whole(operation):
    assert OPERATIONS[operation.id] is operation
    in_path = [p.name for p in operation.parameters if p.where == "path"]
    assert in_path == re.findall(r"\{(\w+)\}", operation.path)
    assert len(in_path) == len(set(in_path))
    in_query = [p.name for p in operation.parameters if p.where == "query"]
    assert len(in_query) == len(set(in_query))
    assert all(p.required for p in operation.parameters if p.where == "path")
    assert all(p.default is None for p in operation.parameters if p.required)
    assert operation.safe == (operation.method == "GET")
    assert operation.statuses[0] == operation.status
    assert all(200 <= status < 300 for status in operation.statuses)
    assert operation.callers
    assert operation.callers <= EVERY_KEY
    assert not (operation.safe and operation.body is not None)
    assert not (operation.body_required and operation.body is None)
    assert (operation.reply is None) or operation.status != 204


@every_operation
def test_the_types_of_a_row_can_be_read_and_defaults_are_in_their_limits(operation):
    for parameter in operation.parameters:
        adapter = TypeAdapter(parameter.type)
        if parameter.default is not None:
            assert adapter.validate_python(parameter.default, strict=True) == parameter.default
    for kind in (operation.body, operation.reply, *operation.refusals.values()):
        if kind is not None:
            assert TypeAdapter(kind).json_schema()


@every_operation
def test_bodies_and_replies_are_wire_models(operation):
    def models_in(kind):
        args = getattr(kind, "__args__", ())
        return [kind] if not args else [found for arg in args for found in models_in(arg)]

    for kind in (operation.body, operation.reply):
        assert kind is None or all(issubclass(found, Model) for found in models_in(kind))


@pytest.mark.parametrize("text", ["true", "True", "1"])
def test_a_query_boolean_is_true_in_every_spelling_that_clients_use(text):
    assert reading("getConnectionURI", "pooled")(text) is True


@pytest.mark.parametrize(
    ("operation_id", "name", "text"),
    [
        ("listProjects", "limit", "0"),
        ("listProjects", "limit", "401"),
        ("listProjects", "limit", "ten"),
        ("listProjects", "limit", ""),
        ("listProjects", "org_id", "Not An Id"),
        ("listProjectBranches", "limit", "10001"),
        ("listProjectBranches", "sort_by", "size"),
        ("listProjectBranches", "sort_order", "sideways"),
        ("listProjectOperations", "limit", "1001"),
        ("getConnectionURI", "pooled", "perhaps"),
        ("getProject", "project_id", "UPPER"),
        ("getProject", "project_id", "a" * 61),
        ("getProjectOperation", "operation_id", "not-a-uuid"),
        ("revokeApiKey", "key_id", "key"),
        ("revokeApiKey", "key_id", str(2**63)),
    ],
)
def test_parameters_out_of_their_limits_are_refused(operation_id, name, text):
    with pytest.raises(ValidationError):
        reading(operation_id, name)(text)


def test_page_sizes_are_neons():
    limits = {
        operation.id: (parameter.default, TypeAdapter(parameter.type).json_schema()["maximum"])
        for operation in OPERATIONS.values()
        for parameter in operation.parameters
        if parameter.name == "limit" and operation.served
    }
    assert limits == {
        "listProjects": (10, 400),
        "listSharedProjects": (10, 400),
        "listProjectBranches": (None, 10000),
        "listProjectOperations": (None, 1000),
        "getOrganizationMembers": (None, 500),
    }


@pytest.mark.parametrize(
    ("operation_id", "kinds"),
    [
        ("getCurrentUserInfo", {"personal"}),
        ("getActiveRegions", {"personal"}),
        ("listApiKeys", {"personal"}),
        ("createOrgApiKey", {"personal"}),
        ("removeOrganizationMember", {"personal"}),
        ("createOrganizationInvitations", {"personal"}),
        ("listOrgApiKeys", {"personal", "organization"}),
        ("revokeOrgApiKey", {"personal", "organization"}),
        ("getOrganization", {"personal", "organization"}),
        ("getOrganizationMembers", {"personal", "organization"}),
        ("updateOrganizationMember", {"personal", "organization"}),
        ("getCurrentUserOrganizations", {"personal", "organization"}),
        ("listProjects", {"personal", "organization"}),
        ("createProject", {"personal", "organization"}),
        ("deleteProject", {"personal", "organization"}),
        ("getAuthDetails", EVERY_KEY),
        ("updateProject", EVERY_KEY),
        ("createProjectBranch", EVERY_KEY),
        ("getProjectBranchRolePassword", EVERY_KEY),
    ],
)
def test_who_may_call(operation_id, kinds):
    assert OPERATIONS[operation_id].callers == kinds


def test_a_key_for_one_project_reaches_only_below_projects():
    reach = {o.path for o in OPERATIONS.values() if "project" in o.callers}
    assert all(path == "/auth" or path.startswith(("/projects/{project_id}", "/projects/auth/")) for path in reach)
