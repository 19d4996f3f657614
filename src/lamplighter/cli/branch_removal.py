"""`lamp branches delete`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.changed import gone, perform
from lamplighter.cli.errors import CONFLICT, Failure
from lamplighter.cli.finding import PAGE, find_branch
from lamplighter.cli.groups import Command
from lamplighter.cli.output import Column, emit
from lamplighter.cli.planned import in_turn
from lamplighter.cli.session import WAIT_SECONDS, Session, api_command
from lamplighter.cli.tree import Node, draw

if TYPE_CHECKING:
    from lamplighter.api.models.branches import Branch

_COLUMNS = (Column("branch.id", "id"), Column("branch.name", "name"), Column("deleted"))


@click.command(cls=Command)
@click.argument("branch", metavar="NAME|ID")
@click.option("--recursive", is_flag=True, help="Delete its children too, and theirs, the last ones first.")
@api_command(project=True, waits=True, destructive=True)
def delete(session: Session, *, branch: str, recursive: bool) -> None:
    """Delete a branch with its endpoints, databases and roles.

    \b
    Examples:
      lamp branches delete dev
      lamp branches delete pr-42 --recursive --yes
    """  # noqa: D301 - click wants the character itself
    found = find_branch(session, branch)
    everything = list(session.neon.branches.list(session.project_id(), limit=PAGE))
    doomed = with_descendants(found, everything)
    check_removable(doomed, recursive=recursive)
    if not session.yes:
        session.confirm([goes_with(session, one) for one in doomed])
    told = in_turn(partial(_delete, session, one, last=one is found) for one in reversed(doomed))
    emit(session, told if recursive else told[0], _COLUMNS)


def _delete(session: Session, branch: Branch, *, last: bool) -> dict[str, Any]:
    # A parent can go only when its children are gone, so those are waited for in any case.
    wait = session.wait if last else session.wait or WAIT_SECONDS
    reply = perform(
        session,
        f"Deleting {branch.name}",
        lambda: session.neon.branches.delete(session.project_id(), branch.id, wait=wait),
    )
    return gone(reply, branch=branch)


def check_removable(doomed: Sequence[Branch], *, recursive: bool) -> None:
    """Raise Failure where the server would refuse, before anything is deleted: of several, some would be gone. Pure."""
    branch = doomed[0]
    if len(doomed) > 1 and not recursive:
        names = ", ".join(one.name for one in doomed[1:] if one.parent_id == branch.id)
        raise Failure(
            f"branch {branch.name!r} has children: {names}",
            hint="delete those first, or give --recursive to delete all of them",
            status=CONFLICT,
        )
    for one in doomed:
        if one.default:
            hint = "`lamp branches set-default` makes another one the default"
            raise Failure(f"branch {one.name!r} is the default branch", hint=hint, status=CONFLICT)
        if one.protected:
            hint = f"`lamp branches unprotect {one.name}` first"
            raise Failure(f"branch {one.name!r} is protected", hint=hint, status=CONFLICT)


def with_descendants(branch: Branch, everything: Sequence[Branch]) -> list[Branch]:
    """The branch and all below it, parents before their children. Pure."""
    # Its own parent is left out of account, so that it is a root even in a circle.
    nodes = [Node(one.id, None if one.id == branch.id else one.parent_id) for one in everything]
    lines = draw(nodes)
    start = next((place for place, line in enumerate(lines) if everything[line.index].id == branch.id), None)
    if start is None:
        return [branch]
    below = []
    for line in lines[start + 1 :]:
        if line.depth == 0:
            break
        below.append(everything[line.index])
    return [branch, *below]


def goes_with(session: Session, branch: Branch) -> str:
    """A branch and what its deletion takes along, on a line."""
    project = session.project_id()
    endpoints = [one.id for one in session.neon.branches.endpoints(project, branch.id)]
    databases = [one.name for one in session.neon.databases.list(project, branch.id)]
    return (
        f"branch {branch.name} ({branch.id}) is deleted, with endpoints: {', '.join(endpoints) or 'none'}; "
        f"databases: {', '.join(databases) or 'none'}"
    )
