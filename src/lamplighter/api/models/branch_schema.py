"""The schema of a branch's database, as SQL, as JSON, and as a difference."""

from typing import Annotated

from pydantic import Field

from lamplighter.api.models.base import Given, Maybe, Model


class BranchSchemaCompareResponse(Model):
    """The difference of two schemas, as a unified diff."""

    diff: Maybe[str] = None


class SchemaColumn(Model):
    """A column of a table."""

    name: str
    type: str
    nullable: Maybe[bool] = None
    generated: Maybe[bool] = None


class SchemaReference(Model):
    """The table and columns that a foreign key points to."""

    schema_: str = Field(alias="schema")
    table: str
    columns: list[str]


class SchemaConstraint(Model):
    """A constraint of a table."""

    type: str
    columns: Given[Annotated[list[str], Field(min_length=1)]]
    name: Maybe[str] = None
    referenced_table: Maybe[SchemaReference] = None


class SchemaTable(Model):
    """A table with its columns and constraints."""

    schema_: str = Field(alias="schema")
    name: str
    columns: list[SchemaColumn]
    constraints: Maybe[list[SchemaConstraint]] = None


class BranchSchemaJSON(Model):
    """A database's schema as data."""

    tables: list[SchemaTable]


class BranchSchemaResponse(Model):
    """A database's schema, in the format that was asked for."""

    sql: Maybe[str] = None
    json_: Maybe[BranchSchemaJSON] = Field(None, alias="json")
