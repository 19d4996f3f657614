"""Keys and users: who is calling, and with what."""

from lamplighter.api.models.api_keys import (
    ApiKeyCreateRequest,
    ApiKeyCreateResponse,
    ApiKeyRevokeResponse,
    ApiKeysListResponseItem,
)
from lamplighter.api.models.base import Id
from lamplighter.api.models.common import EmptyResponse
from lamplighter.api.models.organizations import (
    LimitsUnsatisfiedResponse,
    OrganizationsResponse,
    ProjectsWithIntegrationResponse,
    TransferProjectsToOrganizationRequest,
)
from lamplighter.api.models.regions import ActiveRegionsResponse
from lamplighter.api.models.users import AuthDetailsResponse, CurrentUserInfoResponse
from lamplighter.api.table.entry import PERSONAL, UNSCOPED, Operation, Rows, query

keys = Rows("API Key")
users = Rows("Users")
regions = Rows("Region")

OPERATIONS: tuple[Operation, ...] = (
    keys.get("listApiKeys", "/api_keys", reply=list[ApiKeysListResponseItem], callers=PERSONAL, served=True),
    keys.post(
        "createApiKey",
        "/api_keys",
        body=ApiKeyCreateRequest,
        body_required=True,
        reply=ApiKeyCreateResponse,
        callers=PERSONAL,
        served=True,
    ),
    keys.delete("revokeApiKey", "/api_keys/{key_id}", reply=ApiKeyRevokeResponse, callers=PERSONAL, served=True),
    users.get("getAuthDetails", "/auth", reply=AuthDetailsResponse, served=True),
    users.get("getCurrentUserInfo", "/users/me", reply=CurrentUserInfoResponse, callers=PERSONAL, served=True),
    users.get(
        "getCurrentUserOrganizations",
        "/users/me/organizations",
        reply=OrganizationsResponse,
        callers=UNSCOPED,
        served=True,
    ),
    users.post(
        "transferProjectsFromUserToOrg",
        "/users/me/projects/transfer",
        body=TransferProjectsToOrganizationRequest,
        body_required=True,
        reply=EmptyResponse,
        callers=PERSONAL,
        refusals={406: LimitsUnsatisfiedResponse, 422: ProjectsWithIntegrationResponse},
        deprecated=True,
    ),
    regions.get(
        "getActiveRegions", "/regions", query("org_id", Id), reply=ActiveRegionsResponse, callers=PERSONAL, served=True
    ),
)
