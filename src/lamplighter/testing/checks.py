"""What the contract allows: of a request, as strictly as a server reads it, and of a scripted reply. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, TypeAdapter, ValidationError

from lamplighter.api.models.common import GeneralError
from lamplighter.api.operations import JSON, Operation, Parameter
from lamplighter.testing.errors import ImpossibleReply, ImpossibleRequest
from lamplighter.testing.wire import to_wire

Query = Mapping[str, str | list[str]]

UNCHECKED = "If that is what you mean, pass checked=False."


def parse_query(query: str) -> dict[str, str | list[str]]:
    """Parameters as sent: a text each, a list of texts for what came several times."""
    found: dict[str, list[str]] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, []).append(text)
    return {name: texts[0] if len(texts) == 1 else texts for name, texts in found.items()}


def parse_body(content: bytes, media: str) -> Any:
    """JSON as Python has it, None for nothing, and the bytes themselves for all else."""
    if not content:
        return None
    if media != JSON:
        return content
    try:
        return json.loads(content)
    except ValueError:
        return content


def check_request(operation: Operation, *, path: Mapping[str, str], query: Query, content: bytes, media: str) -> None:
    """Raise ImpossibleRequest for what the contract does not know: a name, a value, a field."""
    faults = [
        *_faults_of_parameters(operation, path=path, query=query),
        *_faults_of_body(operation, content, media),
    ]
    if faults:
        raise ImpossibleRequest(_message(f"{operation.id}: this request is not what the contract says", faults))


def _faults_of_parameters(operation: Operation, *, path: Mapping[str, str], query: Query) -> Iterator[str]:
    known = {"path": path, "query": query}
    for parameter in operation.parameters:
        given = known[parameter.where].get(parameter.name)
        if given is not None:
            yield from _faults_of_parameter(parameter, given)
        elif parameter.required:
            yield f"{parameter.where} parameter {parameter.name} is missing"
    names = [parameter.name for parameter in operation.parameters if parameter.where == "query"]
    for name in query.keys() - set(names):
        yield f"there is no query parameter {name}; known are: {', '.join(names) or 'none'}"


def _faults_of_parameter(parameter: Parameter, given: str | list[str]) -> Iterator[str]:
    place = f"{parameter.where} parameter {parameter.name}"
    adapter = _adapter(parameter.type)
    several = adapter.json_schema().get("type") == "array"
    if not several and isinstance(given, list):
        yield f"{place} was sent {len(given)} times"
        return
    try:
        if several:
            # Read as strings, pydantic takes no list; the items of all lists in the contract are text.
            adapter.validate_python([given] if isinstance(given, str) else given, strict=True)
        else:
            adapter.validate_strings(given, strict=True)
    except ValidationError as error:
        yield from _explained(error, place)


def _faults_of_body(operation: Operation, content: bytes, media: str) -> Iterator[str]:
    if operation.body is None:
        if content:
            yield "it takes no body, and one was sent"
    elif not content:
        if operation.body_required:
            yield "its body is missing"
    elif media != operation.body_media:
        yield f"its body is {operation.body_media}, and {media or 'none'} was sent"
    elif media == JSON:
        yield from _faults_of_json(operation.body, content)


def content_of(operation: Operation, reply: Any, status: int, *, checked: bool) -> bytes:
    """The body of an answer. Raises ImpossibleReply for one that no server gives, unless it is not to be checked."""
    if isinstance(reply, bytes):
        if checked and (status >= 400 or operation.reply_media == JSON):
            raise ImpossibleReply(f"{operation.id} answers with JSON, not with bytes. {UNCHECKED}")
        return reply
    if checked:
        check_status(operation, status)
    if reply is None:
        content = b""
    else:
        try:
            content = json.dumps(to_wire(reply)).encode()
        except TypeError as error:
            raise ImpossibleReply(f"the reply to {operation.id} cannot be sent: {error}") from None
    if checked:
        _check_content(operation, content, status)
    return content


def check_status(operation: Operation, status: int) -> None:
    """Raise ImpossibleReply for a success that is not the operation's, and for what is no answer at all."""
    if status < 400 and status not in operation.statuses:
        known = " or ".join(str(one) for one in operation.statuses)
        raise ImpossibleReply(f"{operation.id} answers with {known}, not with {status}. {UNCHECKED}")
    if status > 599:
        raise ImpossibleReply(f"{status} is no HTTP status")


def _check_content(operation: Operation, content: bytes, status: int) -> None:
    if status >= 400:
        expected: Any = operation.refusals.get(status, GeneralError)
    else:
        expected = None if status == 204 else operation.reply
    if expected is None:
        # Not every operation without a reply is silent: some send an empty object.
        faults = [] if content in (b"", b"{}") else [f"it has no body with status {status}"]
    elif not content:
        faults = [f"its body is missing; example({operation.id!r}) makes one"] if status < 400 else ["it has no body"]
    else:
        faults = list(_faults_of_json(expected, content))
    if faults:
        title = f"no server gives this reply to {operation.id} with status {status}"
        raise ImpossibleReply(f"{_message(title, faults)}\n{UNCHECKED}")


def _faults_of_json(expected: Any, content: bytes) -> Iterator[str]:
    try:
        value = _adapter(expected).validate_json(content, strict=True)
    except ValidationError as error:
        yield from _explained(error, "")
    else:
        yield from _unknown_fields(value, ())


def _unknown_fields(value: Any, place: tuple[str, ...]) -> Iterator[str]:
    match value:
        case BaseModel():
            for name in value.model_extra or ():
                known = ", ".join(type(value).model_fields)
                yield f"{'.'.join((*place, name))}: there is no such field; known are: {known or 'none'}"
            for name in type(value).model_fields:
                yield from _unknown_fields(getattr(value, name), (*place, name))
        case Mapping():
            for name, item in value.items():
                yield from _unknown_fields(item, (*place, str(name)))
        case list():
            for number, item in enumerate(value):
                yield from _unknown_fields(item, (*place, str(number)))
        case _:
            pass


def _explained(error: ValidationError, place: str) -> Iterator[str]:
    # What was given stays out: it may be a password.
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join([*([place] if place else []), *(str(part) for part in fault["loc"])])
        yield f"{where}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _message(title: str, faults: Sequence[str]) -> str:
    return "\n".join([title + ":", *(f"  - {fault}" for fault in faults)])


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)
