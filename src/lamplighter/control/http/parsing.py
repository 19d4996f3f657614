"""A request's parameters and body as the operation table types them, or a bad request that says what is wrong."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

from lamplighter.api.errors import BadRequest, PayloadTooLarge
from lamplighter.api.operations import Operation, Parameter

MAX_BODY = 1024 * 1024


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def explain(error: ValidationError) -> str:
    """The first fault of a body, in the form that Neon gives it: `project.name (field required)`."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    text = fault["msg"][:1].lower() + fault["msg"][1:]
    return f"{place} ({text})" if place else text


def parse_parameters(
    operation: Operation, path: Mapping[str, str], query: QueryParams
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Path and query values, converted and checked; query parameters that nobody declared are ignored, as Neon does.

    Raises BadRequest.
    """
    parsed: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
    for parameter in operation.parameters:
        name = parameter.name
        texts = query.getlist(name) if parameter.where == "query" else [path[name]] if name in path else []
        if any("\x00" in text for text in texts):
            raise BadRequest(f"invalid request: decode params: {parameter.where}: {name} (holds a NUL character)")
        parsed[parameter.where][name] = _read(parameter, texts)
    return parsed["path"], parsed["query"]


def _read(parameter: Parameter, texts: list[str]) -> Any:
    """Of a parameter that is sent twice, the last counts."""
    place = f"invalid request: decode params: {parameter.where}: {parameter.name}"
    if not texts:
        if parameter.required:
            raise BadRequest(f"{place} (field required)")
        return parameter.default
    try:
        return _adapter(parameter.type).validate_strings(texts[-1], strict=True)
    except ValidationError as error:
        raise BadRequest(f"{place} ({explain(error)})") from error


def parse_body(operation: Operation, raw: bytes) -> Any:
    """The body as the operation's model; None when it has none. Raises BadRequest in Neon's words, PayloadTooLarge."""
    if len(raw) > MAX_BODY:
        raise PayloadTooLarge(f"request body is larger than {MAX_BODY} bytes")
    if operation.body is None:
        return None
    if not raw.strip():
        if operation.body_required:
            raise BadRequest.undecodable("a body is required")
        return None
    if b"\\u0000" in raw and _holds_nul(raw):
        raise BadRequest.undecodable("a string holds a NUL character")
    if (b"NaN" in raw or b"Infinity" in raw) and _holds_constant(raw):
        raise BadRequest.undecodable("NaN and Infinity are not JSON")
    try:
        return _adapter(operation.body).validate_json(raw, strict=True)
    except ValidationError as error:
        raise BadRequest.undecodable(explain(error)) from error
    except RecursionError as error:
        raise BadRequest.undecodable("nested too deeply") from error


def _holds_nul(raw: bytes) -> bool:
    """Postgres text cannot hold NUL. The raw bytes may also hold an escaped backslash before `u0000`: look properly."""

    def walk(value: Any) -> bool:
        match value:
            case str():
                return "\x00" in value
            case dict():
                return any(walk(key) or walk(item) for key, item in value.items())
            case list():
                return any(walk(item) for item in value)
            case _:
                return False

    try:
        return walk(json.loads(raw))
    except (ValueError, RecursionError):
        return False


def _holds_constant(raw: bytes) -> bool:
    """To pydantic NaN and Infinity are numbers, but they are not JSON; text that only mentions them is fine."""
    found: list[str] = []
    try:
        json.loads(raw, parse_constant=found.append)
    except (ValueError, RecursionError):
        return False
    return bool(found)
