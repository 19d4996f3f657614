"""`lamp api-keys`: keys of the account, of an organization, or of one project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.errors import USAGE, Failure
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.output import Column, emit
from lamplighter.cli.session import api_command

if TYPE_CHECKING:
    from lamplighter.cli.session import Session

_COLUMNS = (
    Column("id", right=True),
    Column("name"),
    Column("project_id", "Project"),
    Column("created_at", "Created"),
    Column("created_by.name", "By"),
    Column("last_used_at", "Last used"),
    Column("last_used_from_addr", "From"),
)
_CREATED = (Column("id"), Column("name"), Column("project_id", "Project"), Column("key"))
_REVOKED = (Column("id"), Column("name"), Column("revoked"), Column("last_used_at", "Last used"))

_PROJECT = click.option("--project-id", help="Make a key that reaches this project alone.")


@click.group("api-keys", cls=NearGroup)
def api_keys() -> None:
    """List, create and revoke API keys.

    Without --org-id they are those of your account.

    \b
    Examples:
      lamp api-keys list
      lamp api-keys create --name ci
    """  # noqa: D301 - click wants the character itself


@api_keys.command("list")
@api_command(org=True)
def list_(session: Session) -> None:
    """List the keys, with when and from where each was last used. The keys themselves cannot be seen again.

    \b
    Examples:
      lamp api-keys list
      lamp api-keys list --org-id org-calm-sun-12345678 --output json
    """  # noqa: D301 - click wants the character itself
    org, neon = session.options.org_id, session.neon
    found: list[Any] = list(neon.organizations.api_keys(org).all() if org else neon.api_keys.list().all())
    emit(session, found, _COLUMNS, empty="There are no keys.")


@api_keys.command()
@click.option("--name", required=True, help="What the key is called, to know it again.")
@_PROJECT
@click.option("--key-only", is_flag=True, help="Print the key and nothing else, for a pipe.")
@api_command(org=True, changes=True)
def create(session: Session, name: str, project_id: str | None, key_only: bool) -> None:
    """Create a key and print it: it cannot be seen again.

    With --org-id it acts for that organization. With --project-id it reaches that project alone; the organization is
    then the project's.

    \b
    Examples:
      lamp api-keys create --name ci
      lamp api-keys create --name ci --project-id calm-sun-12345678 --output json | jq -r .key
      lamp api-keys create --name laptop --key-only | lamp login work --key-stdin
    """  # noqa: D301 - click wants the character itself
    org, neon = session.options.org_id, session.neon
    if project_id is not None:
        org = org or neon.projects.get(project_id).org_id
        if not org:
            raise Failure(
                f"project {project_id} belongs to no organization, and only those have keys for one project",
                hint="leave out --project-id for a key of your account",
                status=USAGE,
            )
    made: Any
    if org:
        made = neon.organizations.create_api_key(org, name=name, project_id=project_id)
    else:
        made = neon.api_keys.create(name=name)
    if project_id is not None and made.project_id != project_id:
        # Never hand out a key that reaches more than was asked for.
        neon.organizations.revoke_api_key(str(org), made.id)
        raise Failure(f"the server made a key that is not for project {project_id} alone; it is revoked again")
    if key_only:
        click.echo(made.key)
    else:
        emit(session, made, _CREATED, secrets=True)


@api_keys.command()
@click.argument("id_", metavar="ID", type=int)
@api_command(org=True, destructive=True)
def revoke(session: Session, id_: int) -> None:
    """Revoke a key, at once and for good.

    \b
    Examples:
      lamp api-keys revoke 165432
      lamp api-keys revoke 165432 --org-id org-calm-sun-12345678 --yes
    """  # noqa: D301 - click wants the character itself
    org, neon = session.options.org_id, session.neon
    if not session.yes:
        session.confirm([_known(session, id_)])
    gone: Any = neon.organizations.revoke_api_key(org, id_) if org else neon.api_keys.revoke(id_)
    emit(session, gone, _REVOKED)


def _known(session: Session, key_id: int) -> str:
    """What is known of a key, for the question."""
    org, neon = session.options.org_id, session.neon
    found: list[Any] = list(neon.organizations.api_keys(org).all() if org else neon.api_keys.list().all())
    name = next((f" {one.name!r}" for one in found if one.id == key_id), "")
    return f"API key {key_id}{name}: whatever uses it is locked out"
