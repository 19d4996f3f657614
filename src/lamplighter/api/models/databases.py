"""Databases of a branch."""

from lamplighter.api.models.base import Given, Id, Int64, Maybe, Model, Timestamp
from lamplighter.api.models.operations import OperationsResponse


class Database(Model):
    """A database on a branch."""

    id: Int64
    branch_id: Given[Id]
    name: str
    owner_name: str
    created_at: Timestamp
    updated_at: Timestamp


class DatabaseResponse(Model):
    """One database."""

    database: Database


class DatabasesResponse(Model):
    """Databases of a branch."""

    databases: list[Database]


class DatabaseOperations(DatabaseResponse, OperationsResponse):
    """A database, and what the change of it started."""


class DatabaseCreate(Model):
    """A database to make, and the role that owns it."""

    name: str
    owner_name: str


class DatabaseCreateRequest(Model):
    """The body that makes a database."""

    database: DatabaseCreate


class DatabaseUpdate(Model):
    """A new name or owner; what is left out stays."""

    name: Maybe[str] = None
    owner_name: Maybe[str] = None


class DatabaseUpdateRequest(Model):
    """The body that changes a database."""

    database: DatabaseUpdate
