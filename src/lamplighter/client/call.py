"""One call: waiting for its turn, sending, trying again, and what the answer means. No I/O: a driver does what it asks.

A driver runs `attempts(...)`, a generator: it does each `Step` and sends back what came of it, until the generator
returns the answer. What it raises are errors of `client.errors`. A driver that stops earlier closes it; what it had
taken is then given back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from lamplighter.api.secret import SHOWN, Secret
from lamplighter.client.errors import (
    APIError,
    ConnectionFailed,
    DeadlineExceeded,
    NeonError,
    NotAvailable,
    RateLimited,
    ServerError,
    UnreadableReply,
    by_status,
)
from lamplighter.client.options import Options, Timeouts
from lamplighter.client.pacing import Pacer, Turn
from lamplighter.client.payload import Payload, RawResponse
from lamplighter.client.retry import may_repeat, retry_after
from lamplighter.client.spec import JSON, Request, Spec

T = TypeVar("T")

#: Where servers say how they call a request in their logs.
_REQUEST_IDS: Final = ("x-neon-ret-request-id", "x-request-id")
_LONGEST_MESSAGE: Final = 2000
_LOOK_FIRST: Final = "it may have taken effect: look before you repeat it"


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request and read the answer: gives an `Answer` or a `Failure`. `left` is what the deadline leaves."""

    request: Request
    timeouts: Timeouts
    left: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds, or until the turn is nudged."""

    seconds: float
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sent. `broken` is set when its body did not come whole."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    payload: Payload
    request: Request
    request_id: str | None = None
    attempts: int = 1
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer came; `reason` holds no secret.

    `sent` tells whether the request may have reached the server; `late`, whether time was up; `lasting`, whether it
    would be the same again.
    """

    reason: str
    sent: bool
    late: bool = False
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """What a driver has and a pure function has not: clocks, chance, and the key, so that it can be struck out."""

    clock: Callable[[], float]
    wall: Callable[[], float]
    chance: Callable[[], float]
    key: Secret
    server: str = "the server"

    def hide(self, text: str) -> str:
        """The text without our key."""
        return text.replace(self.key.reveal(), SHOWN) if self.key else text


def answer_of(
    send: Send, world: World, head: tuple[int, Mapping[str, str]], payload: Payload, broken: str = ""
) -> Answer:
    """What a driver makes of what came; `broken` says why the body is not whole."""
    status, headers = head
    found = next((headers[name] for name in _REQUEST_IDS if name in headers), None)
    called = None if found is None else world.hide(found)
    return Answer(status, headers, payload, send.request, request_id=called, broken=broken)


Step = Send | Pause
Outcome = Answer | Failure | None
Attempts = Generator[Step, Outcome, Answer]
_Result = tuple[Answer | NeonError, float | None]


def attempts(request: Request, *, options: Options, pacer: Pacer | None, world: World) -> Attempts:
    """Everything that one call takes. Returns an answer that is a success.

    Raises:
        APIError: the server refused, and trying again would not help or was tried often enough.
        ConnectionFailed: no answer came.
        DeadlineExceeded: the deadline of `options` is over, or would be before the next attempt.
    """
    end = None if options.deadline is None else world.clock() + options.deadline
    call = _Call(request, options, pacer, world, end)
    while True:
        call.tried += 1
        result, delay = yield from call.attempt()
        if isinstance(result, Answer):
            return result
        if delay is None:
            raise result
        if call.too_late_after(delay):
            raise call.late(sent=False) from result
        # What went wrong, and all that it knows, is not to be kept while we wait.
        del result
        yield Pause(delay)


@dataclass(slots=True)
class _Call:
    request: Request
    options: Options
    pacer: Pacer | None
    world: World
    end: float | None
    tried: int = 0

    def left(self) -> float | None:
        """Seconds until the deadline. Raises DeadlineExceeded when there are none."""
        if self.end is None:
            return None
        left = self.end - self.world.clock()
        if left <= 0:
            raise self.late(sent=False)
        return left

    def too_late_after(self, delay: float) -> bool:
        return self.end is not None and self.world.clock() + delay >= self.end

    def attempt(self) -> Generator[Step, Outcome, _Result]:
        """An answer, or the error and how long to wait before another attempt (None: there is to be no other)."""
        if self.pacer is None:
            return self.judged((yield Send(self.request, self.options.timeouts, self.left())))
        turn = self.pacer.enter(self.request.operation_id, self.world.clock())
        sent = False
        try:
            while (seconds := self.pacer.wait(turn, self.world.clock())) is not None:
                left = self.left()
                yield Pause(seconds if left is None else min(seconds, left), turn)
            step = Send(self.request, self.options.timeouts, self.left())
            # A call that is cancelled from here on may yet arrive: its token is gone.
            sent = True
            outcome = yield step
            sent = not isinstance(outcome, Failure) or outcome.sent
            result, delay = self.judged(outcome)
            if isinstance(result, RateLimited):
                hold = delay if result.retry_after is None else result.retry_after
                # What this call does not wait for, others shall not either: each hears it from the server.
                self.pacer.refused(
                    turn, self.world.clock(), hold if hold and hold <= self.options.retry.longest else 0.0
                )
            return result, delay
        finally:
            (self.pacer.answered if sent else self.pacer.unsent)(turn, self.world.clock())

    def judged(self, outcome: Outcome) -> _Result:
        match outcome:
            case Answer(status=status) if 200 <= status < 300:
                if outcome.broken:
                    return self.failed(Failure(outcome.broken, sent=True))
                return (outcome if self.tried == 1 else replace(outcome, attempts=self.tried)), None
            case Answer():
                return self.refused(outcome)
            case Failure():
                return self.failed(outcome)
        raise TypeError(f"a driver answered {outcome!r} to Send")

    def refused(self, answer: Answer) -> _Result:
        headers = answer.headers
        after = retry_after(headers.get("retry-after"), date=headers.get("date"), wall=self.world.wall)
        error = error_of(answer, attempts=self.tried, after=after, hide=self.world.hide)
        if not may_repeat(safe=self.request.safe, status=answer.status):
            return error, None
        return error, self.options.retry.delay(self.tried, chance=self.world.chance(), after=after)

    def failed(self, failure: Failure) -> _Result:
        if failure.late:
            return self.late(sent=failure.sent), None
        error = ConnectionFailed(
            f"{failure.reason} ({self.request.operation_id})",
            sent=failure.sent,
            operation_id=self.request.operation_id,
            attempts=self.tried,
            hint=_LOOK_FIRST if failure.sent and not self.request.safe else None,
        )
        if failure.lasting or not may_repeat(safe=self.request.safe, sent=failure.sent):
            return error, None
        return error, self.options.retry.delay(self.tried, chance=self.world.chance(), connecting=not failure.sent)

    def late(self, *, sent: bool) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.request.operation_id} took longer than its deadline of {self.options.deadline:g} s",
            sent=sent,
            operation_id=self.request.operation_id,
            hint=_LOOK_FIRST if sent and not self.request.safe else None,
        )


def error_of(
    answer: Answer, *, attempts: int = 1, after: float | None = None, hide: Callable[[str], str] = str
) -> APIError:
    """The error that an answer stands for. Its body is Neon's object, or anything that a proxy may send."""
    said = _object(answer)
    code = hide(_string(said.get("code")))[:_LONGEST_MESSAGE]
    # Lamplighter says so of a part of an operation that it has; Neon has no such code.
    kind = NotAvailable if code == "NOT_AVAILABLE" else by_status(answer.status)
    message = hide(_string(said.get("message")))[:_LONGEST_MESSAGE]
    found = hide(_string(said.get("request_id"))) or answer.request_id
    error = kind(
        message or _without_words(answer),
        status=answer.status,
        code=code,
        request_id=found,
        operation_id=answer.request.operation_id,
        retry_after=after,
        attempts=attempts,
    )
    if isinstance(error, ServerError) and error.may_have_acted and not answer.request.safe:
        error.hint = _LOOK_FIRST
    if 300 <= answer.status < 400:
        error.hint = "is the base URL right? A redirect is not followed, since the key would go with it"
    return error


def _without_words(answer: Answer) -> str:
    return f"the server answered with status {answer.status}" + ("" if _is_json(answer) else " and no reason")


def _object(answer: Answer) -> Mapping[str, Any]:
    try:
        found = from_json(answer.payload.reveal())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def finish(spec: Spec[T], answer: Answer) -> T:
    """What a call returns. Raises UnreadableReply."""
    reply: Any = None
    if spec.reply_media != JSON:
        return answer.payload.reveal()  # type: ignore[return-value]  # such a Spec is a Spec[bytes]
    if spec.reply is None or (spec.no_content and (answer.status == 204 or not len(answer.payload))):
        return reply  # type: ignore[no-any-return]  # T is None, or has it
    wrong = ""
    try:
        reply = spec.adapter.validate_json(answer.payload.reveal())
    except ValidationError as error:
        # Places and kinds only: the texts of some of pydantic's errors repeat what came, as a password.
        wrong = _places(error)
    if wrong:
        raise unreadable(answer, wrong)
    return getattr(reply, spec.unwrap) if spec.unwrap else reply  # type: ignore[no-any-return]  # as the Spec says


def _places(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the reply'} ({each['type']})" for each in found[:3])


def unreadable(answer: Answer, wrong: str) -> UnreadableReply:
    """The error for a success that cannot be read. `wrong` says why."""
    media = answer.headers.get("content-type", "").partition(";")[0].strip()
    if not len(answer.payload):
        why = "its body is empty"
    elif not _is_json(answer) and media:
        why = f"it is {media[:80]}, not JSON"
    else:
        why = wrong
    acted = not answer.request.safe
    hint = "`payload` holds what came" if _is_json(answer) else "is the base URL that of a Neon API?"
    return UnreadableReply(
        f"the reply to {answer.request.operation_id} cannot be read: {why}",
        status=answer.status,
        request_id=answer.request_id,
        operation_id=answer.request.operation_id,
        may_have_acted=acted,
        payload=answer.payload,
        attempts=answer.attempts,
        hint=f"{_LOOK_FIRST}; {hint}" if acted else hint,
    )


def _is_json(answer: Answer) -> bool:
    return "json" in answer.headers.get("content-type", "json")


def raw_response(answer: Answer, parse: Callable[[], T]) -> RawResponse[T]:
    """The answer for who asked for it as it came."""
    return RawResponse(
        answer.status,
        answer.headers,
        answer.payload,
        parse=parse,
        operation_id=answer.request.operation_id,
        request_id=answer.request_id,
    )
