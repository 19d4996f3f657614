"""`lamp endpoints`: the computes that serve branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.changed import compute_fields, given, gone, perform
from lamplighter.cli.endpoints_top import top
from lamplighter.cli.finding import find_branch, find_endpoint, settled
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import Column, emit
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.shown import ENDPOINT, below
from lamplighter.cli.values import ComputeSize, SuspendTimeout

if TYPE_CHECKING:
    from lamplighter.api.models.endpoints import Endpoint, EndpointOperations

_WHICH = click.argument("endpoint", metavar="[ID|NAME]", required=False)
_NAMED = click.argument("endpoint", metavar="ID|NAME")
_CU = click.option("--cu", type=ComputeSize(), help="Compute units: 2, or a range such as 0.25-2.")
_SUSPEND = click.option(
    "--suspend-timeout", type=SuspendTimeout(), help="When it is suspended: seconds, 5m, never, default."
)
_REPLY = below("endpoint", ENDPOINT)


@click.group(cls=NearGroup)
def endpoints() -> None:
    """List, create, change, start, suspend and delete endpoints.

    An endpoint is named by its id or name; where it may be left out, that of --branch (or of the default branch) is
    meant.

    \b
    Examples:
      lamp endpoints list
      lamp endpoints suspend --branch dev
    """  # noqa: D301 - click wants the character itself


endpoints.add_command(top)


@endpoints.command("list")
@api_command(project=True, branch=True)
def list_(session: Session) -> None:
    """List endpoints: of a project, or of --branch.

    \b
    Examples:
      lamp endpoints list
      lamp endpoints list --branch dev --output json
    """  # noqa: D301 - click wants the character itself
    project = session.project_id()
    if session.options.branch is None:
        found = list(session.neon.endpoints.list(project))
    else:
        found = list(session.neon.branches.endpoints(project, find_branch(session, session.options.branch).id))
    emit(session, found, ENDPOINT, empty="There are no endpoints.")


@endpoints.command()
@_WHICH
@api_command(project=True, branch=True)
def get(session: Session, *, endpoint: str | None) -> None:
    """Show an endpoint.

    \b
    Examples:
      lamp endpoints get ep-quiet-moon-12345678
      lamp endpoints get --branch dev --output json | jq -r .current_state
    """  # noqa: D301 - click wants the character itself
    emit(session, find_endpoint(session, endpoint), ENDPOINT)


@endpoints.command()
@click.option(
    "--type", "kind", type=click.Choice(["read_write", "read_only"]), default="read_write", show_default=True,
    help="A branch has one that is read_write at most.",
)  # fmt: skip
@_CU
@_SUSPEND
@click.option("--name", help="What to call it.")
@api_command(project=True, branch=True, waits=True)
def create(
    session: Session, *, kind: str, cu: tuple[float, float] | None, suspend_timeout: int | None, name: str | None
) -> None:
    """Create an endpoint for a branch, and start it.

    \b
    Examples:
      lamp endpoints create --branch dev
      lamp endpoints create --branch main --type read_only --cu 0.5-2 --name reports
    """  # noqa: D301 - click wants the character itself
    branch = find_branch(session, session.options.branch)
    fields = {**compute_fields(cu, suspend_timeout), **given(name=name)}
    reply = perform(
        session,
        f"Creating an endpoint for {branch.name}",
        lambda: session.neon.endpoints.create(
            session.project_id(), branch_id=branch.id, type=kind, wait=session.wait, **fields
        ),
    )
    emit(session, settled(session, reply), _REPLY)


@endpoints.command()
@_WHICH
@_CU
@_SUSPEND
@click.option("--name", help="What to call it.")
@click.option("--disabled/--enabled", default=None, help="Whether connections to it are refused.")
@api_command(project=True, branch=True, waits=True)
def update(
    session: Session,
    *,
    endpoint: str | None,
    cu: tuple[float, float] | None,
    suspend_timeout: int | None,
    name: str | None,
    disabled: bool | None,
) -> None:
    """Change an endpoint; what is not given stays.

    \b
    Examples:
      lamp endpoints update --branch main --cu 1-4 --suspend-timeout never
      lamp endpoints update ep-quiet-moon-12345678 --name reports
    """  # noqa: D301 - click wants the character itself
    fields = {**compute_fields(cu, suspend_timeout), **given(name=name, disabled=disabled)}
    if not fields:
        raise click.UsageError("nothing to change: give at least one option")
    calls = session.neon.endpoints
    _act(session, endpoint, "Changing", lambda p, e: calls.update(p, e, wait=session.wait, **fields))


@endpoints.command()
@_NAMED
@api_command(project=True, waits=True, destructive=True)
def delete(session: Session, *, endpoint: str) -> None:
    """Delete an endpoint. The branch and its data stay.

    \b
    Examples:
      lamp endpoints delete ep-quiet-moon-12345678
    """  # noqa: D301 - click wants the character itself
    found = find_endpoint(session, endpoint)
    session.confirm([f"endpoint {_title(found)} of branch {found.branch_id} is deleted; connections to it break"])
    reply = perform(
        session,
        f"Deleting {found.id}",
        lambda: session.neon.endpoints.delete(session.project_id(), found.id, wait=session.wait),
    )
    columns = (Column("endpoint.id", "id"), Column("endpoint.branch_id", "branch"), Column("deleted"))
    emit(session, gone(reply, endpoint=found), columns)


@endpoints.command()
@_WHICH
@api_command(project=True, branch=True, waits=True)
def start(session: Session, *, endpoint: str | None) -> None:
    """Start an endpoint.

    \b
    Examples:
      lamp endpoints start --branch dev
    """  # noqa: D301 - click wants the character itself
    calls = session.neon.endpoints
    _act(session, endpoint, "Starting", lambda p, e: calls.start(p, e, wait=session.wait))


@endpoints.command()
@_WHICH
@api_command(project=True, branch=True, waits=True)
def suspend(session: Session, *, endpoint: str | None) -> None:
    """Suspend an endpoint; connections to it end.

    \b
    Examples:
      lamp endpoints suspend --branch dev
    """  # noqa: D301 - click wants the character itself
    calls = session.neon.endpoints
    _act(session, endpoint, "Suspending", lambda p, e: calls.suspend(p, e, wait=session.wait))


@endpoints.command()
@_WHICH
@api_command(project=True, branch=True, waits=True)
def restart(session: Session, *, endpoint: str | None) -> None:
    """Suspend an endpoint and start it again; connections to it end.

    \b
    Examples:
      lamp endpoints restart ep-quiet-moon-12345678 --no-wait
    """  # noqa: D301 - click wants the character itself
    calls = session.neon.endpoints
    _act(session, endpoint, "Restarting", lambda p, e: calls.restart(p, e, wait=session.wait))


def _act(session: Session, wanted: str | None, doing: str, call: Callable[[str, str], EndpointOperations]) -> None:
    found = find_endpoint(session, wanted)
    reply: Any = perform(session, f"{doing} {found.id}", lambda: call(session.project_id(), found.id))
    emit(session, settled(session, reply), _REPLY)


def _title(endpoint: Endpoint) -> str:
    return f"{endpoint.name} ({endpoint.id})" if endpoint.name else endpoint.id
