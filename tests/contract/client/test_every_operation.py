"""Every operation of the table, sync and async, sends the method, path, query and body that the table demands.

Arguments are made from the types in the operation table, and handed to the methods under the names that the naming
table gives them. What arrives at the transport is then held against the operation table again: bodies are read as a
server reads them, strictly. What the server answers is made from the table too, so that every reply is read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesParser
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, quote

import httpx2
import pytest
from pydantic import TypeAdapter, ValidationError, create_model

from lamplighter import AsyncNeon, Neon
from lamplighter.api.models.base import Model, OneOf, wire_time
from lamplighter.api.operations import OPERATIONS, Operation
from lamplighter.client.names import PLACES
from lamplighter.client.naming import Call

KEY = "a-key-for-tests"
BASE = "http://127.0.0.1:9/api/v2"
WHEN = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)
LSN = "0/1A2B3C4"
UUID_TEXT = "0b5f2c1e-9a63-4d8e-8f1f-3c2d1e0b5f2c"


# Values of the table's types

PLAIN: dict[Any, Callable[[str], Any]] = {
    str: "{} & more/é".format,
    int: lambda _: 7,
    float: lambda _: 1.5,
    bool: lambda _: True,
    bytes: lambda _: b"PK\x05\x06",
    datetime: lambda _: WHEN,
    Any: lambda _: {},
}


def sample(annotation: Any, name: str) -> Any:
    """A value that a strict reader takes; texts tell the field that they are for."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return sample_marked(annotation, arguments[0], arguments[1:], name)
    if origin in {Union, UnionType}:
        return sample(next(each for each in arguments if each is not NoneType), name)
    if origin in {Literal, list}:
        return arguments[0] if origin is Literal else [sample(arguments[0], name)]
    if origin is dict:
        return {f"key of {name}": sample(arguments[1], name)}
    if isinstance(annotation, type) and issubclass(annotation, Model):
        hints = get_type_hints(annotation, include_extras=True)
        return {info.alias or each: sample(hints[each], each) for each, info in annotation.model_fields.items()}
    return PLAIN[annotation](name)


def sample_marked(annotation: Any, inner: Any, marks: tuple[Any, ...], name: str) -> Any:
    for mark in marks:
        if isinstance(mark, OneOf):
            return mark.values[0]
    first = sample(inner, name)
    dashed = name.replace("_", "-")
    choices = [first, dashed, name.replace("_", ""), f"{name}@example.com", UUID_TEXT, 15, 100, 4000, ["one"]]
    reader = create_model("Reader", value=(annotation, ...))
    for choice in choices:
        try:
            reader.model_validate({"value": choice}, strict=True)
        except ValidationError:
            continue
        return choice
    raise AssertionError(f"no sample for {name}: {annotation}")


def on_wire(value: Any) -> Any:
    """A sample as JSON has it."""
    match value:
        case datetime():
            return wire_time(value)
        case dict():
            return {name: on_wire(each) for name, each in value.items()}
        case list():
            return [on_wire(each) for each in value]
    return value


def in_query(value: Any) -> list[str]:
    """A sample as a query has it: one text, or one for each of a list."""
    if isinstance(value, list):
        return [text for each in value for text in in_query(each)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [wire_time(value) if isinstance(value, datetime) else str(value)]


# What is given, and what has to arrive


@dataclass
class Case:
    """A call of one operation: its arguments, and the request that the table demands for them."""

    operation: Operation
    call: Call
    kind: str  # "all, at an LSN", "all, at a time", or "required"

    def __post_init__(self) -> None:
        self.positional: list[Any] = []
        self.named: dict[str, Any] = {}
        self.path = self.operation.path
        self.query: list[tuple[str, str]] = []
        self.body: Any = None
        for parameter in self.operation.parameters:
            self._parameter(parameter)
        if self.operation.body is not None:
            self._whole_body()

    @property
    def required_only(self) -> bool:
        return self.kind == "required"

    def _parameter(self, parameter: Any) -> None:
        name, value = parameter.name, sample(parameter.type, parameter.name)
        if parameter.where == "path":
            self.positional.append(value)
            self.path = self.path.replace("{" + name + "}", quote(str(value), safe=""))
        elif name not in self.call.left_out and (parameter.required or not self.required_only):
            if self._at(name):
                value = self.named[self._at(name)]
            elif self._other_half(name):
                return
            else:
                self.named[self.call.renames.get(name, name)] = value
            self.query += [(name, text) for text in in_query(value)]

    def _at(self, name: str) -> str | None:
        """The parameter that this field is given by, if it is the half of a point in time that is meant."""
        for at in self.call.at:
            if name == at.lsn and self.kind == "all, at an LSN":
                self.named[at.parameter] = LSN
                return at.parameter
            if name == at.timestamp and self.kind == "all, at a time":
                self.named[at.parameter] = WHEN
                return at.parameter
        return None

    def _other_half(self, name: str) -> bool:
        return any(name in {at.lsn, at.timestamp} for at in self.call.at)

    def _whole_body(self) -> None:
        model = self.operation.body
        if self.call.whole:
            self.body = self.named[self.call.whole] = sample(model, self.call.whole)
            return
        body = self._object(model, "")
        self.body = body if body or self.operation.body_required else None

    def _object(self, model: type[Model], place: str) -> dict[str, Any]:
        hints = get_type_hints(model, include_extras=True)
        found: dict[str, Any] = {}
        for name, info in model.model_fields.items():
            inside = f"{place}.{name}" if place else name
            if inside in self.call.flatten:
                inner = self._object(model_in(hints[name]), inside)
                if inner or info.is_required():
                    found[name] = inner
            elif info.is_required() or not self.required_only:
                if parameter := self._at(name):
                    found[name] = self.named[parameter]
                elif not self._other_half(name):
                    found[name] = self.named[self.call.renames.get(name, name)] = sample(hints[name], name)
        return found


def model_in(annotation: Any) -> type[Model]:
    """The model in `Maybe[Model]` or the like."""
    if isinstance(annotation, type):
        return annotation
    return model_in(next(each for each in get_args(annotation) if each is not NoneType))


def cases() -> Iterator[Any]:
    for id_, (group, call) in PLACES.items():
        kinds = ["all, at an LSN", "all, at a time"] if call.at else ["all, at an LSN"]
        for kind in [*kinds, "required"]:
            yield pytest.param(Case(OPERATIONS[id_], call, kind), id=f"{group.name}.{call.method}, {kind}")


# The server


def reply_of(operation: Operation) -> Any:
    if operation.reply is None:
        return b"bytes of an object" if operation.reply_media != "application/json" else None
    return on_wire(sample(operation.reply, "reply"))


@dataclass
class Recorder:
    """Answers every request with what the table promises, and keeps it."""

    case: Case

    def __post_init__(self) -> None:
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        operation = self.case.operation
        reply = reply_of(operation)
        if isinstance(reply, bytes):
            return httpx2.Response(operation.status, content=reply, headers={"content-type": operation.reply_media})
        return httpx2.Response(operation.status) if reply is None else httpx2.Response(operation.status, json=reply)

    @property
    def request(self) -> httpx2.Request:
        (request,) = self.requests
        return request


def check_request(case: Case, request: httpx2.Request) -> None:
    operation = case.operation
    assert request.method == operation.method
    path, _, query = request.url.raw_path.decode().partition("?")
    assert path == f"/api/v2{case.path}"
    assert sorted(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))) == sorted(case.query)
    assert request.headers["authorization"] == f"Bearer {KEY}"
    if case.body is None:
        assert request.content == b""
        assert "content-type" not in request.headers
    elif operation.body_media == "multipart/form-data":
        assert form(request) == {name: value for name, value in case.body.items() if value is not None}
    else:
        assert request.headers["content-type"] == "application/json"
        assert json.loads(request.content) == on_wire(case.body)
        TypeAdapter(operation.body).validate_json(request.content, strict=True)


def form(request: httpx2.Request) -> dict[str, Any]:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + request.content)
    assert message.get_content_type() == "multipart/form-data"
    parts = message.get_payload() if message.is_multipart() else []
    return {str(part.get_param("name", header="content-disposition")): part_value(part) for part in parts}


def part_value(part: Message) -> bytes | str:
    content = part.get_payload(decode=True)
    return content if part.get_filename() else content.decode()


def check_result(case: Case, result: Any) -> None:
    """`result` is what the method gave; for lists, the first page."""
    operation, call = case.operation, case.call
    reply = reply_of(operation)
    if operation.reply_media != "application/json":
        assert result == reply
    elif not reply:
        assert result is None
    elif call.paged:
        whole = TypeAdapter(operation.reply).validate_python(reply)
        assert result.items == (getattr(whole, call.paged.items) if call.paged.items else whole)
        assert result.reply == whole
        assert result.next == following(reply, call.paged.cursor)
    else:
        whole = TypeAdapter(operation.reply).validate_python(reply)
        assert result == (getattr(whole, call.unwrap) if call.unwrap else whole)


def following(reply: Any, place: str | None) -> str | None:
    for part in place.split(".") if place else ():
        reply = reply[part]
    return reply if place else None


def method_of(neon: Any, case: Case, *, raw: bool = False) -> Any:
    group, call = PLACES[case.operation.id]
    owner = getattr(neon, group.name)
    return getattr(owner.with_raw_response if raw else owner, call.method)


CASES = list(cases())


@pytest.fixture
def anyio_backend() -> str:
    """One will do: what is tested here is what is sent."""
    return "asyncio"


@pytest.fixture(autouse=True)
def deprecations_are_expected(request) -> Iterator[None]:
    """Methods of operations that Neon deprecated warn, and others do not."""
    case = request.node.callspec.params["case"]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", DeprecationWarning)
        yield
    told = [str(each.message) for each in seen if case.operation.id in str(each.message)]
    assert bool(told) == case.operation.deprecated
    assert len(told) == len(seen)


@pytest.mark.parametrize("case", CASES)
def test_sync(case: Case):
    recorder = Recorder(case)
    with Neon(api_key=KEY, base_url=BASE, transport=httpx2.MockTransport(recorder)) as neon:
        result = method_of(neon, case)(*case.positional, **case.named)
        result = result.page() if case.call.paged else result
    check_request(case, recorder.request)
    check_result(case, result)


@pytest.mark.parametrize("case", CASES)
async def test_async(case: Case):
    recorder = Recorder(case)
    async with AsyncNeon(api_key=KEY, base_url=BASE, transport=httpx2.MockTransport(recorder)) as neon:
        called = method_of(neon, case)(*case.positional, **case.named)
        result = await called.page() if case.call.paged else await called
    check_request(case, recorder.request)
    check_result(case, result)


@pytest.mark.parametrize("case", [each for each in CASES if each.values[0].required_only])
def test_raw_responses_are_of_the_same_request(case: Case):
    recorder = Recorder(case)
    with Neon(api_key=KEY, base_url=BASE, transport=httpx2.MockTransport(recorder)) as neon:
        response = method_of(neon, case, raw=True)(*case.positional, **case.named)
    check_request(case, recorder.request)
    assert response.status == case.operation.status
    check_result(case, response.parse())


@pytest.mark.parametrize("case", [p for p in CASES if (of := p.values[0].call.paged) and of.cursor])
def test_the_second_page_is_asked_for_with_the_cursor_of_the_first(case: Case):
    """This server gives the same page each time: the client asks twice, and stops at a cursor that it has seen."""
    case = replace(case)
    case.named.pop("cursor", None)
    case.query = [pair for pair in case.query if pair[0] != "cursor"]
    recorder = Recorder(case)
    with Neon(api_key=KEY, base_url=BASE, transport=httpx2.MockTransport(recorder)) as neon:
        items = method_of(neon, case)(*case.positional, **case.named).all()
    first, second = recorder.requests
    check_request(case, first)
    case.query.append(("cursor", following(reply_of(case.operation), case.call.paged.cursor)))
    check_request(case, second)
    assert len(items) == 2
