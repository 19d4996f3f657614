"""`/projects/{project_id}/endpoints` and the endpoints of a branch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lamplighter.api.models import endpoints as wire
from lamplighter.api.models.settings import EndpointSettingsData
from lamplighter.control.features.endpoints.service import Changed, Endpoints
from lamplighter.control.features.endpoints.store import Endpoint
from lamplighter.control.http.calls import Call, Handler, Reply, Routes, present
from lamplighter.control.kernel import Place, gone


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


def host_of(endpoint: Endpoint, place: Place) -> str:
    return f"{place.host}:{endpoint.port}"


def settings_of(body: Any) -> dict[str, Any] | None:
    """The `settings` of a request as stored: only what was said."""
    settings = getattr(body, "settings", None)
    return None if settings is None else settings.model_dump(mode="json", exclude_unset=True)


def routes(endpoints: Endpoints, place: Place) -> Routes:
    def show_changed(changed: Changed) -> dict[str, Any]:
        endpoint, operations = changed
        return {"endpoint": show_endpoint(endpoint, place), "operations": operations}

    def show_many(found: list[Endpoint]) -> Reply:
        return Reply({"endpoints": [show_endpoint(one, place) for one in found]})

    async def list_all(call: Call) -> Reply:
        return show_many(await endpoints.of_project(call.caller, call.path["project_id"]))

    async def list_of_branch(call: Call) -> Reply:
        return show_many(
            await endpoints.of_branch(call.caller, call.path["project_id"], call.path["branch_id"])
        )

    async def get(call: Call) -> Reply:
        found = await endpoints.get(call.caller, call.path["project_id"], call.path["endpoint_id"])
        return Reply({"endpoint": show_endpoint(found, place)})

    async def create(call: Call) -> Reply:
        body = call.body.endpoint
        changed = await endpoints.create(call.caller, call.path["project_id"], body, settings=settings_of(body))
        return Reply(show_changed(changed), 201)

    async def update(call: Call) -> Reply:
        body = call.body.endpoint
        changed = await endpoints.update(
            call.caller, call.path["project_id"], call.path["endpoint_id"], body, settings=settings_of(body)
        )
        return Reply(show_changed(changed))

    async def delete(call: Call) -> Reply:
        changed = await endpoints.delete(call.caller, call.path["project_id"], call.path["endpoint_id"])
        return gone(place, "endpoint") if changed is None else Reply(show_changed(changed))

    def run(act: Callable[..., Awaitable[Changed]]) -> Handler:
        async def handler(call: Call) -> Reply:
            return Reply(show_changed(await act(call.caller, call.path["project_id"], call.path["endpoint_id"])))

        return handler

    return {
        "listProjectEndpoints": list_all,
        "listProjectBranchEndpoints": list_of_branch,
        "getProjectEndpoint": get,
        "createProjectEndpoint": create,
        "updateProjectEndpoint": update,
        "deleteProjectEndpoint": delete,
        "startProjectEndpoint": run(endpoints.start),
        "suspendProjectEndpoint": run(endpoints.suspend),
        "restartProjectEndpoint": run(endpoints.restart),
    }
