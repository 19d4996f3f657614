"""`lamp operations`: what goes on in a project, and waiting for its end."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import Column, emit
from lamplighter.cli.session import WAIT_SECONDS, api_command
from lamplighter.cli.text import NOTHING, human_duration, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamplighter.api.models.operations import Operation
    from lamplighter.cli.session import Session

ENDED = frozenset({"finished", "failed", "error", "cancelled", "skipped"})


def _took(milliseconds: object) -> str:
    if not isinstance(milliseconds, (int, float)):
        return NOTHING
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else human_duration(milliseconds / 1000)


COLUMNS = (
    Column("id"),
    Column("action"),
    Column("status"),
    Column("branch_id", "Branch"),
    Column("endpoint_id", "Endpoint"),
    Column("created_at", "Created"),
    Column("total_duration_ms", "Took", right=True, show=_took),
    Column("error"),
)


@click.group(cls=NearGroup)
def operations() -> None:
    """List operations, and wait for them.

    \b
    Examples:
      lamp operations list
      lamp operations wait
    """  # noqa: D301 - click wants the character itself


@operations.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@api_command(project=True)
def list_(session: Session, limit: int) -> None:
    """List the operations of a project, newest first.

    \b
    Examples:
      lamp operations list --limit 20
      lamp operations list --output json | jq '.[] | select(.status == "failed")'
    """  # noqa: D301 - click wants the character itself
    pager = session.neon.operations.list(session.project_id(), limit=min(limit, 1000))
    found = list(itertools.islice(pager, limit))
    emit(session, found, COLUMNS, empty="There are no operations.")


@operations.command()
@click.argument("id_", metavar="ID")
@api_command(project=True)
def get(session: Session, id_: str) -> None:
    """Show one operation.

    \b
    Examples:
      lamp operations get 3f0c2a1e-6f0c-4b57-9f62-6a8f2f1f3c55
    """  # noqa: D301 - click wants the character itself
    emit(session, session.neon.operations.get(session.project_id(), id_), COLUMNS)


@operations.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@api_command(project=True)
def wait(session: Session, ids: tuple[str, ...], timeout: float) -> None:
    """Wait until operations have ended; without ids, all that are under way in the project.

    Prints them as they ended.

    Exit status: 0 all have ended well, 1 one has failed, 7 they still go on.

    \b
    Examples:
      lamp operations wait
      lamp operations wait 3f0c2a1e-6f0c-4b57-9f62-6a8f2f1f3c55 --timeout 60
    """  # noqa: D301 - click wants the character itself
    neon, project = session.neon, session.project_id()
    awaited: Sequence[Operation | str] = ids
    if not ids:
        # Oldest first, as they are worked on.
        listed = reversed(neon.operations.list(project, limit=1000).page().items)
        awaited = [one for one in listed if one.status not in ENDED]
    with session.waiting(f"Waiting for {plural(len(awaited), 'operation')}"):
        ended = neon.operations.wait(project, awaited, timeout=timeout)
    emit(session, ended, COLUMNS, empty="Nothing is under way.")
