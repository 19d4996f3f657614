"""`lamp snapshots`: a branch's data as it was, kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.changed import given, gone, perform
from lamplighter.cli.errors import USAGE, Failure
from lamplighter.cli.finding import exactly, find_branch
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import Column, emit
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.shown import SNAPSHOT, below, branch_columns
from lamplighter.cli.values import Duration, Moment, Point, expiry

if TYPE_CHECKING:
    from lamplighter.api.models.snapshots import Snapshot

_WHICH = click.argument("snapshot", metavar="ID|NAME")
_SCHEDULE = tuple(Column(name) for name in ("frequency", "hour", "day", "month", "retention_seconds"))


@click.group(cls=NearGroup)
def snapshots() -> None:
    """List, create, restore and delete snapshots of branches.

    \b
    Examples:
      lamp snapshots create --branch main --name before-migration
      lamp snapshots restore before-migration --name recovered
    """  # noqa: D301 - click wants the character itself


@snapshots.command("list")
@api_command(project=True)
def list_(session: Session) -> None:
    """List the snapshots of a project.

    \b
    Examples:
      lamp snapshots list --output json
    """  # noqa: D301 - click wants the character itself
    emit(session, _all(session), SNAPSHOT, empty="There are no snapshots.")


@snapshots.command()
@_WHICH
@api_command(project=True)
def get(session: Session, *, snapshot: str) -> None:
    """Show a snapshot.

    \b
    Examples:
      lamp snapshots get before-migration
    """  # noqa: D301 - click wants the character itself
    emit(session, _find(session, snapshot), SNAPSHOT)


@snapshots.command()
@click.option("--name", help="What to call it.")
@click.option("--at", type=Point(), help="Of the branch as it was at a time or LSN.")
@click.option("--timestamp", type=Moment(), help="The same for a time alone.")
@click.option("--lsn", help="The same for an LSN alone.")
@click.option("--expires-at", type=Moment(), help="When it deletes itself, such as 2026-12-31T23:59:59Z.")
@click.option("--expires-in", type=Duration(), help="The same from now on, such as 30d.")
@api_command(project=True, branch=True, waits=True)
def create(
    session: Session,
    *,
    name: str | None,
    at: str | datetime | None,
    timestamp: datetime | None,
    lsn: str | None,
    expires_at: datetime | None,
    expires_in: int | None,
) -> None:
    """Take a snapshot of a branch, as it is or was.

    \b
    Examples:
      lamp snapshots create --branch main --name before-migration --expires-in 30d
      lamp snapshots create --branch main --at "1h ago"
    """  # noqa: D301 - click wants the character itself
    points = [point for point in (at, timestamp, lsn) if point is not None]
    if len(points) > 1:
        raise click.UsageError("give one of --at, --timestamp and --lsn")
    try:
        until = expiry(at=expires_at, within=expires_in, now=datetime.now(UTC))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    branch = find_branch(session, session.options.branch)
    fields = given(
        name=name, at=points[0] if points else None, expires_at=f"{until:%Y-%m-%dT%H:%M:%SZ}" if until else None
    )
    reply = perform(
        session,
        f"Taking a snapshot of {branch.name}",
        lambda: session.neon.snapshots.create(session.project_id(), branch.id, wait=session.wait, **fields),
    )
    emit(session, reply, below("snapshot", SNAPSHOT))


@snapshots.command()
@_WHICH
@click.option("--name", required=True, help="Its new name.")
@api_command(project=True, changes=True)
def update(session: Session, *, snapshot: str, name: str) -> None:
    """Give a snapshot another name.

    \b
    Examples:
      lamp snapshots update before-migration --name before-v2
    """  # noqa: D301 - click wants the character itself
    found = _find(session, snapshot)
    emit(session, session.neon.snapshots.update(session.project_id(), found.id, name=name), SNAPSHOT)


@snapshots.command()
@_WHICH
@api_command(project=True, waits=True, destructive=True)
def delete(session: Session, *, snapshot: str) -> None:
    """Delete a snapshot.

    \b
    Examples:
      lamp snapshots delete before-migration
    """  # noqa: D301 - click wants the character itself
    found = _find(session, snapshot)
    session.confirm([f"snapshot {found.name} ({found.id}) of branch {found.source_branch_id} is deleted"])
    reply: Any = perform(
        session,
        f"Deleting snapshot {found.name}",
        lambda: session.neon.snapshots.delete(session.project_id(), found.id, wait=session.wait),
    )
    told = {"snapshot": found, "operations": reply.operations}
    emit(session, gone(told), (Column("snapshot.id", "id"), Column("snapshot.name", "name"), Column("deleted")))


@snapshots.command()
@_WHICH
@click.option("--name", help="What to call the branch that is made of it.")
@click.option("--target-branch", metavar="NAME|ID", help="The branch that it is to replace.")
@click.option("--finalize", is_flag=True, help="Replace that branch at once.")
@api_command(project=True, waits=True, destructive=True)
def restore(session: Session, *, snapshot: str, name: str | None, target_branch: str | None, finalize: bool) -> None:
    """Make a branch with the data of a snapshot.

    With --target-branch it is to replace that branch: at once with --finalize, else by `lamp snapshots finalize`.

    \b
    Examples:
      lamp snapshots restore before-migration --name recovered
      lamp snapshots restore before-migration --target-branch main --finalize
    """  # noqa: D301 - click wants the character itself
    found = _find(session, snapshot)
    target = find_branch(session, target_branch) if target_branch is not None else None
    if finalize:
        replaced = f"branch {target.name} ({target.id})" if target else f"its branch {found.source_branch_id}"
        session.confirm([f"{replaced} is replaced by snapshot {found.name} ({found.id})"])
    fields = given(name=name, target_branch_id=target.id if target else None, finalize_restore=finalize or None)
    reply = perform(
        session,
        f"Restoring snapshot {found.name}",
        lambda: session.neon.snapshots.restore(session.project_id(), found.id, wait=session.wait, **fields),
    )
    emit(session, reply, below("branch", branch_columns()))


@snapshots.command()
@click.argument("branch", metavar="BRANCH")
@click.option("--name", help="What the branch that is replaced is called from then on.")
@api_command(project=True, waits=True, destructive=True)
def finalize(session: Session, *, branch: str, name: str | None) -> None:
    """Put a restored BRANCH in the place of another.

    The other is the one that it was restored for.

    \b
    Examples:
      lamp snapshots finalize recovered --name main-before
    """  # noqa: D301 - click wants the character itself
    found = find_branch(session, branch)
    session.confirm([f"branch {found.restored_as or 'that it was restored for'} is replaced by {found.name}"])
    reply = perform(
        session,
        f"Finalizing {found.name}",
        lambda: session.neon.branches.finalize_restore(
            session.project_id(), found.id, wait=session.wait, **given(name=name)
        ),
    )
    emit(session, reply, (Column("operations.0.id", "operation"), Column("operations.0.status", "status")))


@snapshots.group()
def schedule() -> None:
    """See and set when snapshots of a branch are taken.

    \b
    Examples:
      lamp snapshots schedule set --branch main --frequency daily --hour 3 --retention 7d
    """  # noqa: D301 - click wants the character itself


@schedule.command("get")
@api_command(project=True, branch=True)
def get_schedule(session: Session) -> None:
    """Show when snapshots of a branch are taken.

    \b
    Examples:
      lamp snapshots schedule get --branch main
    """  # noqa: D301 - click wants the character itself
    branch = find_branch(session, session.options.branch)
    found = session.neon.snapshots.schedule(session.project_id(), branch.id)
    emit(session, found, _SCHEDULE, empty=f"No snapshots of branch {branch.name} are taken by themselves.")


@schedule.command("set")
@click.option("--frequency", type=click.Choice(["daily", "weekly", "monthly"]), help="How often.")
@click.option("--hour", type=click.IntRange(0, 23), help="At which hour, in UTC.")
@click.option("--day", type=click.IntRange(1, 31), help="On which day of the week (1 to 7) or month.")
@click.option("--retention", type=Duration(), help="For how long each is kept, such as 7d.")
@click.option("--none", is_flag=True, help="Take no more of them.")
@api_command(project=True, branch=True, changes=True)
def set_schedule(
    session: Session,
    *,
    frequency: str | None,
    hour: int | None,
    day: int | None,
    retention: int | None,
    none: bool,
) -> None:
    """Set when snapshots of a branch are taken.

    What was set before no longer counts.

    \b
    Examples:
      lamp snapshots schedule set --branch main --frequency daily --hour 3 --retention 7d
      lamp snapshots schedule set --branch main --none
    """  # noqa: D301 - click wants the character itself
    if none == (frequency is not None):
        raise click.UsageError("give --frequency, or --none")
    if none and any(value is not None for value in (hour, day, retention)):
        raise Failure("--none goes with nothing else", status=USAGE)
    branch = find_branch(session, session.options.branch)
    items = [] if none else [given(frequency=frequency, hour=hour, day=day, retention_seconds=retention)]
    session.neon.snapshots.set_schedule(session.project_id(), branch.id, schedule=items)
    emit(session, items, _SCHEDULE, empty=f"No more snapshots of branch {branch.name} are taken by themselves.")


def _all(session: Session) -> list[Snapshot]:
    return list(session.neon.snapshots.list(session.project_id()))


def _find(session: Session, wanted: str) -> Snapshot:
    where = f"in project {session.project_id()}"
    return exactly(wanted, _all(session), what="snapshot", where=where, name=lambda one: one.name)
