"""What a user is told when something fails, and with which exit status `lamp` ends.

click.ClickException
└── Failure          `hint`, `exit_code`, and of an answer of the API `http_status`, `code`, `request_id`
(click.UsageError    exit status 2, by click itself)

Statuses: 0 done, 1 failed, 2 wrong usage, 3 not found (or not running), 4 conflict or locked, 5 authentication,
6 rate limited, 7 timed out, 130 interrupted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import click

from lamplighter.cli.harmless import clean, escape_json

FAILED = 1
USAGE = 2
NOT_THERE = 3
CONFLICT = 4
AUTHENTICATION = 5
RATE_LIMITED = 6
TIMED_OUT = 7
INTERRUPTED = 130

_USER_HINT = "run it as the user whose platform this is, or name another directory with --data-dir"
_CATALOG_HINT = "check --catalog-url (LAMP_CATALOG_URL), or leave it out to have a catalog of the platform's own"


class Failure(click.ClickException):
    """Printed as `Error: ...`, and below it, when there is more to say, `Hint: ...`."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int = FAILED,
        http_status: int | None = None,
        code: str = "",
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code: int = status  # type: ignore[misc] # click has it on the class, and reads it from the instance
        self.http_status = http_status
        self.code = code
        self.request_id = request_id

    def format_message(self) -> str:
        """The message with what a server may have put into it made harmless for a terminal."""
        return "\n".join(clean(line) for line in self.message.splitlines())

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {self.format_message()}", file=file, err=True)
        if self.hint:
            click.echo(f"Hint: {clean(self.hint)}", file=file, err=True)

    def as_json(self) -> str:
        """The same for programs, on one line."""
        facts: dict[str, Any] = {
            "status": self.http_status,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }
        if self.request_id:
            facts["request_id"] = self.request_id
        return escape_json(json.dumps({"error": facts}, ensure_ascii=False))


def failure_of(error: BaseException) -> Failure | None:
    """The failure that an expected error stands for; None for a fault of ours, which must be seen whole.

    Errors that one of our packages defines tell what is the case, and so do those of the host and of the catalog.
    """
    if isinstance(error, Failure):
        return error
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    module = type(error).__module__
    if module.startswith("lamplighter.client"):
        from lamplighter.cli.refusals import failure_of_call  # noqa: PLC0415 - the SDK is loaded: it raised this

        return failure_of_call(error)
    if module.startswith("lamplighter."):
        return Failure(str(error))
    if module.partition(".")[0] in ("psycopg", "psycopg_pool"):
        return _of_catalog(error)
    return _of_host(error) if isinstance(error, OSError) else None


def _of_host(error: OSError) -> Failure | None:
    if isinstance(error, BrokenPipeError):
        return None  # click ends the command without a word: nobody reads any more
    return Failure(describe_os_error(error), hint=_USER_HINT if isinstance(error, PermissionError) else "")


def _of_catalog(error: BaseException) -> Failure:
    # What libpq says of an address that it cannot read repeats all of it, and so the password.
    said = "its address cannot be read" if type(error).__name__ == "ProgrammingError" else str(error).strip()
    return Failure(f"the catalog cannot be used: {said}", hint=_CATALOG_HINT)


def describe_os_error(error: OSError) -> str:
    """`PATH: what is the case`, without the number of the error."""
    said = error.strerror or str(error)
    names = [str(Path(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, Path))]
    return f"{' -> '.join(names)}: {said}" if names else said


def _missing(error: ModuleNotFoundError) -> Failure | None:
    if error.name is None or error.name.startswith("lamplighter"):
        return None
    return Failure(f"this needs the platform, and {error.name} is missing", hint="pip install 'lamplighter[platform]'")
