"""Credentials of a branch for storage, functions and the AI gateway."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Given, Hidden, Id, Maybe, Model, OneOf, Timestamp

CredentialScope = Annotated[str, OneOf("storage:read", "storage:write", "ai_gateway:invoke", "functions:invoke")]


class CreateCredentialRequest(Model):
    """A credential to make, and what it may do."""

    name: Maybe[Annotated[str, Field(max_length=256)]] = None
    scopes: Annotated[list[CredentialScope], Field(min_length=1, max_length=16)]
    principal_type: Annotated[str, OneOf("user")]


class CreateCredentialResponse(Model):
    """A new credential. Its secrets are never shown again."""

    token_id: str
    token_id_short: str
    name: Maybe[str] = None
    api_token: Hidden[str]
    s3_secret_access_key: Hidden[str]
    scopes: list[CredentialScope]
    branch_id: Given[Id]
    created_at: Timestamp
    expires_at: Maybe[Timestamp] = None


class CredentialMeta(Model):
    """A credential as lists show it: everything but its secrets."""

    token_id: str
    token_id_short: str
    name: Maybe[str] = None
    scopes: list[CredentialScope]
    branch_id: Maybe[Given[Id]] = None
    principal_type: str
    function_id: Maybe[str] = None
    created_at: Timestamp
    last_used_at: Maybe[Timestamp] = None
    revoked_at: Maybe[Timestamp] = None
    expires_at: Maybe[Timestamp] = None


class ListCredentialsResponse(Model):
    """Credentials of a branch."""

    credentials: list[CredentialMeta]
