"""`Neon` and `AsyncNeon` behind one face, so that one text proves both, and what they really sent.

The calls of the sync client run in threads: tasks of a test are then threads of its client.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio.to_thread
import httpx2

from lamplighter import AsyncNeon, Neon
from lamplighter.api.operations import OPERATIONS

Kind = Literal["sync", "async"]
KINDS: tuple[Kind, ...] = ("sync", "async")

#: Fixed paths before those with a parameter in the same place.
_ROUTES = [
    (operation.method, re.compile("/api/v2" + re.sub(r"{\w+}", "[^/]+", operation.path)), operation.id)
    for operation in sorted(OPERATIONS.values(), key=lambda operation: operation.path.replace("{", "~"))
]
#: As the client's own: connections end before the server would end them.
_LIMITS = httpx2.Limits(keepalive_expiry=2)


@dataclass(frozen=True)
class Exchange:
    """A request that was answered."""

    operation_id: str
    status: int
    query: httpx2.QueryParams


@dataclass
class Record:
    """All that a client sent and had an answer to, in the order of the answers."""

    exchanges: list[Exchange] = field(default_factory=list)

    def add(self, request: httpx2.Request, response: httpx2.Response) -> None:
        path = request.url.raw_path.decode("ascii").partition("?")[0]
        found = (id_ for method, pattern, id_ in _ROUTES if method == request.method and pattern.fullmatch(path))
        self.exchanges.append(Exchange(next(found), response.status_code, request.url.params))

    @property
    def answered(self) -> set[tuple[str, int]]:
        return {(each.operation_id, each.status) for each in self.exchanges}

    def of(self, *operation_ids: str) -> list[Exchange]:
        return [each for each in self.exchanges if each.operation_id in operation_ids]

    def statuses(self, *operation_ids: str) -> list[int]:
        return [each.status for each in self.of(*operation_ids)]


class Recorder(httpx2.HTTPTransport):
    """The usual transport, which keeps what went through it."""

    def __init__(self, record: Record) -> None:
        super().__init__(limits=_LIMITS)
        self._record = record

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        self._record.add(request, response)
        return response


class AsyncRecorder(httpx2.AsyncHTTPTransport):
    def __init__(self, record: Record) -> None:
        super().__init__(limits=_LIMITS)
        self._record = record

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        self._record.add(request, response)
        return response


class Deferred:
    """A call of the sync client that is made when it is awaited, or, of a list, when that is gone through."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, Any, Any]:
        return anyio.to_thread.run_sync(self._call).__await__()

    def page(self) -> Deferred:
        return Deferred(lambda: self._call().page())

    def all(self) -> Deferred:
        return Deferred(lambda: self._call().all())

    def pages(self) -> Deferred:
        return Deferred(lambda: self._call().pages())

    async def __aiter__(self) -> AsyncIterator[Any]:
        items = await anyio.to_thread.run_sync(lambda: iter(self._call()))
        end = object()
        while (item := await anyio.to_thread.run_sync(next, items, end)) is not end:
            yield item


class Face:
    """The sync client, or a group of its methods, with the asynchronous client's manners."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name == "with_options":
            return lambda **options: Face(value(**options))
        if not callable(value):
            return Face(value) if hasattr(value, "_caller") or name == "with_raw_response" else value
        return lambda *positional, **named: Deferred(lambda: value(*positional, **named))


@asynccontextmanager
async def client(kind: Kind, *, record: Record | None = None, **options: Any) -> AsyncIterator[Any]:
    """A client of that kind, to be written to as if it were an `AsyncNeon`."""
    seen = Record() if record is None else record
    if kind == "async":
        async with AsyncNeon(transport=AsyncRecorder(seen), **options) as neon:
            yield neon
    else:
        with Neon(transport=Recorder(seen), **options) as neon:
            yield Face(neon)


async def together(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls gave, begun all at once. Raises what one of them raised, when all are over."""
    results: list[Any] = [None] * len(calls)
    errors: list[Exception] = []

    async def do(number: int, call: Callable[[], Any]) -> None:
        try:
            results[number] = await call()
        except Exception as error:  # noqa: BLE001 - it is raised again, without a group around it
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for number, call in enumerate(calls):
            tasks.start_soon(do, number, call)
    for error in errors:
        raise error
    return results


def ids(items: Iterable[Any]) -> set[str]:
    return {each.id for each in items}
