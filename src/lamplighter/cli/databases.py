"""`lamp databases`: the databases of a branch."""

from __future__ import annotations

import click

from lamplighter.cli.changed import given, gone, perform
from lamplighter.cli.errors import NOT_THERE, USAGE, Failure
from lamplighter.cli.finding import exactly, find_branch
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import Column, emit
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.shown import DATABASE, below

_REPLY = below("database", DATABASE)


@click.group(cls=NearGroup)
def databases() -> None:
    """List, create, change and delete databases of a branch.

    \b
    Examples:
      lamp databases list --branch dev
      lamp databases create --name shop
    """  # noqa: D301 - click wants the character itself


@databases.command("list")
@api_command(project=True, branch=True)
def list_(session: Session) -> None:
    """List the databases of a branch.

    \b
    Examples:
      lamp databases list --branch dev --output json
    """  # noqa: D301 - click wants the character itself
    branch = find_branch(session, session.options.branch)
    found = list(session.neon.databases.list(session.project_id(), branch.id))
    emit(session, found, DATABASE, empty=f"There are no databases on branch {branch.name}.")


@databases.command()
@click.option("--name", required=True, help="What to call it.")
@click.option("--owner-name", help="The role that owns it. [default: the only role]")
@api_command(project=True, branch=True, waits=True)
def create(session: Session, *, name: str, owner_name: str | None) -> None:
    """Create a database.

    \b
    Examples:
      lamp databases create --name shop --owner-name keeper --branch dev
    """  # noqa: D301 - click wants the character itself
    project = session.project_id()
    branch = find_branch(session, session.options.branch)
    owner = owner_name if owner_name is not None else _only_role(session, branch.id, branch.name)
    reply = perform(
        session,
        f"Creating database {name}",
        lambda: session.neon.databases.create(project, branch.id, name=name, owner_name=owner, wait=session.wait),
    )
    emit(session, reply, _REPLY)


@databases.command()
@click.argument("database")
@click.option("--name", help="Its new name.")
@click.option("--owner-name", help="The role that is to own it.")
@api_command(project=True, branch=True, waits=True)
def update(session: Session, *, database: str, name: str | None, owner_name: str | None) -> None:
    """Give a DATABASE another name or owner.

    \b
    Examples:
      lamp databases update shop --owner-name keeper
    """  # noqa: D301 - click wants the character itself
    fields = given(name=name, owner_name=owner_name)
    if not fields:
        raise click.UsageError("nothing to change: give --name or --owner-name")
    project = session.project_id()
    branch = find_branch(session, session.options.branch)
    found = list(session.neon.databases.list(project, branch.id))
    exactly(database, found, what="database", where=f"on branch {branch.name!r}", name=lambda one: one.name)
    reply = perform(
        session,
        f"Changing database {database}",
        lambda: session.neon.databases.update(project, branch.id, database, wait=session.wait, **fields),
    )
    emit(session, reply, _REPLY)


@databases.command()
@click.argument("database")
@api_command(project=True, branch=True, waits=True, destructive=True)
def delete(session: Session, *, database: str) -> None:
    """Delete a DATABASE with all that is in it.

    \b
    Examples:
      lamp databases delete shop --branch dev
    """  # noqa: D301 - click wants the character itself
    project = session.project_id()
    branch = find_branch(session, session.options.branch)
    every = list(session.neon.databases.list(project, branch.id))
    found = exactly(database, every, what="database", where=f"on branch {branch.name!r}", name=lambda one: one.name)
    session.confirm([f"database {found.name} of branch {branch.name} ({branch.id}) is deleted with all its tables"])
    reply = perform(
        session,
        f"Deleting database {found.name}",
        lambda: session.neon.databases.delete(project, branch.id, found.name, wait=session.wait),
    )
    columns = (Column("database.name", "name"), Column("database.branch_id", "branch"), Column("deleted"))
    emit(session, gone(reply, database=found), columns)


def _only_role(session: Session, branch_id: str, branch_name: str) -> str:
    names = [one.name for one in session.neon.roles.list(session.project_id(), branch_id)]
    if len(names) == 1:
        return names[0]
    if not names:
        hint = "`lamp roles create` makes one"
        raise Failure(f"branch {branch_name!r} has no role to own it", hint=hint, status=NOT_THERE)
    hint = f"give --owner-name: {', '.join(names)}"
    raise Failure(f"branch {branch_name!r} has several roles", hint=hint, status=USAGE)
