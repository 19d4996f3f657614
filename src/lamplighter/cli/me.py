"""`lamp me`: who calls, and which server answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.groups import Command
from lamplighter.cli.output import Column, emit, plain_of
from lamplighter.cli.session import api_command

if TYPE_CHECKING:
    from lamplighter.cli.session import Session

_KEYS = {"api_key_user": "a person", "api_key_org": "an organization"}
_COLUMNS = (
    Column("server.base_url", "Server"),
    Column("server.source", "Chosen by"),
    Column("name", "Name"),
    Column("email", "Email"),
    Column("id", "Account"),
    Column("auth_method", "Key of", show=lambda kind: _KEYS.get(kind, str(kind))),
    Column("plan", "Plan"),
    Column("projects_limit", "Projects at most"),
)


@click.command(cls=Command)
@api_command()
def me(session: Session) -> None:
    """Show who the key belongs to, and which server it is for.

    JSON and YAML have all that the server says of the caller, `auth_method` (the kind of key), and `server`.

    \b
    Examples:
      lamp me
      lamp me --output json | jq -r .email
    """  # noqa: D301 - click wants the character itself
    from lamplighter.client.errors import NotFound  # noqa: PLC0415 - the client is in use

    neon = session.neon
    details = plain_of(neon.users.auth_details())
    facts: dict[str, Any] = {
        "id": details.get("account_id"),
        "auth_method": details.get("auth_method"),
        "server": {"base_url": neon.server.base_url, "source": neon.server.source, "context": neon.server.name},
    }
    try:
        facts |= plain_of(neon.users.me())
    except NotFound:
        # That is what an organization's key is answered: it belongs to no person.
        if details.get("auth_method") == "api_key_user":
            raise
    emit(session, facts, _COLUMNS)
