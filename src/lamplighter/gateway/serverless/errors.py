"""What a caller of SQL over HTTP is told. The texts that clients may know are Neon's.

ServerlessError              `status`: of HTTP; only of a 400 does Neon's driver read the body's fields
├── BadRequest               400: something is wrong with the request itself
│   ├── BadConnectionString
│   └── NotAvailable         a part of Neon that is not served here
├── UnknownHost              400: no endpoint of ours (`host`)
├── NotAllowed               400: the endpoint's `allowed_ips` do not name this address (`client`)
├── TooManyIterations        400: a role's password asks for too many iterations of SCRAM (`iterations`, `limit`)
├── RequestTooLarge          413 (`limit`)
├── RequestTooSlow           408 (`seconds`)
├── ResponseTooLarge         507 (`limit`)
├── TooBusy                  503: try again later
├── BadAnswer                500: Postgres sent what is no UTF-8
├── SqlFailed                400: an error of Postgres with all its fields (`fields`)
└── ConnectionLost           500: it ended in the middle, or was never made
"""
# ruff: noqa: D415 - a class docstring is its message, and the messages are Neon's

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lamplighter.gateway.refusals import Refusal
from lamplighter.gateway.wire import texts


class ServerlessError(Exception):
    """the request could not be served"""

    status: ClassVar[int] = 400

    def __init__(self, message: str | None = None) -> None:
        self.message = (type(self).__doc__ or "").strip() if message is None else message
        super().__init__(self.message)

    @property
    def fields(self) -> Mapping[str, str | None]:
        """Fields of an error of Postgres beside its message, named as node-postgres names them."""
        return {}


class BadRequest(ServerlessError):
    """could not parse the HTTP request body"""


class BadConnectionString(BadRequest):
    """invalid connection string"""


class NotAvailable(BadRequest):
    """not available on this server"""


class UnknownHost(ServerlessError):
    """no such endpoint"""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(texts.ENDPOINT_NOT_FOUND)


class NotAllowed(ServerlessError):
    """this address may not come in"""

    def __init__(self, client: str) -> None:
        self.client = client
        super().__init__(texts.ip_not_allowed(client))


class TooManyIterations(ServerlessError):
    """the role's password asks for too many iterations of SCRAM"""

    def __init__(self, iterations: int, limit: int) -> None:
        self.iterations = iterations
        self.limit = limit
        super().__init__(
            f"the role's password asks for {iterations} iterations of SCRAM, and at most {limit} are done here: "
            "set scram_iterations lower and the password anew"
        )


class RequestTooLarge(ServerlessError):
    """request is too large"""

    status = 413

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"request is too large (max is {limit} bytes)")


class RequestTooSlow(ServerlessError):
    """request took too long to arrive"""

    status = 408

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"request took longer than {seconds:g} seconds to arrive")


class ResponseTooLarge(ServerlessError):
    """response is too large"""

    status = 507

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"response is too large (max is {limit} bytes)")


class TooBusy(ServerlessError):
    """too many requests are being served already; try again later"""

    status = 503


class BadAnswer(ServerlessError):
    """could not parse postgres response"""

    status = 500


class SqlFailed(ServerlessError):
    """Postgres refused"""

    def __init__(self, message: str, fields: Mapping[str, str | None]) -> None:
        self._fields = dict(fields)
        super().__init__(message)

    @classmethod
    def of(cls, refusal: Refusal) -> SqlFailed:
        """What the gateway would tell a client of Postgres."""
        fields = {"severity": "FATAL", "code": refusal.code, "detail": refusal.detail, "hint": refusal.hint}
        return cls(refusal.message, fields)

    @property
    def fields(self) -> Mapping[str, str | None]:
        return self._fields


class ConnectionLost(ServerlessError):
    """the connection to the endpoint was lost"""

    status = 500
