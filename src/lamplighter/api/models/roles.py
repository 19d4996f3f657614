"""Postgres roles of a branch. Passwords come with the reply that makes or resets one."""

from lamplighter.api.models.base import Given, Hidden, Id, Maybe, Model, Timestamp
from lamplighter.api.models.operations import OperationsResponse


class Role(Model):
    """A Postgres role on a branch. `password` is there only when it was just made."""

    branch_id: Given[Id]
    name: str
    password: Hidden[Maybe[str]] = None
    protected: Maybe[bool] = None
    authentication_method: Maybe[str] = None
    created_at: Timestamp
    updated_at: Timestamp


class RoleResponse(Model):
    """One role."""

    role: Role


class RolesResponse(Model):
    """Roles of a branch."""

    roles: list[Role]


class RoleOperations(RoleResponse, OperationsResponse):
    """A role, and what the change of it started."""


class RoleCreate(Model):
    """A role to make; with `no_login` it has no password."""

    name: str
    no_login: Maybe[bool] = None


class RoleCreateRequest(Model):
    """The body that makes a role."""

    role: RoleCreate


class RolePasswordResponse(Model):
    """A role's password, in the clear."""

    password: Hidden[str]
