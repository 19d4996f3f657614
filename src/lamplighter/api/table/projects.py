"""Projects, who may reach them, and the operations that ran on them."""

from typing import Annotated, Literal

from pydantic import Field

from lamplighter.api.models.advisors import AdvisorCategory, AdvisorIssuesResponse
from lamplighter.api.models.base import Id
from lamplighter.api.models.endpoints import ConnectionURIResponse
from lamplighter.api.models.operations import OperationResponse, OperationsPage
from lamplighter.api.models.project_access import (
    JWKS,
    AcceptProjectTransferRequestSatisfiesPlanError,
    AddProjectJWKSRequest,
    GrantPermissionToProjectRequest,
    JWKSCreationOperation,
    ProjectJWKSResponse,
    ProjectPermission,
    ProjectPermissions,
    ProjectTransferRequestAcceptRequest,
    ProjectTransferRequestCreateRequest,
    ProjectTransferRequestResponse,
)
from lamplighter.api.models.projects import (
    ProjectCreated,
    ProjectCreateRequest,
    ProjectRecoverResponse,
    ProjectResponse,
    ProjectsPage,
    ProjectUpdated,
    ProjectUpdateRequest,
    SharedProjectsPage,
)
from lamplighter.api.models.settings import AvailablePreloadLibraries
from lamplighter.api.models.vpc import VPCEndpointAssignment, VPCEndpointsResponse
from lamplighter.api.table.entry import CURSOR, PROJECT, UNSCOPED, Operation, Rows, limit, query

projects = Rows("Project")
operations = Rows("Operation")

OPERATIONS: tuple[Operation, ...] = (
    projects.get(
        "listProjects",
        "/projects",
        CURSOR,
        limit(400, default=10),
        query("search", str),
        query("org_id", Id),
        query("timeout", Annotated[int, Field(ge=100, le=30000)]),
        query("recoverable", bool, default=False),
        reply=ProjectsPage,
        callers=UNSCOPED,
        served=True,
    ),
    projects.post(
        "createProject",
        "/projects",
        body=ProjectCreateRequest,
        body_required=True,
        reply=ProjectCreated,
        status=201,
        callers=UNSCOPED,
        served=True,
    ),
    projects.get(
        "listSharedProjects",
        "/projects/shared",
        CURSOR,
        limit(400, default=10),
        query("search", str),
        query("timeout", Annotated[int, Field(ge=100, le=30000)]),
        reply=SharedProjectsPage,
        callers=UNSCOPED,
        served=True,
    ),
    projects.delete("deleteProject", PROJECT, reply=ProjectResponse, callers=UNSCOPED, served=True),
    projects.get("getProject", PROJECT, reply=ProjectResponse, served=True),
    projects.patch(
        "updateProject", PROJECT, body=ProjectUpdateRequest, body_required=True, reply=ProjectUpdated, served=True
    ),
    projects.get(
        "getProjectAdvisorSecurityIssues",
        PROJECT + "/advisors",
        query("branch_id", Id),
        query("database_name", str),
        query("category", AdvisorCategory),
        query("min_severity", Literal["INFO", "WARN", "ERROR"]),
        reply=AdvisorIssuesResponse,
    ),
    projects.get(
        "getAvailablePreloadLibraries", PROJECT + "/available_preload_libraries", reply=AvailablePreloadLibraries
    ),
    projects.get(
        "getConnectionURI",
        PROJECT + "/connection_uri",
        query("branch_id", Id),
        query("endpoint_id", Id),
        query("database_name", str, required=True),
        query("role_name", str, required=True),
        query("pooled", bool),
        reply=ConnectionURIResponse,
        served=True,
    ),
    projects.get("getProjectJWKS", PROJECT + "/jwks", reply=ProjectJWKSResponse),
    projects.post(
        "addProjectJWKS",
        PROJECT + "/jwks",
        body=AddProjectJWKSRequest,
        body_required=True,
        reply=JWKSCreationOperation,
        status=201,
    ),
    projects.delete("deleteProjectJWKS", PROJECT + "/jwks/{jwks_id}", reply=JWKS),
    projects.get("listProjectPermissions", PROJECT + "/permissions", reply=ProjectPermissions),
    projects.post(
        "grantPermissionToProject",
        PROJECT + "/permissions",
        body=GrantPermissionToProjectRequest,
        body_required=True,
        reply=ProjectPermission,
    ),
    projects.delete("revokePermissionFromProject", PROJECT + "/permissions/{permission_id}", reply=ProjectPermission),
    projects.post("recoverProject", PROJECT + "/recover", reply=ProjectRecoverResponse, callers=UNSCOPED),
    projects.post(
        "createProjectTransferRequest",
        PROJECT + "/transfer_requests",
        body=ProjectTransferRequestCreateRequest,
        reply=ProjectTransferRequestResponse,
        status=201,
        callers=UNSCOPED,
    ),
    projects.put(
        "acceptProjectTransferRequest",
        PROJECT + "/transfer_requests/{request_id}",
        body=ProjectTransferRequestAcceptRequest,
        status=204,
        callers=UNSCOPED,
        refusals={406: AcceptProjectTransferRequestSatisfiesPlanError},
    ),
    projects.get("listProjectVPCEndpoints", PROJECT + "/vpc_endpoints", reply=VPCEndpointsResponse),
    projects.delete("deleteProjectVPCEndpoint", PROJECT + "/vpc_endpoints/{vpc_endpoint_id}"),
    projects.post(
        "assignProjectVPCEndpoint",
        PROJECT + "/vpc_endpoints/{vpc_endpoint_id}",
        body=VPCEndpointAssignment,
        body_required=True,
    ),
    operations.get(
        "listProjectOperations", PROJECT + "/operations", CURSOR, limit(1000), reply=OperationsPage, served=True
    ),
    operations.get("getProjectOperation", PROJECT + "/operations/{operation_id}", reply=OperationResponse, served=True),
)
