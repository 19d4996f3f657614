"""`lamp projects permissions` and `lamp projects transfer`."""

from __future__ import annotations

import click

from lamplighter.cli.errors import NOT_THERE, Failure
from lamplighter.cli.finding import near_hint
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import Column, columns_of, emit
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.values import Duration

_PERMISSION = (
    Column("id"),
    Column("granted_to_email", "email"),
    Column("granted_at", "granted"),
    Column("revoked_at", "revoked"),
)


@click.group(cls=NearGroup)
def permissions() -> None:
    """List, grant and revoke access to a project.

    \b
    Examples:
      lamp projects permissions grant ada@example.com
      lamp projects permissions revoke ada@example.com
    """  # noqa: D301 - click wants the character itself


@permissions.command("list")
@api_command(project=True)
def list_(session: Session) -> None:
    """List whom a project is shared with.

    \b
    Examples:
      lamp projects permissions list --project-id quiet-moon-12345678
    """  # noqa: D301 - click wants the character itself
    found = list(session.neon.permissions.list(session.project_id()))
    emit(session, found, _PERMISSION, empty="The project is shared with nobody.")


@permissions.command()
@click.argument("email")
@api_command(project=True, changes=True)
def grant(session: Session, *, email: str) -> None:
    """Share a project with the owner of an EMAIL address.

    \b
    Examples:
      lamp projects permissions grant ada@example.com
    """  # noqa: D301 - click wants the character itself
    emit(session, session.neon.permissions.grant(session.project_id(), email=email), _PERMISSION)


@permissions.command()
@click.argument("who", metavar="EMAIL|ID")
@api_command(project=True, destructive=True)
def revoke(session: Session, *, who: str) -> None:
    """End the sharing of a project.

    Name who it is by email address, or the permission by its id.

    \b
    Examples:
      lamp projects permissions revoke ada@example.com
    """  # noqa: D301 - click wants the character itself
    project = session.project_id()
    found = [one for one in session.neon.permissions.list(project) if one.revoked_at is None]
    matching = [one for one in found if who in (one.id, one.granted_to_email)]
    if not matching:
        hint = near_hint(who, [one.granted_to_email for one in found], otherwise="`lamp projects permissions list`")
        raise Failure(f"project {project} is not shared with {who!r}", hint=hint, status=NOT_THERE)
    session.confirm([f"{one.granted_to_email} can no longer reach project {project}" for one in matching])
    revoked = [session.neon.permissions.revoke(project, one.id) for one in matching]
    emit(session, revoked if len(revoked) > 1 else revoked[0], _PERMISSION)


@click.group(cls=NearGroup)
def transfer() -> None:
    """Offer a project to somebody else, and accept an offer.

    \b
    Examples:
      lamp projects transfer create --ttl 2d
      lamp projects transfer accept quiet-moon-12345678 0b9f...
    """  # noqa: D301 - click wants the character itself


@transfer.command()
@click.option("--ttl", type=Duration(), help="How long the offer stands, such as 2h. [default: the server's, a day]")
@api_command(project=True, changes=True)
def create(session: Session, *, ttl: int | None) -> None:
    """Offer a project.

    Whoever has its id and that of the offer can take it.

    \b
    Examples:
      lamp projects transfer create --project-id quiet-moon-12345678 --ttl 2h
    """  # noqa: D301 - click wants the character itself
    offer = session.neon.transfers.create(session.project_id(), ttl_seconds=ttl)
    emit(session, offer, [Column("id"), Column("project_id", "project"), Column("expires_at", "expires")])


@transfer.command()
@click.argument("project")
@click.argument("request")
@api_command(org=True, changes=True)
def accept(session: Session, *, project: str, request: str) -> None:
    """Take a PROJECT that is offered.

    REQUEST is the id of the offer. It becomes yours, or that of the organization.

    \b
    Examples:
      lamp projects transfer accept quiet-moon-12345678 0b9f... --org-id org-cool-breeze-12345678
    """  # noqa: D301 - click wants the character itself
    org_id = session.org_id()
    session.neon.transfers.accept(project, request, org_id=org_id)
    told = {"project_id": project, "request_id": request, "org_id": org_id, "accepted": True}
    emit(session, told, columns_of([told]))
