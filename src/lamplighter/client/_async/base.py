"""What all groups of methods are made of.

A generated group is a `Resource` whose methods hand a `Spec` and their arguments to `_call` or `_page`. Its twin for
`with_raw_response` has the same methods on `_raw_caller`, with their types turned by `raw` and `raw_page`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from pydantic import BaseModel

from lamplighter.client._async.pages import Page, Pager
from lamplighter.client.call import finish, raw_response
from lamplighter.client.errors import DeadlineExceeded, OperationFailed
from lamplighter.client.payload import RawResponse
from lamplighter.client.spec import Spec, build

if TYPE_CHECKING:
    from lamplighter.api.models.operations import Operation
    from lamplighter.client._async.sender import AsyncSender

P = ParamSpec("P")
T = TypeVar("T")


class Caller(Protocol):
    """Makes calls for a group."""

    async def call(
        self,
        spec: Spec[Any],
        *,
        path: Mapping[str, object],
        query: Mapping[str, object] | None = None,
        body: object | None = None,
        wait: bool | float = False,
    ) -> Any:
        """One call; with `wait`, and then as many as it takes until its operations have ended."""
        ...

    def page(
        self,
        spec: Spec[Any],
        *,
        path: Mapping[str, object],
        query: Mapping[str, object] | None = None,
        items: str | None,
        cursor: str | None = None,
    ) -> Any:
        """A list."""
        ...

    async def settle(self, reply: T, wait: bool | float, *, project_id: str) -> T:
        """A reply with its operations as they ended; as it is, where `wait` is False."""
        ...

    async def finished(self, project_id: str, operations: Iterable[Operation | str], seconds: float) -> list[Operation]:
        """Operations as they ended, waited for so many seconds at most."""
        ...

    @property
    def raw(self) -> Caller:
        """The same, giving raw responses."""
        ...


class Resource:
    """A group of methods of a client."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def _raw_caller(self) -> Caller:
        return self._caller.raw

    async def _call(
        self,
        spec: Spec[T],
        *,
        path: Mapping[str, object],
        query: Mapping[str, object] | None = None,
        body: object | None = None,
        wait: bool | float = False,
    ) -> T:
        return cast("T", await self._caller.call(spec, path=path, query=query, body=body, wait=wait))

    def _page(
        self,
        spec: Spec[Any],
        *,
        path: Mapping[str, object],
        query: Mapping[str, object] | None = None,
        items: str | None,
        cursor: str | None = None,
    ) -> Pager[Any]:
        return cast("Pager[Any]", self._caller.page(spec, path=path, query=query, items=items, cursor=cursor))


def raw(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[RawResponse[T]]]:
    """A method of a group that has a raw caller, with the type that it has there."""
    return cast("Callable[P, Awaitable[RawResponse[T]]]", method)


def raw_page(method: Callable[P, Pager[T]]) -> Callable[P, Awaitable[RawResponse[Page[T]]]]:
    """A list of a group that has a raw caller: the answer that holds its first page."""
    return cast("Callable[P, Awaitable[RawResponse[Page[T]]]]", method)


class ReplyCaller:
    """Gives what the answer means."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    @property
    def raw(self) -> Caller:
        return RawCaller(self._sender)

    async def call(
        self,
        spec: Spec[Any],
        *,
        path: Mapping[str, object],
        query: Mapping[str, object] | None = None,
        body: object | None = None,
        wait: bool | float = False,
    ) -> Any:
        answer = await self._sender.send(build(spec, path=path, query=query, body=body))
        reply = finish(spec, answer)
        return reply if wait is False else await self.settle(reply, wait, project_id=str(path.get("project_id", "")))

    def page(
        self,
        spec: Spec[Any],
        *,
        path: Mapping[str, object],
        query: Mapping[str, object] | None = None,
        items: str | None,
        cursor: str | None = None,
    ) -> Any:
        given = dict(query or {})

        async def read(at: str | None) -> Page[Any]:
            asked = given if at is None else {**given, "cursor": at}
            answer = await self._sender.send(build(spec, path=path, query=asked))
            return page_of(finish(spec, answer), items=items, cursor=cursor)

        start = given.get("cursor")
        return Pager(read, start=None if start is None else str(start))

    async def settle(self, reply: T, wait: bool | float, *, project_id: str) -> T:
        operations = getattr(reply, "operations", None)
        if wait is False or not operations or not isinstance(reply, BaseModel):
            return reply
        seconds = 300.0 if wait is True else float(wait)
        try:
            ended = await self.finished(project_id or operations[0].project_id, operations, seconds)
        except (DeadlineExceeded, OperationFailed) as error:
            # Else the id of what was made, and a password that is shown once, would be lost with it.
            error.reply = reply
            raise
        return reply.model_copy(update={"operations": ended})

    async def finished(self, project_id: str, operations: Iterable[Operation | str], seconds: float) -> list[Operation]:
        return await self._sender.finished(project_id, operations, seconds)


class RawCaller(ReplyCaller):
    """Gives the answers themselves."""

    async def call(
        self,
        spec: Spec[Any],
        *,
        path: Mapping[str, object],
        query: Mapping[str, object] | None = None,
        body: object | None = None,
        wait: bool | float = False,
    ) -> RawResponse[Any]:
        answer = await self._sender.send(build(spec, path=path, query=query, body=body))
        if wait is False:
            return raw_response(answer, partial(finish, spec, answer))
        reply = await self.settle(finish(spec, answer), wait, project_id=str(path.get("project_id", "")))
        return raw_response(answer, lambda: reply)

    async def page(
        self,
        spec: Spec[Any],
        *,
        path: Mapping[str, object],
        query: Mapping[str, object] | None = None,
        items: str | None,
        cursor: str | None = None,
    ) -> RawResponse[Page[Any]]:
        answer = await self._sender.send(build(spec, path=path, query=query))
        return raw_response(answer, lambda: page_of(finish(spec, answer), items=items, cursor=cursor))


def page_of(reply: Any, *, items: str | None, cursor: str | None) -> Page[Any]:
    """A reply as a page: its items are in the field `items`, its cursor is at the dotted place `cursor`."""
    found = reply if items is None else getattr(reply, items, None)
    try:
        following = attrgetter(cursor)(reply) if cursor else None
    except AttributeError:
        # A part of the way to it is None: there is no next page.
        following = None
    return Page(items=list(found or ()), next=following or None, reply=reply)
