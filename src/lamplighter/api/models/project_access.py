"""Who may reach a project: grants, transfers, and keys that sign tokens for it."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import DEPRECATED, Email, Given, Id, Int64, Maybe, Model, Timestamp, Uuid
from lamplighter.api.models.operations import OperationsResponse


class ProjectPermission(Model):
    """A grant of a project to somebody by email address."""

    id: str
    granted_to_email: Given[Email]
    granted_at: Timestamp
    revoked_at: Maybe[Timestamp] = None


class ProjectPermissions(Model):
    """Whom a project is shared with."""

    project_permissions: list[ProjectPermission]


class GrantPermissionToProjectRequest(Model):
    """Whom to share a project with."""

    email: Email


class ProjectTransferRequestCreateRequest(Model):
    """How long the offer of a project stands, a day when nothing is said."""

    ttl_seconds: Maybe[Int64] = None


class ProjectTransferRequestResponse(Model):
    """An offer of a project to whoever accepts it."""

    id: Given[Uuid]
    project_id: Given[Id]
    created_at: Timestamp
    expires_at: Timestamp


class ProjectTransferRequestAcceptRequest(Model):
    """The organization that takes the project."""

    org_id: Maybe[Id] = None


class TransferRefusalReason(Model):
    """A reason why a project cannot be taken."""

    message: str
    code: str


class AcceptProjectTransferRequestSatisfiesPlanError(Model):
    """Why a project cannot be taken: what the plan forbids."""

    reasons: list[TransferRefusalReason]


class JWKS(Model):
    """Keys, published at a URL, that sign tokens for a project."""

    id: str
    project_id: Given[Id]
    branch_id: Maybe[Given[Id]] = None
    jwks_url: str
    provider_name: str
    created_at: Timestamp
    updated_at: Timestamp
    jwt_audience: Maybe[str] = None
    role_names: Maybe[list[str]] = None


class JWKSResponse(Model):
    """One set of keys."""

    jwks: JWKS


class JWKSCreationOperation(JWKSResponse, OperationsResponse):
    """A new set of keys, and what adding it started."""


class ProjectJWKSResponse(Model):
    """The sets of keys that a project trusts."""

    jwks: list[JWKS]


class AddProjectJWKSRequest(Model):
    """The set of keys that a project is to trust."""

    jwks_url: str
    provider_name: str
    branch_id: Maybe[Id] = None
    jwt_audience: Maybe[str] = None
    role_names: Annotated[Maybe[Annotated[list[str], Field(max_length=10)]], DEPRECATED] = None
    skip_role_creation: bool = False
