"""An endpoint as the API shows it, and what a request's endpoint settings say."""

from __future__ import annotations

from typing import Any

from lamplighter.api.models import endpoints as wire
from lamplighter.api.models.settings import EndpointSettingsData
from lamplighter.control.features.endpoints.model import Endpoint
from lamplighter.control.http.calls import present
from lamplighter.control.kernel import Place

POSTGRES_PORT = 5432


def show_endpoint(endpoint: Endpoint, place: Place) -> wire.Endpoint:
    """`host` carries the port: clients that build a connection string from it by themselves then need no other."""
    return wire.Endpoint(
        host=host_of(endpoint, place),
        id=endpoint.id,
        project_id=endpoint.project_id,
        branch_id=endpoint.branch_id,
        autoscaling_limit_min_cu=endpoint.autoscaling_limit_min_cu,
        autoscaling_limit_max_cu=endpoint.autoscaling_limit_max_cu,
        region_id=endpoint.region_id,
        type=endpoint.type,
        current_state=endpoint.current_state,
        settings=EndpointSettingsData.model_validate(endpoint.settings),
        pooler_enabled=False,
        pooler_mode=endpoint.pooler_mode,
        disabled=endpoint.disabled,
        passwordless_access=endpoint.passwordless_access,
        creation_source=endpoint.creation_source,
        created_at=endpoint.created_at,
        updated_at=endpoint.updated_at,
        proxy_host=place.host,
        suspend_timeout_seconds=endpoint.suspend_timeout_seconds,
        provisioner=endpoint.provisioner,
        **present(
            name=endpoint.name,
            pending_state=endpoint.pending_state,
            last_active=endpoint.last_active,
            started_at=endpoint.started_at,
            suspended_at=endpoint.suspended_at,
        ),
    )


def host_of(endpoint: Endpoint, place: Place, *, pooled: bool = False) -> str:
    """Where it is reached, with the port where that is not Postgres' own."""
    if place.domain is not None:
        port = "" if place.domain_port == POSTGRES_PORT else f":{place.domain_port}"
        return f"{endpoint.id}{'-pooler' if pooled else ''}.{place.domain}{port}"
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"{host}:{endpoint.pooler_port if pooled else endpoint.port}"


def settings_of(body: Any) -> dict[str, Any] | None:
    """The `settings` of a request as stored: only what was said."""
    settings = getattr(body, "settings", None)
    return None if settings is None else settings.model_dump(mode="json", exclude_unset=True)
