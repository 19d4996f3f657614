"""Functions of a branch and their deployments."""

from typing import Annotated

from lamplighter.api.models.base import Hidden, Int32, Maybe, Model, Name, OneOf
from lamplighter.api.models.common import CursorPaginationResponse


class NeonFunctionDeployment(Model):
    """A version of a function."""

    id: Int32
    status: Annotated[str, OneOf("pending", "building", "completed", "failed")]
    memory_mib: Int32
    runtime: str
    created_at: str
    environment: Maybe[list[str]] = None
    error: Maybe[str] = None


class NeonFunction(Model):
    """A function of a branch and its deployments."""

    id: str
    slug: str
    name: str
    invocation_url: str
    current_deployment: Maybe[NeonFunctionDeployment] = None
    active_deployment: Maybe[NeonFunctionDeployment] = None
    created_at: str


class NeonFunctionResponse(Model):
    """One function."""

    function: NeonFunction


class NeonFunctionsListResponse(Model):
    """Functions of a branch."""

    functions: list[NeonFunction]


class NeonFunctionsPage(NeonFunctionsListResponse, CursorPaginationResponse):
    """A page of a branch's functions."""


class NeonFunctionUpdateRequest(Model):
    """The name that a function is to have."""

    name: Name | None


class NeonFunctionDeploymentResponse(Model):
    """One deployment."""

    deployment: NeonFunctionDeployment


class FunctionDeployRequest(Model):
    """The parts of the form that deploys a function."""

    zip: Maybe[bytes] = None
    runtime: Maybe[Annotated[str, OneOf("nodejs24")]] = None
    environment: Hidden[Maybe[str]] = None
