"""`/projects/{project_id}/endpoints` and the endpoints of a branch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lamplighter.control.features.endpoints.model import Endpoint
from lamplighter.control.features.endpoints.service import Changed, Endpoints
from lamplighter.control.features.endpoints.views import settings_of, show_endpoint
from lamplighter.control.http.calls import Call, Handler, Reply, Routes
from lamplighter.control.kernel import Place, gone


def routes(endpoints: Endpoints, place: Place) -> Routes:
    def show_changed(changed: Changed) -> dict[str, Any]:
        endpoint, operations = changed
        return {"endpoint": show_endpoint(endpoint, place), "operations": operations}

    def show_many(found: list[Endpoint]) -> Reply:
        return Reply({"endpoints": [show_endpoint(one, place) for one in found]})

    async def list_all(call: Call) -> Reply:
        return show_many(await endpoints.of_project(call.caller, call.path["project_id"]))

    async def list_of_branch(call: Call) -> Reply:
        return show_many(await endpoints.of_branch(call.caller, call.path["project_id"], call.path["branch_id"]))

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
