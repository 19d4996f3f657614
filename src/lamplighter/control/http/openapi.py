"""The OpenAPI 3.1 document, made from the operation table and nothing else.

It describes the whole contract. `x-lamplighter-served` tells of each operation whether this server has it; one that it
does not have answers 501. `x-lamplighter-keys` lists the kinds of API key that may call it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from lamplighter.api.errors import (
    ApiError,
    BadRequest,
    Conflict,
    InternalError,
    Locked,
    NotAcceptable,
    NotFound,
    NotServed,
    PayloadTooLarge,
    PermissionDenied,
    PreconditionFailed,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)
from lamplighter.api.models.common import GeneralError
from lamplighter.api.operations import JSON, OPERATIONS, Operation, Parameter
from lamplighter.control.http.calls import NEVER_ENABLED

BASE_PATH = "/api/v2"

_REF = "#/components/schemas/{model}"
_SECURITY = "apiKey"
_ALWAYS: tuple[type[ApiError], ...] = (
    Unauthenticated,
    PermissionDenied,
    NotFound,
    TooManyRequests,
    InternalError,
    Unavailable,
)
_OF_CHANGES: tuple[type[ApiError], ...] = (Conflict, PreconditionFailed, Unprocessable, Locked)
_RESPONSES: tuple[type[ApiError], ...] = (
    *_ALWAYS,
    *_OF_CHANGES,
    BadRequest,
    NotAcceptable,
    PayloadTooLarge,
    NotServed,
)


def document(*, server_url: str | None = None, version: str) -> dict[str, Any]:
    """The document as JSON values. `server_url` is where the server listens, `/api/v2` not included."""
    schemas, components = _schemas(OPERATIONS.values())
    paths: dict[str, dict[str, Any]] = {}
    for operation in sorted(OPERATIONS.values(), key=lambda operation: operation.path):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lamplighter",
            "version": version,
            "summary": "Neon's API v2, served by Lamplighter.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": (server_url or "").rstrip("/") + BASE_PATH}],
        "security": [{_SECURITY: []}],
        "tags": [{"name": tag} for tag in sorted({operation.tag for operation in OPERATIONS.values()})],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": {kind.__name__: _error_response(kind) for kind in (*_RESPONSES, ApiError)},
            "securitySchemes": {_SECURITY: {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    }


class _Generator(GenerateJsonSchema):
    """Leaves out what pydantic adds for its own ends: titles made of names, and null as default of what is absent."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - no field has a title
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        made.pop("title", None)
        # JSON Schema allows unknown fields anyway; said of every object, it hides the few where it matters.
        if made.get("additionalProperties") is True:
            del made["additionalProperties"]
        return made


_Schemas = Mapping[tuple[str, str], JsonSchemaValue]


def _schemas(operations: Iterable[Operation]) -> tuple[_Schemas, dict[str, JsonSchemaValue]]:
    """Every schema that operations name, by operation id and place; and the components that these refer to."""
    wanted: dict[tuple[str, str], Any] = {("", "error"): GeneralError}
    for operation in operations:
        if operation.body is not None:
            wanted[operation.id, "body"] = operation.body
        if operation.reply is not None:
            wanted[operation.id, "reply"] = operation.reply
        for status, kind in operation.refusals.items():
            wanted[operation.id, str(status)] = kind
        for parameter in operation.parameters:
            wanted[operation.id, f"{parameter.where} {parameter.name}"] = parameter.type
    made, rest = TypeAdapter.json_schemas(
        [(place, "validation", TypeAdapter(kind)) for place, kind in wanted.items()],
        ref_template=_REF,
        schema_generator=_Generator,
    )
    return {place: schema for (place, _mode), schema in made.items()}, rest["$defs"]


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": summary(operation.id),
        "tags": [operation.tag],
        "x-lamplighter-served": operation.served,
        "x-lamplighter-keys": sorted(operation.callers),
    }
    if operation.deprecated:
        described["deprecated"] = True
    if operation.parameters:
        described["parameters"] = [
            _parameter(parameter, schemas[operation.id, f"{parameter.where} {parameter.name}"])
            for parameter in operation.parameters
        ]
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {operation.body_media: {"schema": schemas[operation.id, "body"]}},
        }
    described["responses"] = _responses(operation, schemas)
    return described


def summary(operation_id: str) -> str:
    """The id in words: `listProjectBranches` is "List project branches"."""
    words = re.findall(r"[A-Z]+\d*(?![a-z])|[A-Z]?[a-z0-9]+", operation_id)
    text = " ".join(word if word.isupper() else word.lower() for word in words)
    return text[:1].upper() + text[1:]


def _parameter(parameter: Parameter, schema: JsonSchemaValue) -> dict[str, Any]:
    if parameter.default is not None:
        schema = {**schema, "default": parameter.default}
    return {"name": parameter.name, "in": parameter.where, "required": parameter.required, "schema": schema}


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {str(status): _success(operation, status, schemas) for status in operation.statuses}
    for kind in errors_of(operation):
        responses[str(kind.status)] = {"$ref": f"#/components/responses/{kind.__name__}"}
    for status in operation.refusals:
        responses[str(status)] = {
            "description": "Refused, with the reasons.",
            "content": {JSON: {"schema": schemas[operation.id, str(status)]}},
        }
    responses["default"] = {"$ref": f"#/components/responses/{ApiError.__name__}"}
    return dict(sorted(responses.items()))


def _success(operation: Operation, status: int, schemas: _Schemas) -> dict[str, Any]:
    if status == 204:
        return {"description": "Done. There is nothing to say."}
    if operation.reply_media != JSON:
        return {"description": "Done.", "content": {operation.reply_media: {}}}
    if operation.reply is None:
        return {"description": "Done."}
    return {"description": "Done.", "content": {JSON: {"schema": schemas[operation.id, "reply"]}}}


def errors_of(operation: Operation) -> tuple[type[ApiError], ...]:
    """The errors that this server may answer the operation with."""
    if not operation.served:
        never_enabled = (NotFound,) if operation.id in NEVER_ENABLED else ()
        return (Unauthenticated, *never_enabled, TooManyRequests, NotServed)
    of_input = (BadRequest,) if operation.parameters or operation.body is not None else ()
    of_body = (PayloadTooLarge,) if operation.body is not None else ()
    of_changes = () if operation.safe else _OF_CHANGES
    of_state = (PreconditionFailed,) if operation.safe and "password" in operation.path else ()
    return (*of_input, *_ALWAYS, *of_body, *of_changes, *of_state)


def _error_response(kind: type[ApiError]) -> dict[str, Any]:
    first_line = (kind.__doc__ or "").strip().splitlines()[0]
    return {
        "description": first_line,
        "content": {JSON: {"schema": {"$ref": _REF.format(model=GeneralError.__name__)}}},
    }
