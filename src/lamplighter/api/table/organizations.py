"""Organizations, their members, keys and private network endpoints."""

from typing import Literal

from lamplighter.api.models.api_keys import (
    OrgApiKeyCreateRequest,
    OrgApiKeyCreateResponse,
    OrgApiKeyRevokeResponse,
    OrgApiKeysListResponseItem,
)
from lamplighter.api.models.billing import SpendingLimitResponse, SpendingLimitUpdateRequest
from lamplighter.api.models.common import EmptyResponse
from lamplighter.api.models.organizations import (
    LimitsUnsatisfiedResponse,
    Member,
    Organization,
    OrganizationInvitationsResponse,
    OrganizationInvitesCreateRequest,
    OrganizationMembersPage,
    OrganizationMemberUpdateRequest,
    ProjectsWithIntegrationResponse,
    TransferProjectsToOrganizationRequest,
)
from lamplighter.api.models.vpc import (
    VPCEndpointAssignment,
    VPCEndpointDetails,
    VPCEndpointsResponse,
    VPCEndpointsWithRegionResponse,
)
from lamplighter.api.table.entry import CURSOR, ORGANIZATION, PERSONAL, UNSCOPED, Operation, Rows, limit, query

organizations = Rows("Organizations")

OPERATIONS: tuple[Operation, ...] = (
    organizations.get("getOrganization", ORGANIZATION, reply=Organization, callers=UNSCOPED, served=True),
    organizations.get(
        "listOrgApiKeys",
        ORGANIZATION + "/api_keys",
        reply=list[OrgApiKeysListResponseItem],
        callers=UNSCOPED,
        served=True,
    ),
    organizations.post(
        "createOrgApiKey",
        ORGANIZATION + "/api_keys",
        body=OrgApiKeyCreateRequest,
        body_required=True,
        reply=OrgApiKeyCreateResponse,
        callers=PERSONAL,
        served=True,
    ),
    organizations.delete(
        "revokeOrgApiKey",
        ORGANIZATION + "/api_keys/{key_id}",
        reply=OrgApiKeyRevokeResponse,
        callers=UNSCOPED,
        served=True,
    ),
    organizations.delete(
        "deleteOrganizationSpendingLimit",
        ORGANIZATION + "/billing/spending_limit",
        reply=EmptyResponse,
        callers=UNSCOPED,
    ),
    organizations.get(
        "getOrganizationSpendingLimit",
        ORGANIZATION + "/billing/spending_limit",
        reply=SpendingLimitResponse,
        callers=UNSCOPED,
    ),
    organizations.put(
        "setOrganizationSpendingLimit",
        ORGANIZATION + "/billing/spending_limit",
        body=SpendingLimitUpdateRequest,
        body_required=True,
        reply=SpendingLimitResponse,
        callers=UNSCOPED,
    ),
    organizations.get(
        "getOrganizationInvitations",
        ORGANIZATION + "/invitations",
        reply=OrganizationInvitationsResponse,
        callers=UNSCOPED,
    ),
    organizations.post(
        "createOrganizationInvitations",
        ORGANIZATION + "/invitations",
        body=OrganizationInvitesCreateRequest,
        body_required=True,
        reply=OrganizationInvitationsResponse,
        callers=PERSONAL,
    ),
    organizations.get(
        "getOrganizationMembers",
        ORGANIZATION + "/members",
        query("sort_by", Literal["email", "role", "joined_at"], default="joined_at"),
        CURSOR,
        query("sort_order", Literal["asc", "desc"], default="desc"),
        limit(500),
        reply=OrganizationMembersPage,
        callers=UNSCOPED,
        served=True,
    ),
    organizations.delete(
        "removeOrganizationMember", ORGANIZATION + "/members/{member_id}", reply=EmptyResponse, callers=PERSONAL
    ),
    organizations.get("getOrganizationMember", ORGANIZATION + "/members/{member_id}", reply=Member, callers=UNSCOPED),
    organizations.patch(
        "updateOrganizationMember",
        ORGANIZATION + "/members/{member_id}",
        body=OrganizationMemberUpdateRequest,
        body_required=True,
        reply=Member,
        callers=UNSCOPED,
    ),
    organizations.get(
        "listOrganizationVPCEndpoints",
        ORGANIZATION + "/vpc/region/{region_id}/vpc_endpoints",
        reply=VPCEndpointsResponse,
        callers=UNSCOPED,
    ),
    organizations.delete(
        "deleteOrganizationVPCEndpoint",
        ORGANIZATION + "/vpc/region/{region_id}/vpc_endpoints/{vpc_endpoint_id}",
        callers=UNSCOPED,
    ),
    organizations.get(
        "getOrganizationVPCEndpointDetails",
        ORGANIZATION + "/vpc/region/{region_id}/vpc_endpoints/{vpc_endpoint_id}",
        reply=VPCEndpointDetails,
        callers=UNSCOPED,
    ),
    organizations.post(
        "assignOrganizationVPCEndpoint",
        ORGANIZATION + "/vpc/region/{region_id}/vpc_endpoints/{vpc_endpoint_id}",
        body=VPCEndpointAssignment,
        body_required=True,
        callers=UNSCOPED,
    ),
    organizations.get(
        "listOrganizationVPCEndpointsAllRegions",
        ORGANIZATION + "/vpc/vpc_endpoints",
        reply=VPCEndpointsWithRegionResponse,
        callers=UNSCOPED,
    ),
    organizations.post(
        "transferProjectsFromOrgToOrg",
        "/organizations/{source_org_id}/projects/transfer",
        body=TransferProjectsToOrganizationRequest,
        body_required=True,
        reply=EmptyResponse,
        callers=PERSONAL,
        refusals={406: LimitsUnsatisfiedResponse, 422: ProjectsWithIntegrationResponse},
    ),
)
