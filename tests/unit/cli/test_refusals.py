"""What errors of the SDK mean for a user of the command."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lamplighter.api.models.operations import Operation
from lamplighter.cli.commands import wants_json
from lamplighter.cli.errors import Failure, failure_of
from lamplighter.client import errors as sdk

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def operation() -> Operation:
    return Operation.model_construct(
        id="op", project_id="p", action="start_compute", status="failed", error="no space", created_at=NOW
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (sdk.ConfigurationError("no key"), 5),
        (sdk.BadRequest("no", status=400), 1),
        (sdk.BadRequest("no", status=422), 1),
        (sdk.AuthenticationError("no", status=401), 5),
        (sdk.PermissionDenied("no", status=403), 5),
        (sdk.NotFound("no", status=404), 3),
        (sdk.NotAvailable("no", status=501), 1),
        (sdk.Conflict("no", status=409), 4),
        (sdk.Locked("no", status=423), 4),
        (sdk.RateLimited("no", status=429), 6),
        (sdk.ServerError("no", status=500), 1),
        (sdk.UnreadableReply("no", status=200), 1),
        (sdk.ConnectionFailed("no"), 1),
        (sdk.DeadlineExceeded("no"), 7),
        (sdk.OperationFailed("no", operation=operation()), 1),
        (sdk.Ambiguous("no", ids=("a", "b")), 4),
        (sdk.NeonError("no"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_error_has_its_exit_status(error: Exception, status: int) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.exit_code == status
    assert "no" in failure.message


def test_every_class_of_the_sdk_is_told() -> None:
    """None of them gets out as a traceback."""
    kinds = [kind for kind in vars(sdk).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 15
    for kind in kinds:
        error: Any = kind("no", operation=operation()) if kind is sdk.OperationFailed else kind("no")
        assert failure_of(error) is not None, kind


def test_the_facts_of_an_answer_are_in_the_json() -> None:
    error = sdk.NotFound("branch not found", status=404, code="X", request_id="r-1", operation_id="getProjectBranch")
    failure = failure_of(error)
    assert failure is not None
    facts = json.loads(failure.as_json())["error"]
    assert {name: facts[name] for name in ("status", "code", "message", "exit_code", "request_id")} == {
        "status": 404,
        "code": "X",
        "message": "branch not found",
        "exit_code": 3,
        "request_id": "r-1",
    }


def test_hints_speak_of_the_command() -> None:
    """And not of Python, for those who have none."""
    for kind in (sdk.Locked, sdk.AuthenticationError, sdk.NotAvailable, sdk.ConnectionFailed, sdk.RateLimited):
        failure = failure_of(kind("no"))
        assert failure is not None
        assert failure.hint
        assert "neon." not in failure.hint


def test_what_goes_on_is_waited_for_with_the_command() -> None:
    """The ids and the project are named: the command that gave up printed neither."""
    ended, running = (
        Operation.model_construct(id=id_, project_id="p-1", action="start_compute", status=status, error=None)
        for id_, status in (("op-1", "finished"), ("op-2", "running"))
    )
    late = failure_of(sdk.DeadlineExceeded("no", operations=[ended, running], hint="neon.operations.wait(...)"))
    assert late is not None
    assert late.hint == "they go on: `lamp operations wait op-2 --project-id p-1` waits for them"
    failed = failure_of(sdk.OperationFailed("no", operation=running, hint="neon.operations.list(project_id)"))
    assert failed is not None
    assert "`lamp operations list --project-id p-1`" in failed.hint
    alone = failure_of(sdk.DeadlineExceeded("no"))
    assert alone is not None
    assert "operations" not in alone.hint


def test_a_hint_of_the_one_error_comes_first() -> None:
    failure = failure_of(sdk.ConnectionFailed("no", sent=True, hint="it may have taken effect"))
    assert failure is not None
    assert failure.hint == "it may have taken effect"


def test_a_limit_says_when_to_come_back() -> None:
    failure = failure_of(sdk.RateLimited("no", status=429, retry_after=300.0))
    assert failure is not None
    assert failure.hint == "try again in 300 s"


def test_what_a_server_says_reaches_no_terminal_raw() -> None:
    failure = Failure("bad\x1b]0;title\x07 name\nsecond", hint="\x9bhint")
    assert failure.format_message() == "bad\\x1b]0;title\\x07 name\nsecond"
    assert "\x1b" not in failure.as_json()
    assert json.loads(failure.as_json())["error"]["message"] == failure.message


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["me"], False),
        (["me", "-o", "json"], True),
        (["me", "-ojson"], True),
        (["me", "--output", "json"], True),
        (["me", "--output=json"], True),
        (["me", "-o", "json", "-o", "table"], False),
        (["me", "-o"], False),
        (["me", "-o", "yaml"], False),
        (["psql", "--", "-o", "json"], False),
    ],
)
def test_json_is_asked_for_on_the_command_line(words: list[str], asked: bool) -> None:
    assert wants_json(words) is asked
