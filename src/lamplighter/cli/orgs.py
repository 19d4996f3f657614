"""`lamp orgs`: organizations and who is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import Column, emit
from lamplighter.cli.session import api_command

if TYPE_CHECKING:
    from lamplighter.cli.session import Session

_COLUMNS = (
    Column("id"),
    Column("name"),
    Column("handle"),
    Column("plan"),
    Column("created_at", "Created"),
)
_MEMBERS = (
    Column("member.id", "Id"),
    Column("user.email", "Email"),
    Column("member.role", "Role"),
    Column("member.joined_at", "Joined"),
    Column("member.user_id", "User"),
)


@click.group(cls=NearGroup)
def orgs() -> None:
    """List organizations and their members.

    \b
    Examples:
      lamp orgs list
      lamp orgs members --org-id org-calm-sun-12345678
    """  # noqa: D301 - click wants the character itself


@orgs.command("list")
@api_command()
def list_(session: Session) -> None:
    """List the organizations of the caller.

    \b
    Examples:
      lamp orgs list --output json | jq -r '.[].id'
    """  # noqa: D301 - click wants the character itself
    emit(session, session.neon.users.organizations().all(), _COLUMNS, empty="There are no organizations.")


@orgs.command()
@click.argument("id_", metavar="[ID]", required=False)
@api_command(org=True)
def get(session: Session, id_: str | None) -> None:
    """Show one organization.

    \b
    Examples:
      lamp orgs get org-calm-sun-12345678
    """  # noqa: D301 - click wants the character itself
    emit(session, session.neon.organizations.get(id_ or organization(session)), _COLUMNS)


@orgs.command()
@api_command(org=True)
def members(session: Session) -> None:
    """List who belongs to an organization, and with which role.

    \b
    Examples:
      lamp orgs members --org-id org-calm-sun-12345678
    """  # noqa: D301 - click wants the character itself
    found = session.neon.organizations.members(organization(session)).all()
    emit(session, found, _MEMBERS, empty="There are no members.")


def organization(session: Session) -> str:
    """The organization that is meant, or the only one of the caller. Raises Failure."""
    return session.org_id() or session.only_organization()
