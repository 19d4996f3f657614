"""The Data API: REST over a branch's database."""

from typing import Annotated

from lamplighter.api.models.base import Maybe, Model, OneOf, Uri


class DataAPISettings(Model):
    """Settings of the Data API; their names are PostgREST's."""

    db_aggregates_enabled: Maybe[bool] = True
    db_anon_role: Maybe[str] = "anonymous"
    db_extra_search_path: Maybe[str] = None
    db_max_rows: Maybe[int] = None
    db_schemas: Maybe[list[str]] = None
    jwt_role_claim_key: Maybe[str] = ".role"
    jwt_cache_max_lifetime: Maybe[int] = None
    openapi_mode: Maybe[str] = "disabled"
    server_cors_allowed_origins: Maybe[str] = None
    server_timing_enabled: Maybe[bool] = None


class DataAPICreateRequest(Model):
    """How the Data API is to be set up."""

    auth_provider: Maybe[Annotated[str, OneOf("neon_auth", "external")]] = None
    jwks_url: Maybe[Uri] = None
    provider_name: Maybe[str] = None
    jwt_audience: Maybe[str] = None
    add_default_grants: bool = False
    skip_auth_schema: bool = False
    settings: Maybe[DataAPISettings] = None


class DataAPICreateResponse(Model):
    """Where the new Data API answers."""

    url: Uri


class DataAPIResponse(Model):
    """The Data API of a database, with its settings."""

    url: Uri
    status: str
    settings: DataAPISettings | None = None
    available_schemas: list[str] | None = None


class DataAPIUpdateRequest(Model):
    """The settings that the Data API is to have."""

    settings: Maybe[DataAPISettings] = None
