"""`lamp branches`: copies of a project's data that share what has not changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from lamplighter.cli.branch_creation import Wish, create_branch, in_ci
from lamplighter.cli.branch_history import recover, reset, restore
from lamplighter.cli.branch_removal import delete
from lamplighter.cli.branch_schema import diff, schema
from lamplighter.cli.branch_tree import tree
from lamplighter.cli.changed import compute_fields, given, perform
from lamplighter.cli.finding import PAGE, find_branch, settled
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import emit
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.shown import ENDPOINT, below, branch_columns
from lamplighter.cli.values import ComputeSize, Duration, Moment, ParentAt, Point, Source, SuspendTimeout, expiry

_WHICH = click.argument("branch", metavar="NAME|ID")
_TYPE = click.Choice(["read_write", "read_only"])


@click.group(cls=NearGroup)
def branches() -> None:
    """List, create, compare and delete branches.

    A branch is named by its name or id, exactly.

    \b
    Examples:
      lamp branches create --name dev
      lamp branches tree
      lamp branches diff dev
    """  # noqa: D301 - click wants the character itself


for _command in (delete, diff, recover, reset, restore, schema, tree):
    branches.add_command(_command)


@branches.command("list")
@click.option("--search", help="Only those whose name or id has this in it.")
@click.option("--include-deleted", is_flag=True, help="Deleted ones that can be recovered, too.")
@api_command(project=True)
def list_(session: Session, *, search: str | None, include_deleted: bool) -> None:
    """List the branches of a project, the last changed first.

    \b
    Examples:
      lamp branches list
      lamp branches list --search pr- --output json | jq -r '.[].name'
    """  # noqa: D301 - click wants the character itself
    project = session.project_id()
    deleted = True if include_deleted else None
    found = list(session.neon.branches.list(project, search=search, include_deleted=deleted, limit=PAGE))
    emit(session, found, branch_columns({one.id: one.name for one in found}), empty="There are no branches.")


@branches.command()
@click.argument("branch", metavar="[NAME|ID]", required=False)
@api_command(project=True)
def get(session: Session, *, branch: str | None) -> None:
    """Show a branch.

    Without a name it is the one of the .neon file, or the default branch.

    \b
    Examples:
      lamp branches get dev
    """  # noqa: D301 - click wants the character itself
    emit(session, find_branch(session, branch), branch_columns())


@branches.command()
@click.option("--name", help="What to call it. [default: the server chooses]")
@click.option("--parent", type=ParentAt(), help="Branch to begin from, a point of its history, or both: BRANCH@POINT.")
@click.option("--at", type=Point(), help="Begin from the parent as it was at a time or LSN.")
@click.option("--compute/--no-compute", default=True, show_default=True, help="Whether it gets an endpoint.")
@click.option("--type", "kind", type=_TYPE, default="read_write", show_default=True, help="Type of its endpoint.")
@click.option("--cu", type=ComputeSize(), help="Compute units: 2, or a range such as 0.25-2.")
@click.option("--suspend-timeout", type=SuspendTimeout(), help="When it is suspended: seconds, 5m, never, default.")
@click.option("--schema-only", is_flag=True, help="Without the rows.")
@click.option("--protected", is_flag=True, default=None, help="Keep it from being deleted or reset.")
@click.option("--expires-at", type=Moment(), help="When it deletes itself, such as 2026-12-31T23:59:59Z.")
@click.option("--expires-in", type=Duration(), help="The same from now on, such as 2h.")
@click.option(
    "--if-exists",
    type=click.Choice(["return", "fail"]),
    help="When there is a branch of that name: use it as it is, or fail. [default: return in CI, else fail]",
)
@click.option("--psql", "connect", is_flag=True, help="Connect with psql.")
@click.option("--secrets/--no-secrets", default=True, show_default=True, help="Whether passwords are shown.")
@api_command(project=True, waits=True)
def create(
    session: Session,
    *,
    name: str | None,
    parent: Source | None,
    at: str | datetime | None,
    if_exists: str | None,
    connect: bool,
    secrets: bool,
    **options: Any,
) -> None:
    """Create a branch and print its connection string, once.

    With --if-exists return, and by default where CI is set, a branch of exactly that name in the same project is used
    as it is, and standard error says so; the JSON has `created`: true or false.

    \b
    Examples:
      lamp branches create --name dev
      lamp branches create --name pr-42 --parent main --expires-in 2d --if-exists return --output json
      lamp branches create --name yesterday --parent main --at "24h ago"
    """  # noqa: D301 - click wants the character itself
    if at is not None and parent is not None and parent.point is not None:
        raise click.UsageError("give the point once: with --at, or in --parent")
    wish = Wish(
        name=name,
        parent=parent.branch or None if parent else None,
        at=at if at is not None or parent is None else parent.point,
        protected=options["protected"],
        schema_only=options["schema_only"],
        expires_at=_expiry(options["expires_at"], options["expires_in"]),
        endpoint={"type": options["kind"], **compute_fields(options["cu"], options["suspend_timeout"])}
        if options["compute"]
        else None,
    )
    made = create_branch(session, wish, if_exists=if_exists, ci=in_ci())
    made.show(session, secrets=secrets)
    if connect:
        made.connect(session)


def _expiry(at: datetime | None, within: int | None) -> datetime | None:
    try:
        return expiry(at=at, within=within, now=datetime.now(UTC))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _update(session: Session, branch: str, doing: str, **fields: Any) -> None:
    found = find_branch(session, branch)
    reply = perform(
        session,
        f"{doing} {found.name}",
        lambda: session.neon.branches.update(session.project_id(), found.id, wait=session.wait, **fields),
    )
    emit(session, reply, below("branch", branch_columns()))


@branches.command()
@_WHICH
@click.argument("new_name", metavar="NEW-NAME")
@api_command(project=True, waits=True)
def rename(session: Session, *, branch: str, new_name: str) -> None:
    """Give a branch another name.

    \b
    Examples:
      lamp branches rename dev staging
    """  # noqa: D301 - click wants the character itself
    _update(session, branch, "Renaming", name=new_name)


@branches.command()
@_WHICH
@api_command(project=True, waits=True)
def protect(session: Session, *, branch: str) -> None:
    """Keep a branch from being deleted or reset.

    \b
    Examples:
      lamp branches protect main
    """  # noqa: D301 - click wants the character itself
    _update(session, branch, "Protecting", protected=True)


@branches.command()
@_WHICH
@api_command(project=True, waits=True)
def unprotect(session: Session, *, branch: str) -> None:
    """Let a branch be deleted and reset again.

    \b
    Examples:
      lamp branches unprotect old-main
    """  # noqa: D301 - click wants the character itself
    _update(session, branch, "Unprotecting", protected=False)


@branches.command("set-expiration")
@_WHICH
@click.option("--expires-at", type=Moment(), help="When it deletes itself, such as 2026-12-31T23:59:59Z.")
@click.option("--expires-in", type=Duration(), help="The same from now on, such as 2h.")
@api_command(project=True, waits=True)
def set_expiration(session: Session, *, branch: str, expires_at: datetime | None, expires_in: int | None) -> None:
    """Say when a branch deletes itself.

    Without a time it lives on.

    \b
    Examples:
      lamp branches set-expiration dev --expires-in 7d
      lamp branches set-expiration dev
    """  # noqa: D301 - click wants the character itself
    _update(session, branch, "Changing", expires_at=_expiry(expires_at, expires_in))


@branches.command("set-default")
@_WHICH
@api_command(project=True, waits=True)
def set_default(session: Session, *, branch: str) -> None:
    """Make a branch the default branch of its project.

    \b
    Examples:
      lamp branches set-default staging
    """  # noqa: D301 - click wants the character itself
    found = find_branch(session, branch)
    reply = perform(
        session,
        f"Making {found.name} the default branch",
        lambda: session.neon.branches.set_default(session.project_id(), found.id, wait=session.wait),
    )
    emit(session, reply, below("branch", branch_columns()))


@branches.command("add-compute")
@_WHICH
@click.option("--type", "kind", type=_TYPE, default="read_only", show_default=True, help="Type of the endpoint.")
@click.option("--cu", type=ComputeSize(), help="Compute units: 2, or a range such as 0.25-2.")
@click.option("--suspend-timeout", type=SuspendTimeout(), help="When it is suspended: seconds, 5m, never, default.")
@click.option("--name", help="What to call it.")
@api_command(project=True, waits=True)
def add_compute(
    session: Session,
    *,
    branch: str,
    kind: str,
    cu: tuple[float, float] | None,
    suspend_timeout: int | None,
    name: str | None,
) -> None:
    """Add an endpoint to a branch.

    \b
    Examples:
      lamp branches add-compute main --cu 0.5-2
    """  # noqa: D301 - click wants the character itself
    found = find_branch(session, branch)
    fields = {**compute_fields(cu, suspend_timeout), **given(name=name)}
    reply = perform(
        session,
        f"Adding an endpoint to {found.name}",
        lambda: session.neon.endpoints.create(
            session.project_id(), branch_id=found.id, type=kind, wait=session.wait, **fields
        ),
    )
    emit(session, settled(session, reply), below("endpoint", ENDPOINT))
