"""Compute endpoints."""

from lamplighter.api.models.endpoints import (
    EndpointCreateRequest,
    EndpointOperations,
    EndpointResponse,
    EndpointsResponse,
    EndpointUpdateRequest,
)
from lamplighter.api.table.entry import PROJECT, Operation, Rows

endpoints = Rows("Endpoint")

OPERATIONS: tuple[Operation, ...] = (
    endpoints.get("listProjectEndpoints", PROJECT + "/endpoints", reply=EndpointsResponse, served=True),
    endpoints.post(
        "createProjectEndpoint",
        PROJECT + "/endpoints",
        body=EndpointCreateRequest,
        body_required=True,
        reply=EndpointOperations,
        status=201,
        served=True,
    ),
    endpoints.delete(
        "deleteProjectEndpoint",
        PROJECT + "/endpoints/{endpoint_id}",
        reply=EndpointOperations,
        statuses=(200, 204),
        served=True,
    ),
    endpoints.get("getProjectEndpoint", PROJECT + "/endpoints/{endpoint_id}", reply=EndpointResponse, served=True),
    endpoints.patch(
        "updateProjectEndpoint",
        PROJECT + "/endpoints/{endpoint_id}",
        body=EndpointUpdateRequest,
        body_required=True,
        reply=EndpointOperations,
        served=True,
    ),
    endpoints.post(
        "restartProjectEndpoint", PROJECT + "/endpoints/{endpoint_id}/restart", reply=EndpointOperations, served=True
    ),
    endpoints.post(
        "startProjectEndpoint", PROJECT + "/endpoints/{endpoint_id}/start", reply=EndpointOperations, served=True
    ),
    endpoints.post(
        "suspendProjectEndpoint", PROJECT + "/endpoints/{endpoint_id}/suspend", reply=EndpointOperations, served=True
    ),
)
