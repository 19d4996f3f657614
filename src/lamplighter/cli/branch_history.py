"""`lamp branches reset`, `restore` and `recover`: what a branch was before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.changed import given, perform
from lamplighter.cli.finding import find_branch, find_source, parent_of, settled
from lamplighter.cli.groups import Command
from lamplighter.cli.output import Column, emit, plain_of
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.shown import below, branch_columns
from lamplighter.cli.values import BranchAt, Source

if TYPE_CHECKING:
    from lamplighter.api.models.branches import Branch

_COLUMNS = (*below("branch", branch_columns()), Column("backup.id", "kept as"), Column("backup.name", "kept under"))
_PRESERVE = click.option("--preserve-under-name", help="Keep what the branch has now in a branch of this name.")


@click.command(cls=Command)
@click.argument("branch", metavar="NAME|ID")
@click.option("--parent", is_flag=True, help="To the parent as it is now: the only kind of reset there is.")
@_PRESERVE
@api_command(project=True, waits=True, destructive=True)
def reset(session: Session, *, branch: str, parent: bool, preserve_under_name: str | None) -> None:
    """Give a branch its parent's data.

    As that is now. Its name, id and endpoints stay.

    \b
    Examples:
      lamp branches reset dev --parent
      lamp branches reset dev --parent --preserve-under-name dev-before
    """  # noqa: D301 - click wants the character itself
    if not parent:
        raise click.UsageError("say what to reset to: --parent")
    target = find_branch(session, branch)
    _restore(session, target, parent_of(session, target), None, preserve_under_name)


@click.command(cls=Command)
@click.argument("branch", metavar="NAME|ID")
@click.argument("source", metavar="SOURCE[@POINT]", type=BranchAt())
@_PRESERVE
@api_command(project=True, waits=True, destructive=True)
def restore(session: Session, *, branch: str, source: Source, preserve_under_name: str | None) -> None:
    """Give a branch the data of another, or of its own past.

    It gets what SOURCE has, or had at a time or LSN. Its name, id and endpoints stay. SOURCE is a branch, or
    ^self or ^parent. A branch that is restored from itself needs --preserve-under-name.

    \b
    Examples:
      lamp branches restore main ^self@2026-01-31T12:00:00Z --preserve-under-name main-before
      lamp branches restore dev main@0/1A2B3C4
      lamp branches restore dev ^parent
    """  # noqa: D301 - click wants the character itself
    target = find_branch(session, branch)
    origin = find_source(session, source, of=target)
    if origin.id == target.id and source.point is None:
        raise click.UsageError("a branch is restored from itself at a point of its past: ^self@POINT")
    if origin.id == target.id and preserve_under_name is None:
        raise click.UsageError("a branch that is restored from itself needs --preserve-under-name")
    _restore(session, target, origin, source.point, preserve_under_name)


def _restore(session: Session, target: Branch, origin: Branch, point: Any, preserve_as: str | None) -> None:
    project = session.project_id()
    when = f" at {point}" if point is not None else ""
    kept = f"kept in branch {preserve_as}" if preserve_as else "lost"
    session.confirm([f"branch {target.name} ({target.id}) gets the data of {origin.name}{when}; what it has is {kept}"])
    reply = perform(
        session,
        f"Restoring {target.name}",
        lambda: session.neon.branches.restore(
            project, target.id, source=origin.id, wait=session.wait, **given(at=point, preserve_as=preserve_as)
        ),
    )
    told = plain_of(settled(session, reply))
    backup = told["branch"].get("parent_id")
    if preserve_as and backup:
        told["backup"] = plain_of(session.neon.branches.get(project, backup))
    emit(session, told, _COLUMNS if "backup" in told else below("branch", branch_columns()))


@click.command(cls=Command)
@click.argument("branch", metavar="ID")
@api_command(project=True, changes=True)
def recover(session: Session, *, branch: str) -> None:
    """Bring a deleted branch back.

    Servers that can do this keep it for a while.

    \b
    Examples:
      lamp branches list --include-deleted
      lamp branches recover br-quiet-moon-12345678
    """  # noqa: D301 - click wants the character itself
    emit(session, session.neon.branches.recover(session.project_id(), branch), below("branch", branch_columns()))
