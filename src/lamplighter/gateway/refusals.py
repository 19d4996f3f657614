"""What a client is told that is not let in: an error of Postgres each, and the name under which it is counted. Pure.

Neon's sentences where Neon has the case (`wire/texts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from lamplighter.gateway.ports import WakeFailed
from lamplighter.gateway.wire import messages, texts

CANNOT_CONNECT_NOW = "57P03"
TOO_MANY = "53300"
CONNECTION_FAILURE = "08006"
UNSUPPORTED = "0A000"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A FATAL error. `reason` is counted; `code` is a SQLSTATE.

    `elsewhere` is what clients of other hosts get for message, detail and hint, where those tell how this host is
    inside; empty: they get the same.
    """

    reason: str
    code: str
    message: str
    detail: str = ""
    hint: str = ""
    elsewhere: str = ""

    def told(self, *, here: bool) -> Refusal:
        """What a client gets that is on this host, or is not."""
        return self if here or not self.elsewhere else Refusal(self.reason, self.code, self.elsewhere)

    def render(self) -> bytes:
        """The ErrorResponse."""
        return messages.error_response(
            "FATAL", self.code, self.message, detail=self.detail or None, hint=self.hint or None
        )


def unknown_endpoint() -> Refusal:
    return Refusal("unknown_endpoint", texts.ENDPOINT_NOT_FOUND_CODE, texts.ENDPOINT_NOT_FOUND)


def no_endpoint_named() -> Refusal:
    return Refusal("no_endpoint_named", texts.NO_ENDPOINT_CODE, texts.NO_ENDPOINT)


def disabled() -> Refusal:
    return Refusal("disabled", texts.DISABLED_CODE, texts.DISABLED)


def insecure() -> Refusal:
    return Refusal("insecure", texts.INSECURE_CODE, texts.INSECURE)


def not_allowed(address: str) -> Refusal:
    return Refusal("not_allowed", texts.IP_NOT_ALLOWED_CODE, texts.ip_not_allowed(address))


def no_pooler() -> Refusal:
    return Refusal(
        "no_pooler",
        UNSUPPORTED,
        "this server runs no connection pooler for the endpoint",
        hint="Connect to the endpoint's direct address, or install PgBouncer on the server and restart `lamp up`.",
    )


def busy() -> Refusal:
    return Refusal(
        "busy", TOO_MANY, "too many clients are connecting at this moment", hint="Try again in a few seconds."
    )


def too_many_waiting() -> Refusal:
    return Refusal(
        "busy", TOO_MANY, "too many clients are connecting to this endpoint at this moment", hint="Try again shortly."
    )


def too_many_connections(limit: int) -> Refusal:
    return Refusal(
        "too_many_connections",
        texts.TOO_MANY_CONNECTIONS_CODE,
        texts.TOO_MANY_CONNECTIONS,
        detail=f"The endpoint has {limit} connections, which is its limit.",
        hint="Close some, or use a connection pool.",
    )


def too_many_wakes(at_once: int, a_minute: int) -> Refusal:
    return Refusal(
        "too_many_wakes",
        TOO_MANY,
        "the endpoint sleeps, and too many have been woken from your address",
        detail=f"One address may wake {at_once} endpoints at once, and {a_minute} a minute after that.",
        hint="Try again in a minute. Endpoints that are awake serve you at once.",
    )


def relay_full(capacity: int) -> Refusal:
    return Refusal(
        "relay_full",
        TOO_MANY,
        "too many connections",
        detail=f"The server's relay has files for {capacity} connections, and as many are open.",
        hint="Try again later, or use the pooled address.",
    )


def other_endpoint(named: str) -> Refusal:
    return Refusal(
        "other_endpoint",
        texts.INTERNAL_ERROR,
        f"the options name the endpoint '{named}', and this is the address of another one",
        hint="Leave the endpoint out of the options, or connect to its own address.",
    )


def no_control_plane() -> Refusal:
    return Refusal(
        "no_control_plane",
        CANNOT_CONNECT_NOW,
        "the endpoint sleeps and cannot be started: the control plane does not answer",
        hint="See `lamp status` on the server; `lamp up` starts the control plane.",
    )


def no_verifier(why: str) -> Refusal:
    return Refusal(
        "no_verifier",
        CANNOT_CONNECT_NOW,
        f"your password cannot be checked: {why}",
        hint="Connect to the endpoint's direct address, or try again later.",
    )


def too_slow(seconds: float) -> Refusal:
    return Refusal(
        "wake_timeout",
        CANNOT_CONNECT_NOW,
        f"the endpoint was not ready within {seconds:g} seconds",
        hint="Try again; `lamp operations list` on the server tells what it does.",
    )


def wake_failed(failure: WakeFailed) -> Refusal:
    return Refusal(
        "wake_failed",
        failure.code,
        failure.message,
        failure.detail,
        failure.hint,
        elsewhere=f"{failure.message}; the server's operator finds why in the platform's log, by {failure.endpoint_id}",
    )


def not_passed_on() -> Refusal:
    return Refusal(
        "not_passed_on",
        CANNOT_CONNECT_NOW,
        "the gateway could not pass the connection on",
        hint="Try again; the gateway's log on the server says why.",
    )


def backend_silent() -> Refusal:
    return Refusal(
        "backend_silent",
        CONNECTION_FAILURE,
        "the endpoint's compute does not answer",
        hint="See its log on the server, and restart the endpoint.",
    )
