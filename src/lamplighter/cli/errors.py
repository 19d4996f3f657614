"""What a user is told when something fails, and with which exit status `lamp` ends.

click.ClickException
└── Failure          `hint`, `exit_code`: 1 failed, 3 not found or not running
(click.UsageError    exit status 2, by click itself)
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import click

FAILED = 1
NOT_THERE = 3

_USER_HINT = "run it as the user whose platform this is, or name another directory with --data-dir"
_CATALOG_HINT = "check --catalog-url (LAMP_CATALOG_URL), or leave it out to have a catalog of the platform's own"


class Failure(click.ClickException):
    """Printed as `Error: ...`, and below it, when there is more to say, `Hint: ...`."""

    def __init__(self, message: str, *, hint: str = "", status: int = FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code: int = status  # type: ignore[misc] # click has it on the class, and reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {self.format_message()}", file=file, err=True)
        if self.hint:
            click.echo(f"Hint: {self.hint}", file=file, err=True)


def failure_of(error: BaseException) -> Failure | None:
    """The failure that an expected error stands for; None for a fault of ours, which must be seen whole.

    Errors that one of our packages defines tell what is the case, and so do those of the host and of the catalog.
    """
    if isinstance(error, Failure):
        return error
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    package = type(error).__module__.partition(".")[0]
    if package == "lamplighter":
        return Failure(str(error))
    if package in ("psycopg", "psycopg_pool"):
        # What libpq says of an address that it cannot read repeats all of it, and so the password.
        said = "its address cannot be read" if type(error).__name__ == "ProgrammingError" else str(error).strip()
        return Failure(f"the catalog cannot be used: {said}", hint=_CATALOG_HINT)
    if isinstance(error, OSError):
        return Failure(describe_os_error(error), hint=_USER_HINT if isinstance(error, PermissionError) else "")
    return None


def describe_os_error(error: OSError) -> str:
    """`PATH: what is the case`, without the number of the error."""
    said = error.strerror or str(error)
    names = [str(Path(name)) for name in (error.filename, error.filename2) if isinstance(name, (str, Path))]
    return f"{' -> '.join(names)}: {said}" if names else said


def _missing(error: ModuleNotFoundError) -> Failure | None:
    if error.name is None or error.name.startswith("lamplighter"):
        return None
    return Failure(f"this needs the platform, and {error.name} is missing", hint="pip install 'lamplighter[platform]'")
