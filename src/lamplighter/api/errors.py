"""What the API says when it cannot do as asked: one class for each status, the body as Neon sends it.

    ApiError
    ├── BadRequest 400            ├── PayloadTooLarge 413
    ├── Unauthenticated 401       ├── Unprocessable 422
    ├── PermissionDenied 403      ├── Locked 423             safe to retry, always
    ├── NotFound 404              ├── TooManyRequests 429    `retry_after`; safe to retry, always
    ├── MethodNotAllowed 405      ├── InternalError 500
    ├── NotAcceptable 406         ├── NotServed 501
    ├── Conflict 409              └── Unavailable 503        `retry_after`; safe to retry, always
    └── PreconditionFailed 412

`default` is the text where none is given. Clients match on some of these, so they are Neon's where Neon's are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Self


class ApiError(Exception):
    """Any answer of the API that is not a success. A status with no class of its own arrives as this one."""

    status: int = 500
    default: ClassVar[str] = "the request failed"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str = "",
        request_id: str | None = None,
        status: int | None = None,
    ) -> None:
        self.message = self.default if message is None else message
        self.code = code
        self.request_id = request_id
        if status is not None:
            self.status = status
        super().__init__(self.message)

    def body(self) -> dict[str, str]:
        """The JSON object of the answer; `request_id` is left out while it is not known."""
        known = {} if self.request_id is None else {"request_id": self.request_id}
        return {**known, "code": self.code, "message": self.message}

    def with_request_id(self, request_id: str) -> Self:
        """The same error, marked with the id of the request that it answers."""
        self.request_id = request_id
        return self


class BadRequest(ApiError):
    """The request breaks the contract: not JSON, a field missing, of the wrong type or out of its limits."""

    status = 400
    default = "invalid request"

    @classmethod
    def undecodable(cls, reason: str) -> Self:
        """The text that Neon gives for a body it cannot read, e.g. `project (field required)`."""
        return cls(f"invalid request: decode application/json: invalid: {reason}")


class Unauthenticated(ApiError):
    """No key was sent, or one that is unknown or revoked; the server does not say which."""

    status = 401
    default = "supplied credentials do not pass authentication"


class PermissionDenied(ApiError):
    """The key is good, but may not do this."""

    status = 403
    default = "not allowed to perform this action"


class NotFound(ApiError):
    """There is no such resource, or none that this key may know of."""

    status = 404
    default = "not found"


class MethodNotAllowed(ApiError):
    """The path exists, but not for this method."""

    status = 405
    default = "method not allowed"


class NotAcceptable(ApiError):
    """A limit of the plan or of the requested range is in the way."""

    status = 406
    default = "the request cannot be satisfied"


class Conflict(ApiError):
    """Something of that name, or in that role, exists already."""

    status = 409
    default = "already exists"


class PreconditionFailed(ApiError):
    """The project's settings forbid it, as revealing a password that is not stored."""

    status = 412
    default = "password storage disabled"


class PayloadTooLarge(ApiError):
    """The body is larger than the server reads."""

    status = 413
    default = "request body is too large"


class Unprocessable(ApiError):
    """Well formed, but a limit or rule forbids it; `code` names which, e.g. `BRANCHES_LIMIT_EXCEEDED`."""

    status = 422
    default = "the request cannot be processed"


class Locked(ApiError):
    """Operations of the project are still running. Nothing was changed: ask again in a moment."""

    status = 423
    default = "project already has running conflicting operations, scheduling of new ones is prohibited"
    retryable = True


class _Later(ApiError):
    retryable = True

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message, code=code, request_id=request_id, status=status)
        self.retry_after = retry_after


class TooManyRequests(_Later):
    """The account asks too often; `retry_after` is in seconds, None where the server did not say."""

    status = 429
    default = "too many requests: rate limit exceeded"


class InternalError(ApiError):
    """A fault of the server. Whether the request took effect is not known."""

    status = 500
    default = "internal server error"


class NotServed(ApiError):
    """An operation of the contract that this server does not have."""

    status = 501
    default = "this operation is not available on this server"

    @classmethod
    def operation(cls, operation_id: str) -> Self:
        """Names the operation; the words "not available" let Neon's CLI go on without it."""
        return cls(f"{operation_id} is not available on this server")


class Unavailable(_Later):
    """The server cannot answer now. Nothing was changed: ask again."""

    status = 503
    default = "service is temporarily unavailable"


#: Every status that has a class of its own.
BY_STATUS: Mapping[int, type[ApiError]] = MappingProxyType(
    {
        kind.status: kind
        for kind in (
            BadRequest,
            Unauthenticated,
            PermissionDenied,
            NotFound,
            MethodNotAllowed,
            NotAcceptable,
            Conflict,
            PreconditionFailed,
            PayloadTooLarge,
            Unprocessable,
            Locked,
            TooManyRequests,
            InternalError,
            NotServed,
            Unavailable,
        )
    }
)
