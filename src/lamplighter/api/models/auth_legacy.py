"""The first form of Neon Auth, by project. Kept for clients that still use it."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.auth import NeonAuthIntegration, NeonAuthSupportedAuthProvider
from lamplighter.api.models.base import DEPRECATED, Email, Hidden, Id, Maybe, Model


class NeonAuthCreateIntegrationRequest(Model):
    auth_provider: NeonAuthSupportedAuthProvider
    project_id: Id
    branch_id: Id
    database_name: Maybe[str] = None
    role_name: Annotated[Maybe[str], DEPRECATED] = None


class NeonAuthDeleteIntegrationRequest(Model):
    """Whether Neon Auth's tables go too."""

    delete_data: bool = False


class NeonAuthCreateAuthProviderSDKKeysRequest(Model):
    project_id: Id
    auth_provider: NeonAuthSupportedAuthProvider


class NeonAuthCreateNewUserRequest(Model):
    project_id: Id
    auth_provider: NeonAuthSupportedAuthProvider
    email: Email
    name: Maybe[Annotated[str, Field(min_length=1, max_length=255)]] = None


class NeonAuthTransferAuthProviderProjectRequest(Model):
    project_id: Id
    auth_provider: NeonAuthSupportedAuthProvider


class NeonAuthTransferAuthProviderProjectResponse(Model):
    url: Hidden[str]


class ListNeonAuthIntegrationsResponse(Model):
    data: list[NeonAuthIntegration]
