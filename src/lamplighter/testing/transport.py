"""A transport that answers from a script: unit tests of code that uses `Neon` or `AsyncNeon`, without a server.

    script = ScriptedTransport()
    script.on("getProject", reply=example("getProject", name="app"))
    neon = Neon(api_key="test", transport=script)

Both sides are held to the contract: a reply that no server gives and a request that no server takes are both errors
of the test. It is safe to use from many threads and tasks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import anyio.lowlevel
import httpx2

from lamplighter.api.operations import Operation
from lamplighter.testing import checks, routes
from lamplighter.testing.errors import ScriptError, Unscripted, Unused
from lamplighter.testing.examples import example

#: Statuses by which a server says that it did not like the request: then the request need not be right.
_REFUSED_AS_WRONG = frozenset({400, 405, 406, 412, 413, 415, 422, 501})

#: What the real server says, as far as that is known.
_MESSAGES: Mapping[int, str] = {
    400: "invalid request",
    401: "supplied credentials do not pass authentication",
    403: "not allowed",
    404: "not found",
    409: "already exists",
    423: "project already has running conflicting operations, scheduling of new ones is prohibited",
    429: "too many requests: rate limit exceeded",
    500: "internal error",
    501: "not available",
    503: "service unavailable",
}


class _Example:
    """Stands for "the least reply that the contract allows"."""

    def __repr__(self) -> str:
        return "the example"


EXAMPLE: Final = _Example()


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request as the client sent it. Its key is not kept.

    `path` holds the parameters in the path by name, decoded. `query` holds texts as sent, and a list of texts for a
    parameter that came several times. `body` is JSON as Python has it, None where there was none, and bytes where it
    was no JSON.
    """

    operation_id: str
    method: str
    url: str
    path: Mapping[str, str]
    query: Mapping[str, str | list[str]]
    body: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a callable may return when the reply alone does not say it: a reply with a status and headers of its own."""

    reply: Any = EXAMPLE
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    checked: bool = True


#: A reply made for a request: what `reply` may be, or an `Answer`. It may raise, as a transport does.
Reply = Callable[[SentRequest], Any]


@dataclass(slots=True)
class _Entry:
    """One line of the script; `left` None means that it answers for ever."""

    answer: Answer | Reply | httpx2.TransportError
    left: int | None
    checked: bool


class ScriptedTransport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Answers by operation id what a test scripted, for `Neon` and `AsyncNeon` alike.

    The lines for one operation are used in the order in which they were written. One without `times` answers all
    requests that reach it, and gives way to a line that is written later: so a fixture may script what is usual, and a
    test what is not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, deque[_Entry]] = {}
        self._requests: list[SentRequest] = []
        self._faults: list[ScriptError] = []

    def __repr__(self) -> str:
        with self._lock:
            scripted = ", ".join(self._entries) or "nothing"
            return f"<ScriptedTransport: {scripted}; {len(self._requests)} requests>"

    # The script

    def on(
        self,
        operation_id: str,
        reply: Any = EXAMPLE,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
        checked: bool = True,
    ) -> Self:
        """Answer `operation_id` with `reply`: JSON as Python has it, a model, None for no body, bytes for a download.

        Without `reply`, it is the least that the contract allows (`example`). A callable gets the `SentRequest`, and
        returns any of these or an `Answer`. `status` is the operation's own unless given. With `checked=False` neither
        the reply nor the requests that it answers are held to the contract: for what a newer server, or a broken one,
        would say; bytes are then sent as they are.

        Raises ValueError for an operation that there is not, ImpossibleReply for a reply that no server gives.
        """
        operation = routes.operation_of(operation_id)
        if callable(reply):
            if status is not None or headers:
                raise ValueError("return Answer(reply, status=..., headers=...) from the callable instead")
            return self._add(operation_id, _Entry(reply, _times(times), checked))
        answer = Answer(reply, status, dict(headers or {}), checked)
        _response(operation, answer)
        return self._add(operation_id, _Entry(answer, _times(times), checked))

    def sequence(self, operation_id: str, *replies: Any) -> Self:
        """Answer `operation_id` with each of `replies` once, in their order; one more request is an error."""
        for reply in replies:
            if isinstance(reply, Answer):
                _response(routes.operation_of(operation_id), reply)
                self._add(operation_id, _Entry(reply, 1, reply.checked))
            else:
                self.on(operation_id, reply, times=1)
        return self

    def fail(
        self,
        operation_id: str,
        status: int,
        *,
        message: str | None = None,
        code: str = "",
        retry_after: int | str | None = None,
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> Self:
        """Refuse `operation_id` with an error body of Neon's: a status from 400 to 599, a message and a code.

        `retry_after` is sent as `Retry-After`: seconds, or an HTTP date as text.
        """
        if not 400 <= status <= 599:
            raise ValueError(f"{status} is no failure; a status from 400 to 599 is")
        routes.operation_of(operation_id)
        body = {"code": code, "message": message or _MESSAGES.get(status, f"failed with status {status}")}
        sent = {**(headers or {}), **({} if retry_after is None else {"retry-after": f"{retry_after}"})}
        # A few operations have error bodies of their own: those are for `on(..., status=...)`.
        answer = Answer(body, status, sent, checked=False)
        return self._add(operation_id, _Entry(answer, _times(times), checked=status not in _REFUSED_AS_WRONG))

    def disconnect(
        self, operation_id: str, *, sent: bool = False, timeout: bool = False, times: int | None = None
    ) -> Self:
        """Fail the connection: before the request left (`sent=False`), or after, when the server may have acted."""
        routes.operation_of(operation_id)
        kinds: Mapping[tuple[bool, bool], type[httpx2.TransportError]] = {
            (False, False): httpx2.ConnectError,
            (False, True): httpx2.ConnectTimeout,
            (True, False): httpx2.ReadError,
            (True, True): httpx2.ReadTimeout,
        }
        error = kinds[sent, timeout]("scripted: the connection was lost" if sent else "scripted: no connection")
        return self._add(operation_id, _Entry(error, _times(times), checked=True))

    def _add(self, operation_id: str, entry: _Entry) -> Self:
        with self._lock:
            entries = self._entries.setdefault(operation_id, deque())
            if entries and entries[-1].left is None:
                entries.pop()
            entries.append(entry)
        return self

    # What was sent

    @property
    def requests(self) -> tuple[SentRequest, ...]:
        """All requests so far, in the order in which they came; those that lost their connection too."""
        with self._lock:
            return tuple(self._requests)

    def requests_of(self, operation_id: str) -> tuple[SentRequest, ...]:
        """The requests for one operation."""
        routes.operation_of(operation_id)
        return tuple(request for request in self.requests if request.operation_id == operation_id)

    def verify(self) -> None:
        """Raise what went wrong, in case code caught it or a thread lost it, and Unused for answers that are left over.

        An answer without `times` need not be used.
        """
        with self._lock:
            if self._faults:
                raise self._faults[0]
            left = {name: sum(entry.left or 0 for entry in entries) for name, entries in self._entries.items()}
        unused = [f"{name} ({count} more)" for name, count in left.items() if count]
        if unused:
            raise Unused(f"scripted, but never asked for: {', '.join(unused)}")

    # As httpx2 calls it

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        return self._answer(request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        # A real transport lets other tasks run, and can be cancelled.
        await anyio.lowlevel.checkpoint()
        return self._answer(request)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return self._answered(request)
        except ScriptError as fault:
            with self._lock:
                self._faults.append(fault)
            raise

    def _answered(self, request: httpx2.Request) -> httpx2.Response:
        method, raw_path = request.method, request.url.raw_path.decode("ascii").partition("?")[0]
        found = routes.match(method, raw_path)
        if found is None:
            raise Unscripted(f"{method} {raw_path} is no operation of Neon's API, so nothing can be scripted for it")
        operation, content = found.operation, request.content
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        query = checks.parse_query(request.url.query.decode("ascii"))
        body = checks.parse_body(content, media)
        sent = SentRequest(operation.id, method, raw_path, found.path, query, body)
        entry, number = self._next(sent)
        if entry.checked:
            checks.check_request(operation, path=found.path, query=query, content=content, media=media)
        answer = entry.answer
        if isinstance(answer, httpx2.TransportError):
            raise type(answer)(str(answer), request=request)
        if not isinstance(answer, Answer):
            made = answer(sent)
            answer = made if isinstance(made, Answer) else Answer(made, checked=entry.checked)
        return _response(operation, answer, number=number)

    def _next(self, sent: SentRequest) -> tuple[_Entry, int]:
        """The line that is to answer, and the number of the request. Raises Unscripted."""
        with self._lock:
            self._requests.append(sent)
            entries = self._entries.get(sent.operation_id)
            while entries and entries[0].left == 0:
                entries.popleft()
            if not entries:
                raise Unscripted(self._unscripted(sent))
            entry = entries[0]
            if entry.left is not None:
                entry.left -= 1
            return entry, len(self._requests)

    def _unscripted(self, sent: SentRequest) -> str:
        name = sent.operation_id
        asked = sum(request.operation_id == name for request in self._requests)
        if name in self._entries:
            title = f"{name} was asked {asked} times, and the script has {asked - 1} answers for it"
        else:
            title = f"nothing is scripted for {name} ({sent.method} {sent.url})"
        others = [other for other in self._entries if other != name]
        hint = f"write: transport.on({name!r}, reply=example({name!r}))"
        return f"{title}; {hint}\nscripted besides: {', '.join(others) or 'nothing'}"


def _times(times: int | None) -> int | None:
    if times is not None and times < 1:
        raise ValueError(f"times={times}: an answer is for one request or more")
    return times


def _response(operation: Operation, answer: Answer, *, number: int = 0) -> httpx2.Response:
    status = operation.status if answer.status is None else answer.status
    reply = answer.reply
    if isinstance(reply, _Example):
        reply = _least(operation, status)
    content = checks.content_of(operation, reply, status, checked=answer.checked)
    headers = {"x-neon-ret-request-id": f"00000000-0000-4000-8000-{number:012}"}
    if content:
        headers["content-type"] = (
            operation.reply_media if isinstance(reply, bytes) and status < 400 else "application/json"
        )
    return httpx2.Response(status, headers={**headers, **answer.headers}, content=content)


def _least(operation: Operation, status: int) -> Any:
    if status >= 400:
        return {"code": "", "message": _MESSAGES.get(status, f"failed with status {status}")}
    if status == 204:
        return None
    return example(operation.id) if operation.reply is not None or operation.reply_media == "application/json" else b""
