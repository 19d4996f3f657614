"""`lamp roles`: the Postgres roles of a branch, and their passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lamplighter.cli.changed import given, gone, perform
from lamplighter.cli.finding import exactly, find_branch
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.harmless import clean
from lamplighter.cli.output import Column, emit, write
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.shown import ROLE, below

if TYPE_CHECKING:
    from lamplighter.api.models.branches import Branch
    from lamplighter.api.models.roles import Role

_ROLE = click.argument("role")


@click.group(cls=NearGroup)
def roles() -> None:
    """List, create and delete roles of a branch, and see or reset their passwords.

    \b
    Examples:
      lamp roles create --name reader --branch dev
      lamp roles reset-password reader --branch dev
    """  # noqa: D301 - click wants the character itself


@roles.command("list")
@api_command(project=True, branch=True)
def list_(session: Session) -> None:
    """List the roles of a branch, without their passwords.

    \b
    Examples:
      lamp roles list --branch dev
    """  # noqa: D301 - click wants the character itself
    branch = find_branch(session, session.options.branch)
    found = list(session.neon.roles.list(session.project_id(), branch.id))
    emit(session, found, ROLE, empty=f"There are no roles on branch {branch.name}.")


@roles.command()
@click.option("--name", required=True, help="What to call it.")
@click.option("--no-login", is_flag=True, help="It has no password, and nobody can log in as it.")
@api_command(project=True, branch=True, waits=True)
def create(session: Session, *, name: str, no_login: bool) -> None:
    """Create a role.

    `lamp roles reveal-password` shows its password.

    \b
    Examples:
      lamp roles create --name reader
    """  # noqa: D301 - click wants the character itself
    project = session.project_id()
    branch = find_branch(session, session.options.branch)
    fields = given(no_login=True if no_login else None)
    reply = perform(
        session,
        f"Creating role {name}",
        lambda: session.neon.roles.create(project, branch.id, name=name, wait=session.wait, **fields),
    )
    emit(session, reply, below("role", ROLE))


@roles.command()
@_ROLE
@api_command(project=True, branch=True, waits=True, destructive=True)
def delete(session: Session, *, role: str) -> None:
    """Delete a ROLE.

    \b
    Examples:
      lamp roles delete reader --branch dev
    """  # noqa: D301 - click wants the character itself
    project = session.project_id()
    branch, found = _find(session, role)
    if not session.yes:
        owned = [one.name for one in session.neon.databases.list(project, branch.id) if one.owner_name == found.name]
        owner = f"; it owns {', '.join(owned)}" if owned else ""
        session.confirm([f"role {found.name} of branch {branch.name} ({branch.id}) is deleted{owner}"])
    reply = perform(
        session,
        f"Deleting role {found.name}",
        lambda: session.neon.roles.delete(project, branch.id, found.name, wait=session.wait),
    )
    columns = (Column("role.name", "name"), Column("role.branch_id", "branch"), Column("deleted"))
    emit(session, gone(reply, role=found), columns)


@roles.command("reset-password")
@_ROLE
@api_command(project=True, branch=True, waits=True)
def reset_password(session: Session, *, role: str) -> None:
    """Give a ROLE a new password, and print it.

    The old one no longer works.

    \b
    Examples:
      lamp roles reset-password reader --branch dev
    """  # noqa: D301 - click wants the character itself
    branch, found = _find(session, role)
    reply = perform(
        session,
        f"Resetting the password of {found.name}",
        lambda: session.neon.roles.reset_password(session.project_id(), branch.id, found.name, wait=session.wait),
    )
    if session.output == "table":
        write(clean(reply.role.password or "") + "\n")
    else:
        emit(session, reply, (*below("role", ROLE), Column("role.password", "password")), secrets=True)


@roles.command("reveal-password")
@_ROLE
@api_command(project=True, branch=True)
def reveal_password(session: Session, *, role: str) -> None:
    """Print the password of a ROLE.

    \b
    Examples:
      lamp roles reveal-password neondb_owner
    """  # noqa: D301 - click wants the character itself
    branch, found = _find(session, role)
    password = session.neon.roles.reveal_password(session.project_id(), branch.id, found.name)
    if session.output == "table":
        write(clean(password) + "\n")
    else:
        emit(session, {"password": password}, [Column("password")], secrets=True)


def _find(session: Session, wanted: str) -> tuple[Branch, Role]:
    branch = find_branch(session, session.options.branch)
    every = list(session.neon.roles.list(session.project_id(), branch.id))
    return branch, exactly(wanted, every, what="role", where=f"on branch {branch.name!r}", name=lambda one: one.name)
