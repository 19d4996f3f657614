"""API keys of people and organizations. The key itself is in the answer that creates it, and nowhere else."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Given, Hidden, Id, Int64, Maybe, Model, Timestamp, Uuid


class ApiKeyCreateRequest(Model):
    """The name of the key to make."""

    key_name: Annotated[str, Field(max_length=64)]


class ApiKeyCreateResponse(Model):
    """A new key. `key` is never shown again."""

    id: Int64
    key: Hidden[str]
    name: str
    created_at: Timestamp
    created_by: Given[Uuid]


class ApiKeyRevokeResponse(Model):
    """The key that no longer works."""

    id: Int64
    name: str
    created_at: Timestamp
    created_by: Given[Uuid]
    last_used_at: Timestamp | None = None
    last_used_from_addr: str
    revoked: bool


class ApiKeyCreatorData(Model):
    """Who made a key."""

    id: Given[Uuid]
    name: str
    image: str


class ApiKeysListResponseItem(Model):
    """A key as lists show it: everything but the key itself."""

    id: Int64
    name: str
    created_at: Timestamp
    created_by: ApiKeyCreatorData
    last_used_at: Timestamp | None = None
    last_used_from_addr: str


class OrgApiKeyCreateRequest(ApiKeyCreateRequest):
    """The organization's key to make; with `project_id` it reaches that project alone."""

    project_id: Maybe[Id] = None


class OrgApiKeyCreateResponse(ApiKeyCreateResponse):
    """A new key of an organization. `project_id` is there only when the key is scoped to it."""

    project_id: Maybe[Given[Id]] = None


class OrgApiKeyRevokeResponse(ApiKeyRevokeResponse):
    """The organization's key that no longer works."""

    project_id: Maybe[Given[Id]] = None


class OrgApiKeysListResponseItem(ApiKeysListResponseItem):
    """An organization's key as lists show it."""

    project_id: Maybe[Given[Id]] = None
