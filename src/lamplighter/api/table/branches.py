"""Branches, and the databases and roles on them."""

from typing import Literal

from lamplighter.api.models.anonymization import (
    AnonymizedBranchStatusResponse,
    BranchAnonymizedCreateRequest,
    MaskingRulesResponse,
    MaskingRulesUpdateRequest,
)
from lamplighter.api.models.base import Id, Timestamp
from lamplighter.api.models.branch_schema import BranchSchemaCompareResponse, BranchSchemaResponse
from lamplighter.api.models.branches import (
    AnnotatedBranchCreateRequest,
    BranchCreated,
    BranchesCountResponse,
    BranchesPage,
    BranchOperations,
    BranchRecoverResponse,
    BranchRestoreRequest,
    BranchUpdateRequest,
    BranchWithAnnotation,
    FinalizeRestoreRequest,
)
from lamplighter.api.models.databases import (
    DatabaseCreateRequest,
    DatabaseOperations,
    DatabaseResponse,
    DatabasesResponse,
    DatabaseUpdateRequest,
)
from lamplighter.api.models.endpoints import EndpointsResponse
from lamplighter.api.models.operations import OperationsResponse
from lamplighter.api.models.roles import (
    RoleCreateRequest,
    RoleOperations,
    RolePasswordResponse,
    RoleResponse,
    RolesResponse,
)
from lamplighter.api.table.entry import BRANCH, CURSOR, PROJECT, Operation, Rows, limit, query

branches = Rows("Branch")

OPERATIONS: tuple[Operation, ...] = (
    branches.post(
        "createProjectBranchAnonymized",
        PROJECT + "/branch_anonymized",
        body=BranchAnonymizedCreateRequest,
        body_required=True,
        reply=BranchCreated,
        status=201,
    ),
    branches.get(
        "listProjectBranches",
        PROJECT + "/branches",
        query("search", str),
        query("sort_by", Literal["name", "created_at", "updated_at"], default="updated_at"),
        CURSOR,
        query("sort_order", Literal["asc", "desc"], default="desc"),
        limit(10000),
        query("include_deleted", bool, default=False),
        reply=BranchesPage,
        served=True,
    ),
    branches.post(
        "createProjectBranch",
        PROJECT + "/branches",
        body=AnnotatedBranchCreateRequest,
        reply=BranchCreated,
        status=201,
        served=True,
    ),
    branches.get(
        "countProjectBranches",
        PROJECT + "/branches/count",
        query("search", str),
        reply=BranchesCountResponse,
        served=True,
    ),
    branches.delete(
        "deleteProjectBranch",
        BRANCH,
        query("hard_delete", bool, default=False),
        reply=BranchOperations,
        statuses=(200, 204),
        served=True,
    ),
    branches.get("getProjectBranch", BRANCH, reply=BranchWithAnnotation, served=True),
    branches.patch(
        "updateProjectBranch", BRANCH, body=BranchUpdateRequest, body_required=True, reply=BranchOperations, served=True
    ),
    branches.post("startAnonymization", BRANCH + "/anonymize", reply=AnonymizedBranchStatusResponse),
    branches.get("getAnonymizedBranchStatus", BRANCH + "/anonymized_status", reply=AnonymizedBranchStatusResponse),
    branches.get(
        "getProjectBranchSchemaComparison",
        BRANCH + "/compare_schema",
        query("base_branch_id", Id),
        query("db_name", str, required=True),
        query("lsn", str),
        query("timestamp", Timestamp),
        query("base_lsn", str),
        query("base_timestamp", Timestamp),
        reply=BranchSchemaCompareResponse,
    ),
    branches.get("listProjectBranchDatabases", BRANCH + "/databases", reply=DatabasesResponse, served=True),
    branches.post(
        "createProjectBranchDatabase",
        BRANCH + "/databases",
        body=DatabaseCreateRequest,
        body_required=True,
        reply=DatabaseOperations,
        status=201,
        served=True,
    ),
    branches.delete(
        "deleteProjectBranchDatabase",
        BRANCH + "/databases/{database_name}",
        reply=DatabaseOperations,
        statuses=(200, 204),
        served=True,
    ),
    branches.get(
        "getProjectBranchDatabase", BRANCH + "/databases/{database_name}", reply=DatabaseResponse, served=True
    ),
    branches.patch(
        "updateProjectBranchDatabase",
        BRANCH + "/databases/{database_name}",
        body=DatabaseUpdateRequest,
        body_required=True,
        reply=DatabaseOperations,
        served=True,
    ),
    branches.get("listProjectBranchEndpoints", BRANCH + "/endpoints", reply=EndpointsResponse, served=True),
    branches.post(
        "finalizeRestoreBranch", BRANCH + "/finalize_restore", body=FinalizeRestoreRequest, reply=OperationsResponse
    ),
    branches.get("getMaskingRules", BRANCH + "/masking_rules", reply=MaskingRulesResponse),
    branches.patch(
        "updateMaskingRules",
        BRANCH + "/masking_rules",
        body=MaskingRulesUpdateRequest,
        body_required=True,
        reply=MaskingRulesResponse,
    ),
    branches.post("recoverProjectBranch", BRANCH + "/recover", reply=BranchRecoverResponse),
    branches.post(
        "restoreProjectBranch",
        BRANCH + "/restore",
        body=BranchRestoreRequest,
        body_required=True,
        reply=BranchOperations,
    ),
    branches.get("listProjectBranchRoles", BRANCH + "/roles", reply=RolesResponse, served=True),
    branches.post(
        "createProjectBranchRole",
        BRANCH + "/roles",
        body=RoleCreateRequest,
        body_required=True,
        reply=RoleOperations,
        status=201,
        served=True,
    ),
    branches.delete(
        "deleteProjectBranchRole", BRANCH + "/roles/{role_name}", reply=RoleOperations, statuses=(200, 204), served=True
    ),
    branches.get("getProjectBranchRole", BRANCH + "/roles/{role_name}", reply=RoleResponse, served=True),
    branches.post(
        "resetProjectBranchRolePassword",
        BRANCH + "/roles/{role_name}/reset_password",
        reply=RoleOperations,
        served=True,
    ),
    branches.get(
        "getProjectBranchRolePassword",
        BRANCH + "/roles/{role_name}/reveal_password",
        reply=RolePasswordResponse,
        served=True,
    ),
    branches.get(
        "getProjectBranchSchema",
        BRANCH + "/schema",
        query("db_name", str, required=True),
        query("lsn", str),
        query("timestamp", Timestamp),
        query("format", str),
        reply=BranchSchemaResponse,
    ),
    branches.post("setDefaultProjectBranch", BRANCH + "/set_as_default", reply=BranchOperations, served=True),
)
