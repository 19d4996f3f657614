"""Replies made from the contract: the least that a server may answer, with the fields that a test names.

They are always the same: ids are made from the place of an item in its list, times are the first of January 2026.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from lamplighter.testing.routes import operation_of
from lamplighter.testing.wire import to_wire

Schema = Mapping[str, Any]

MOMENT = "2026-01-01T00:00:00Z"

#: Texts that depend on more than their type; `{n}` is the place of an item in its list, counted from 1.
_BY_FIELD: Mapping[str, str] = MappingProxyType(
    {
        "branch_id": "br-calm-lake-{n:08}",
        "connection_uri": "postgresql://neondb_owner:example@ep-calm-lake-{n:08}.example.test/neondb?sslmode=require",
        "cursor": "cursor-{n}",
        "created_at": MOMENT,
        "database": "neondb",
        "database_name": "neondb",
        "end_time": MOMENT,
        "endpoint_id": "ep-calm-lake-{n:08}",
        "host": "ep-calm-lake-{n:08}.example.test",
        "org_id": "org-calm-lake-{n:08}",
        "owner_name": "neondb_owner",
        "pooler_host": "ep-calm-lake-{n:08}-pooler.example.test",
        "project_id": "calm-lake-{n:08}",
        "proxy_host": "example.test",
        "region_id": "aws-us-east-2",
        "start_time": MOMENT,
        "updated_at": MOMENT,
        "uri": "postgresql://neondb_owner:example@ep-calm-lake-{n:08}.example.test/neondb?sslmode=require",
    }
)

#: The same for fields whose meaning depends on the model. States are those in which nothing is left to wait for.
_BY_MODEL: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("Branch", "id"): _BY_FIELD["branch_id"],
        ("Branch", "name"): "main",
        ("Branch", "current_state"): "ready",
        ("Database", "name"): "neondb",
        ("Endpoint", "id"): _BY_FIELD["endpoint_id"],
        ("Endpoint", "current_state"): "active",
        ("Endpoint", "type"): "read_write",
        ("Operation", "status"): "finished",
        ("Organization", "id"): _BY_FIELD["org_id"],
        ("Project", "id"): _BY_FIELD["project_id"],
        ("ProjectListItem", "id"): _BY_FIELD["project_id"],
        ("Role", "name"): "neondb_owner",
    }
)

_NUMBERS: Mapping[str, int] = MappingProxyType({"pg_version": 17, "port": 5432})

_PATTERNS: Mapping[str, str] = MappingProxyType({"^[a-z0-9-]{1,60}$": "example-{n}", "^[a-z0-9]{1,20}$": "example{n}"})

_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "date-time": MOMENT,
        "email": "user{n}@example.test",
        "uri": "https://example.test/{n}",
        "uuid": "00000000-0000-4000-8000-{n:012}",
    }
)


def example(operation_id: str, /, **fields: Any) -> Any:
    """A reply to `operation_id` as JSON: the least that the contract allows, with `fields` in it.

    A field goes where its name is known: at the top of the reply, else in the one resource of it that has such a field,
    so that `example("getProject", name="app")` and `example("getProject", project={"name": "app"})` are the same. What
    you give for a resource, and each item that you give for a list of them, is completed in the same way.

    Raises ValueError for an operation that there is not, TypeError for fields that the reply does not have and for
    replies that are not JSON.
    """
    operation = operation_of(operation_id)
    if operation.reply is None:
        if fields:
            raise TypeError(f"{operation_id} answers without fields, so it cannot have {', '.join(sorted(fields))}")
        return None
    return build(operation.reply, fields, name=operation_id)


def build(annotation: Any, fields: Any = None, *, name: str = "the example") -> Any:
    """The least value of a type of the API, as JSON, with `fields` in it."""
    schema = _schema(annotation)
    builder = _Builder(schema.get("$defs", {}), name)
    if "properties" in builder.resolve(schema):
        fields = builder.place(builder.resolve(schema), fields or {})
    elif fields:
        raise TypeError(f"{name} answers with a list, which has no fields {', '.join(sorted(fields))}")
    return builder.value(schema, field="", model="", number=1, given=fields or None)


@functools.cache
def _schema(annotation: Any) -> Schema:
    return TypeAdapter(annotation).json_schema(mode="validation")


class _Builder:
    """Walks one JSON schema. `number` is the place in the nearest list; it makes ids differ within that list."""

    def __init__(self, definitions: Schema, name: str) -> None:
        self.definitions = definitions
        self.name = name

    def resolve(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self.definitions[schema["$ref"].rpartition("/")[2]]
        return schema

    def place(self, top: Schema, fields: Mapping[str, Any]) -> dict[str, Any]:
        """`fields` with those of a resource put into it. Raises TypeError for names that fit nowhere or in several."""
        placed = {name: value for name, value in fields.items() if name in top["properties"]}
        for name in fields.keys() - placed.keys():
            homes = [
                home
                for home, schema in top["properties"].items()
                if home in top.get("required", ()) and name in self.resolve(schema).get("properties", {})
            ]
            if len(homes) != 1:
                raise TypeError(self._misplaced(name, homes, top))
            inner = placed.get(homes[0], {})
            if not isinstance(inner, Mapping):
                raise TypeError(f"{self.name}: give {name} within {homes[0]}, since you give that as a whole")
            placed[homes[0]] = {**inner, name: fields[name]}
        return placed

    def _misplaced(self, name: str, homes: list[str], top: Schema) -> str:
        if homes:
            ways = " or ".join(f"{home}={{{name!r}: ...}}" for home in homes)
            return f"{self.name}: {name} is a field of several parts of the reply; say which: {ways}"
        return f"{self.name}: the reply has no field {name}; at its top are {', '.join(top['properties'])}"

    def value(self, schema: Schema, *, field: str, model: str, number: int, given: Any = None) -> Any:
        """The least value that fits, or `given` completed to one."""
        schema = self.resolve(schema)
        if given is not None:
            return self._completed(schema, given, field=field, number=number)
        if "anyOf" in schema:
            return self.value(schema["anyOf"][0], field=field, model=model, number=number)
        match schema.get("type"):
            case "array":
                items = range(1, schema.get("minItems", 0) + 1)
                return [self.value(schema["items"], field=field, model=model, number=item) for item in items]
            case "object":
                return self._object(schema, {}, number=number)
            case _:
                return _scalar(schema, field=field, model=model, number=number)

    def _completed(self, schema: Schema, given: Any, *, field: str, number: int) -> Any:
        wire = to_wire(given)
        options = [self.resolve(option) for option in schema.get("anyOf", [schema])]
        match wire:
            case dict():
                models = [option for option in options if "properties" in option]
                fitting = [option for option in models if wire.keys() <= option["properties"].keys()]
                return self._object((fitting or models)[0], wire, number=number) if models else wire
            case list():
                lists = [option for option in options if option.get("type") == "array"]
                if not lists:
                    return wire
                return [
                    self._completed(self.resolve(lists[0]["items"]), item, field=field, number=place)
                    for place, item in enumerate(wire, start=1)
                ]
            case _:
                return wire

    def _object(self, schema: Schema, given: Mapping[str, Any], *, number: int) -> dict[str, Any]:
        known: Schema = schema.get("properties", {})
        model = str(schema.get("title", ""))
        made: dict[str, Any] = {}
        for name, inner in known.items():
            if name in given and given[name] is None:
                made[name] = None
            elif name in given or name in schema.get("required", ()):
                made[name] = self.value(inner, field=name, model=model, number=number, given=given.get(name))
        return made | {name: value for name, value in given.items() if name not in known}


def _scalar(schema: Schema, *, field: str, model: str, number: int) -> Any:
    if "enum" in schema or "const" in schema:
        return _BY_MODEL.get((model, field), schema.get("const", schema.get("enum", [None])[0]))
    match schema.get("type"):
        case "string":
            return _text(schema, field=field, model=model, number=number)
        case "integer" | "number":
            return _NUMBERS.get(field, number if field == "id" else max(schema.get("minimum", 0), 0))
        case "boolean":
            return False
        case _:
            return None


def _text(schema: Schema, *, field: str, model: str, number: int) -> str:
    form = (
        _BY_MODEL.get((model, field))
        or _FORMATS.get(schema.get("format", ""))
        or _BY_FIELD.get(field)
        or _PATTERNS.get(schema.get("pattern", ""))
        or "example"
    )
    # What an item refers to is the same for the whole list.
    return form.format(n=1 if field.endswith("_id") else number)
