"""What an error of the SDK means for a user of `lamp`: its exit status, and what to do. Pure.

Imported when the SDK has raised something, and so is loaded already.
"""

from __future__ import annotations

from lamplighter.cli.errors import (
    AUTHENTICATION,
    CONFLICT,
    FAILED,
    NOT_THERE,
    RATE_LIMITED,
    TIMED_OUT,
    Failure,
)
from lamplighter.client import errors as sdk
from lamplighter.client.waiting import DONE

#: The first that fits, so that the special stand before the general.
_STATUSES: tuple[tuple[type[BaseException], int], ...] = (
    (sdk.ConfigurationError, AUTHENTICATION),
    (sdk.AuthenticationError, AUTHENTICATION),
    (sdk.PermissionDenied, AUTHENTICATION),
    (sdk.NotFound, NOT_THERE),
    (sdk.Conflict, CONFLICT),
    (sdk.Locked, CONFLICT),
    (sdk.Ambiguous, CONFLICT),
    (sdk.RateLimited, RATE_LIMITED),
    (sdk.DeadlineExceeded, TIMED_OUT),
)

_HINTS: tuple[tuple[type[BaseException], str], ...] = (
    (
        sdk.AuthenticationError,
        "`lamp context` shows which server and key are used; NEON_API_KEY or `lamp login` set one",
    ),
    (sdk.PermissionDenied, "the key may not do this: use one of a person or organization that may"),
    (sdk.NotAvailable, "`lamp api --list` shows what Lamplighter's own server answers"),
    (sdk.Locked, "another operation is under way; `lamp operations list` shows it, and `--wait` waits for its end"),
    (sdk.UnreadableReply, "is this the address of a Neon API? `lamp context` shows it"),
    (sdk.ConnectionFailed, "is that server right, and running? `lamp context` shows where the address comes from"),
)


def failure_of_call(error: BaseException) -> Failure:
    """The failure that an error of the SDK stands for."""
    status = next((number for kind, number in _STATUSES if isinstance(error, kind)), FAILED)
    # The hint of this one error, else ours: those of the classes are for programs in Python.
    hint = (
        _of_operations(error)
        or vars(error).get("hint")
        or next((text for kind, text in _HINTS if isinstance(error, kind)), "")
    )
    if isinstance(error, sdk.RateLimited):
        hint = hint or _when(error)
    if not isinstance(error, sdk.APIError):
        return Failure(str(error), hint=hint, status=status)
    return Failure(
        # Whoever runs the server finds a fault of its own by the request.
        str(error) if isinstance(error, (sdk.ServerError, sdk.UnreadableReply)) else error.message,
        hint=hint,
        status=status,
        http_status=error.status,
        code=error.code or "",
        request_id=error.request_id,
    )


def _of_operations(error: BaseException) -> str:
    """What to do about operations that were waited for; the SDK's own hint is for programs in Python."""
    if isinstance(error, sdk.OperationFailed):
        project = error.operation.project_id
        return f"`lamp operations list --project-id {project}` shows what went before; mend the cause, and ask again"
    if not isinstance(error, sdk.DeadlineExceeded) or not error.operations:
        return ""
    running = [each for each in error.operations if each.status not in DONE]
    ids = "".join(f" {each.id}" for each in running)
    return f"they go on: `lamp operations wait{ids} --project-id {error.operations[0].project_id}` waits for them"


def _when(error: sdk.RateLimited) -> str:
    after = getattr(error, "retry_after", None)
    return f"try again in {after:g} s" if after else "try again later"
