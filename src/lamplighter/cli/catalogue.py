"""The operations of the API for people: finding one by what they write, and describing it. Pure, but slow to load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from lamplighter.api.operations import JSON, OPERATIONS, Operation
from lamplighter.client.names import PLACES

_DEEPEST = 6


def by_name(name: str) -> Operation | None:
    """The operation of Neon's id, in any case, or of the client's name for it, such as `branches.create`."""
    wanted = name.lower()
    for operation in OPERATIONS.values():
        if wanted in (operation.id.lower(), client_name(operation)):
            return operation
    return None


def by_path(method: str, path: str) -> Operation | None:
    """The operation at a path, be it the contract's own or one with the ids filled in. The most literal one wins."""
    given = path.strip("/").split("/")
    found = [
        operation
        for operation in OPERATIONS.values()
        if operation.method == method and _fits(operation.path.strip("/").split("/"), given)
    ]
    return min(found, key=lambda operation: operation.path.count("{"), default=None)


def _fits(template: Sequence[str], given: Sequence[str]) -> bool:
    return len(template) == len(given) and all(
        part == other or part.startswith("{") for part, other in zip(template, given, strict=True)
    )


def methods_at(path: str) -> list[str]:
    """The methods that the contract knows at a path."""
    return [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if by_path(method, path) is not None]


def client_name(operation: Operation) -> str:
    """`branches.create`."""
    group, call = PLACES[operation.id]
    return f"{group.name}.{call.method}"


def near(name: str) -> list[str]:
    """Ids much like a name."""
    from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

    ids = {operation.id.lower(): operation.id for operation in OPERATIONS.values()}
    names = {client_name(operation): client_name(operation) for operation in OPERATIONS.values()}
    known = ids | names
    return [known[each] for each in get_close_matches(name.lower(), known, n=3, cutoff=0.6)]


def listed(word: str = "") -> list[dict[str, Any]]:
    """All operations, or those with a word in their id, name, path or group, in any case."""
    wanted = word.lower()
    rows = [
        {
            "id": operation.id,
            "method": operation.method,
            "path": operation.path,
            "name": client_name(operation),
            "group": operation.tag,
            "served": operation.served,
            "deprecated": operation.deprecated,
        }
        for operation in OPERATIONS.values()
    ]
    return [row for row in rows if any(wanted in str(row[name]).lower() for name in ("id", "path", "name", "group"))]


# Describing one


@dataclass(frozen=True, slots=True)
class Node:
    """One field of a JSON schema. `types` are JSON's."""

    path: str
    types: frozenset[str]
    type: str
    required: bool
    default: Any
    deprecated: bool


def described(operation: Operation) -> dict[str, Any]:
    """All that there is to know before a call."""
    _, call = PLACES[operation.id]
    return {
        "id": operation.id,
        "method": operation.method,
        "path": operation.path,
        "name": client_name(operation),
        "text": " ".join(filter(None, (call.doc, call.note))),
        "served": operation.served,
        "deprecated": operation.deprecated,
        "keys": sorted(operation.callers),
        "status": list(operation.statuses),
        "parameters": [
            {
                "name": parameter.name,
                "in": parameter.where,
                "type": written_type(schema := TypeAdapter(parameter.type).json_schema(), schema),
                "required": parameter.required if parameter.where == "query" else True,
                "default": parameter.default,
            }
            for parameter in operation.parameters
        ],
        "body_media": operation.body_media if operation.body is not None else None,
        "body_required": operation.body_required,
        "body": [_row(node) for node in body_nodes(operation)],
        "reply_media": operation.reply_media,
        "reply": [_row(node) for node in nodes_of(operation.reply)] if operation.reply_media == JSON else [],
    }


def _row(node: Node) -> dict[str, Any]:
    return {
        "name": node.path,
        "type": node.type,
        "required": node.required,
        "default": node.default,
        "deprecated": node.deprecated,
    }


def body_nodes(operation: Operation) -> list[Node]:
    """The fields of an operation's body."""
    return nodes_of(operation.body)


def body_types(operation: Operation) -> Mapping[str, frozenset[str]]:
    """The JSON types of an operation's body fields, by dotted path with `*` for what is open."""
    return {node.path: node.types for node in body_nodes(operation)}


def nodes_of(kind: Any) -> list[Node]:
    """The fields of what an annotation describes, by dotted path: `*` is any place of a list, or any name."""
    if kind is None:
        return []
    schema = TypeAdapter(kind).json_schema()
    return list(_walk(schema, schema, "", depth=0))


def _walk(schema: Mapping[str, Any], root: Mapping[str, Any], path: str, *, depth: int) -> Iterator[Node]:
    if depth > _DEEPEST:
        return
    for part in _parts(schema, root):
        required = part.get("required", ())
        for name, field in part.get("properties", {}).items():
            yield from _node(field, root, _joined(path, name), required=name in required, depth=depth)
        if isinstance(items := part.get("items"), Mapping):
            yield from _node(items, root, _joined(path, "*"), required=False, depth=depth)
        if isinstance(values := part.get("additionalProperties"), Mapping) and values:
            yield from _node(values, root, _joined(path, "*"), required=False, depth=depth)


def _node(
    field: Mapping[str, Any], root: Mapping[str, Any], path: str, *, required: bool, depth: int
) -> Iterator[Node]:
    types = frozenset(kind for part in _parts(field, root) for kind in _types(part))
    yield Node(
        path,
        types or frozenset({"string", "number", "boolean", "object", "array", "null"}),
        written_type(field, root),
        required,
        field.get("default"),
        bool(field.get("deprecated", False)),
    )
    yield from _walk(field, root, path, depth=depth + 1)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _parts(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a schema, with what they refer to in their place."""
    if "$ref" in schema:
        return _parts(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return [part for each in schema[choice] for part in _parts(each, root)]
    return [schema]


def _types(part: Mapping[str, Any]) -> list[str]:
    if "type" in part:
        kind = part["type"]
        return [kind] if isinstance(kind, str) else list(kind)
    values = part.get("enum", [part["const"]] if "const" in part else [])
    return ["string"] if values and all(isinstance(value, str) for value in values) else []


def written_type(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """A schema in a few words: `integer 1..400`, `read_only | read_write`, `list of string`."""
    return " or ".join(dict.fromkeys(_written(part, root) for part in _parts(schema, root))) or "anything"


def _written(part: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    values = part.get("enum", [part["const"]] if "const" in part else None)
    if values is not None:
        return " | ".join(map(str, values))
    kind = part.get("type", "anything")
    if kind == "array":
        return f"list of {written_type(part.get('items', {}), root)}" + _range(part, "minItems", "maxItems", " items")
    if kind == "string":
        return (
            str(part.get("format", "string")) + _range(part, "minLength", "maxLength", " characters") + _pattern(part)
        )
    if kind in ("integer", "number"):
        return f"{kind}{_limits(part)}"
    return str(kind)


def _range(part: Mapping[str, Any], least: str, most: str, unit: str) -> str:
    low, high = part.get(least), part.get(most)
    if high is None:
        return f", at least {low}{unit}" if low else ""
    return f", {low or 0}..{high}{unit}"


_INT32, _INT64 = 2**31, 2**63


def _limits(part: Mapping[str, Any]) -> str:
    """Limits that are only those of a machine's integers tell nothing."""
    low = part.get("minimum", part.get("exclusiveMinimum"))
    high = part.get("maximum", part.get("exclusiveMaximum"))
    low = None if low in (-_INT32, -_INT64) else low
    high = None if high in (_INT32 - 1, _INT64 - 1) else high
    if low is None and high is None:
        return ""
    return f" {'' if low is None else low}..{'' if high is None else high}"


def _pattern(part: Mapping[str, Any]) -> str:
    return f" like {part['pattern']}" if "pattern" in part and "format" not in part else ""


# Filling in


def places_of(path: str) -> list[str]:
    """The names of a path's parameters."""
    return re.findall(r"{(\w+)}", path)
