"""What can go wrong when the client talks to a server.

    NeonError
    ├── ConfigurationError       which server, or which key, is not clear
    ├── APIError                 the server refused; any status with no class of its own
    │   ├── BadRequest 400 (406, 412, 413, 422)   ├── Conflict 409
    │   ├── AuthenticationError 401               ├── Locked 423
    │   ├── PermissionDenied 403                  ├── RateLimited 429
    │   ├── NotFound 404                          ├── ServerError 5xx
    │   ├── NotAvailable 405, 501 (422 by code)   └── UnreadableReply 2xx that is not what the contract says
    ├── ConnectionFailed         no answer came
    ├── DeadlineExceeded         the time that the caller gave was over
    ├── OperationFailed          an operation that was waited for did not finish well
    └── Ambiguous                one was meant, and none or several were found

No error holds a secret: the key in what a server says is replaced by ***, and bodies are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lamplighter.api.models.operations import Operation
    from lamplighter.client.payload import Payload


#: Statuses that say that nothing was done: the same request may be sent again, whatever its method.
RETRYABLE: Final = frozenset({423, 429, 503})


class NeonError(Exception):
    """Anything that this client raises about a server."""

    hint: str | None = None

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        self.message = message or self.default()
        if hint is not None:
            self.hint = hint
        super().__init__(self.message)

    @classmethod
    def default(cls) -> str:
        """The text where none is given: the first line of the class's docstring."""
        return (cls.__doc__ or cls.__name__).splitlines()[0].rstrip(".")


class ConfigurationError(NeonError):
    """It is not clear which server to talk to, or with which key."""


class APIError(NeonError):
    """The server refused the request.

    `status` is that of HTTP; `code` is the server's word for it (often empty); `request_id` names the request in the
    server's logs. `retry_after` is in seconds, where the server said so. `attempts` is how often it was sent.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int = 0,
        code: str = "",
        request_id: str | None = None,
        operation_id: str = "",
        retry_after: float | None = None,
        attempts: int = 1,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.operation_id = operation_id
        self.retry_after = retry_after
        self.attempts = attempts

    @property
    def retryable(self) -> bool:
        """Whether the server surely did nothing, and may do it if it is asked again."""
        return self.status in RETRYABLE

    def __str__(self) -> str:
        facts = [f"{self.status}" if self.status else "", self.code, self.operation_id]
        if self.request_id:
            facts.append(f"request {self.request_id}")
        known = ", ".join(fact for fact in facts if fact)
        return f"{self.message} ({known})" if known else self.message


class BadRequest(APIError):
    """The server does not accept the request as it is."""


class AuthenticationError(APIError):
    """The server does not know this key."""

    hint = "check that the key was made on this server and has not been revoked"


class PermissionDenied(APIError):
    """The key is good, but may not do this."""


class NotFound(APIError):
    """There is no such resource, or none that this key may know of."""


class NotAvailable(APIError):
    """This server does not have the operation, or not the part of it that was asked for."""


class Conflict(APIError):
    """Something of that name, or in that role, exists already."""


class Locked(APIError):
    """Operations of the project are still running; nothing was changed."""

    hint = "wait for them (neon.operations.wait), or ask again in a moment"


class RateLimited(APIError):
    """The account asks too often. `retry_after` is in seconds, None where the server did not say."""


class ServerError(APIError):
    """The server failed. Whether the request took effect is not known, but for 503: that did nothing."""

    @property
    def may_have_acted(self) -> bool:
        """Whether the request may have taken effect."""
        return self.status != 503


class UnreadableReply(APIError):
    """The server said that all went well, but what it sent is not what the contract says.

    `may_have_acted` is True when the request may have changed something; `payload` is what came, for who wants to find
    out: it does not show itself.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int = 0,
        request_id: str | None = None,
        operation_id: str = "",
        may_have_acted: bool = False,
        payload: Payload | None = None,
        attempts: int = 1,
        hint: str | None = None,
    ) -> None:
        super().__init__(
            message, status=status, request_id=request_id, operation_id=operation_id, attempts=attempts, hint=hint
        )
        self.may_have_acted = may_have_acted
        self.payload = payload


class ConnectionFailed(NeonError):
    """No answer came from the server.

    `sent` is False when the request never reached it, so that it is safe to repeat, and True when it may have acted.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        sent: bool = False,
        operation_id: str = "",
        attempts: int = 1,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.sent = sent
        self.operation_id = operation_id
        self.attempts = attempts


class DeadlineExceeded(NeonError):
    """The time given for the call was over.

    `sent` is True when a request that had no answer yet may have acted. Where operations were waited for, `operations`
    holds them as they were seen last, and `reply` what the call that began them was answered.
    """

    reply: object = None

    def __init__(
        self,
        message: str | None = None,
        *,
        sent: bool = False,
        operation_id: str = "",
        operations: Sequence[Operation] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.sent = sent
        self.operation_id = operation_id
        self.operations = tuple(operations)


class OperationFailed(NeonError):
    """An operation that was waited for failed or was cancelled.

    `operation` is as it was seen last; `reply` is what the call that began it was answered, None where it was waited
    for by itself.
    """

    reply: object = None

    def __init__(self, message: str | None = None, *, operation: Operation, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.operation = operation

    @property
    def error(self) -> str | None:
        """What the server says of the failure."""
        return self.operation.error


class Ambiguous(NeonError):
    """One resource was meant, but none or several fit. `ids` are those (names, where they have no ids)."""

    def __init__(self, message: str | None = None, *, ids: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.ids = tuple(ids)


#: Every status that has a class; other 5xx are a ServerError, anything else an APIError.
BY_STATUS: Mapping[int, type[APIError]] = MappingProxyType(
    {
        400: BadRequest,
        401: AuthenticationError,
        403: PermissionDenied,
        404: NotFound,
        405: NotAvailable,
        406: BadRequest,
        409: Conflict,
        412: BadRequest,
        413: BadRequest,
        422: BadRequest,
        423: Locked,
        429: RateLimited,
        501: NotAvailable,
    }
)


def by_status(status: int) -> type[APIError]:
    """The class for a status that is not a success."""
    return BY_STATUS.get(status) or (ServerError if 500 <= status < 600 else APIError)
