"""Neon Auth in its first form, by project."""

from lamplighter.api.models.auth import (
    ListNeonAuthOauthProvidersResponse,
    NeonAuthAddDomainToRedirectURIWhitelistRequest,
    NeonAuthAddOAuthProviderRequest,
    NeonAuthCreateIntegrationResponse,
    NeonAuthCreateNewUserResponse,
    NeonAuthDeleteDomainFromRedirectURIWhitelistRequest,
    NeonAuthEmailServerConfig,
    NeonAuthOauthProvider,
    NeonAuthRedirectURIWhitelistResponse,
    NeonAuthUpdateOAuthProviderRequest,
)
from lamplighter.api.models.auth_legacy import (
    ListNeonAuthIntegrationsResponse,
    NeonAuthCreateAuthProviderSDKKeysRequest,
    NeonAuthCreateIntegrationRequest,
    NeonAuthCreateNewUserRequest,
    NeonAuthDeleteIntegrationRequest,
    NeonAuthTransferAuthProviderProjectRequest,
    NeonAuthTransferAuthProviderProjectResponse,
)
from lamplighter.api.table.entry import PROJECT, Operation, Rows

auth = Rows("Auth (legacy)")

OPERATIONS: tuple[Operation, ...] = (
    auth.post(
        "createNeonAuthIntegration",
        "/projects/auth/create",
        body=NeonAuthCreateIntegrationRequest,
        body_required=True,
        reply=NeonAuthCreateIntegrationResponse,
        status=201,
        deprecated=True,
    ),
    auth.post(
        "createNeonAuthProviderSDKKeys",
        "/projects/auth/keys",
        body=NeonAuthCreateAuthProviderSDKKeysRequest,
        body_required=True,
        reply=NeonAuthCreateIntegrationResponse,
        status=201,
    ),
    auth.post(
        "transferNeonAuthProviderProject",
        "/projects/auth/transfer_ownership",
        body=NeonAuthTransferAuthProviderProjectRequest,
        body_required=True,
        reply=NeonAuthTransferAuthProviderProjectResponse,
    ),
    auth.post(
        "createNeonAuthNewUser",
        "/projects/auth/user",
        body=NeonAuthCreateNewUserRequest,
        body_required=True,
        reply=NeonAuthCreateNewUserResponse,
        status=201,
        deprecated=True,
    ),
    auth.delete(
        "deleteNeonAuthDomainFromRedirectURIWhitelist",
        PROJECT + "/auth/domains",
        body=NeonAuthDeleteDomainFromRedirectURIWhitelistRequest,
        body_required=True,
        deprecated=True,
    ),
    auth.get(
        "listNeonAuthRedirectURIWhitelistDomains",
        PROJECT + "/auth/domains",
        reply=NeonAuthRedirectURIWhitelistResponse,
        deprecated=True,
    ),
    auth.post(
        "addNeonAuthDomainToRedirectURIWhitelist",
        PROJECT + "/auth/domains",
        body=NeonAuthAddDomainToRedirectURIWhitelistRequest,
        body_required=True,
        status=201,
        deprecated=True,
    ),
    auth.get(
        "getNeonAuthEmailServer", PROJECT + "/auth/email_server", reply=NeonAuthEmailServerConfig, deprecated=True
    ),
    auth.patch(
        "updateNeonAuthEmailServer",
        PROJECT + "/auth/email_server",
        body=NeonAuthEmailServerConfig,
        body_required=True,
        reply=NeonAuthEmailServerConfig,
        deprecated=True,
    ),
    auth.delete(
        "deleteNeonAuthIntegration",
        PROJECT + "/auth/integration/{auth_provider}",
        body=NeonAuthDeleteIntegrationRequest,
        deprecated=True,
    ),
    auth.get(
        "listNeonAuthIntegrations",
        PROJECT + "/auth/integrations",
        reply=ListNeonAuthIntegrationsResponse,
        deprecated=True,
    ),
    auth.get(
        "listNeonAuthOauthProviders",
        PROJECT + "/auth/oauth_providers",
        reply=ListNeonAuthOauthProvidersResponse,
        deprecated=True,
    ),
    auth.post(
        "addNeonAuthOauthProvider",
        PROJECT + "/auth/oauth_providers",
        body=NeonAuthAddOAuthProviderRequest,
        body_required=True,
        reply=NeonAuthOauthProvider,
        deprecated=True,
    ),
    auth.delete("deleteNeonAuthOauthProvider", PROJECT + "/auth/oauth_providers/{oauth_provider_id}", deprecated=True),
    auth.patch(
        "updateNeonAuthOauthProvider",
        PROJECT + "/auth/oauth_providers/{oauth_provider_id}",
        body=NeonAuthUpdateOAuthProviderRequest,
        body_required=True,
        reply=NeonAuthOauthProvider,
        deprecated=True,
    ),
    auth.delete("deleteNeonAuthUser", PROJECT + "/auth/users/{auth_user_id}", status=204, deprecated=True),
)
