"""`lamp connection-string`: where a role reaches a database of a branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lamplighter.cli.connections import SSL_MODES, at_point, for_prisma, parts_of, with_ssl
from lamplighter.cli.errors import Failure
from lamplighter.cli.finding import choose_database, endpoint_of, find_branch
from lamplighter.cli.groups import Command
from lamplighter.cli.harmless import clean
from lamplighter.cli.output import columns_of, emit, write
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.values import BranchAt, Source

if TYPE_CHECKING:
    from lamplighter.api.models.endpoints import Endpoint
    from lamplighter.cli.connections import Parts

F = TypeVar("F", bound=Callable[..., Any])


def connection_options(function: F) -> F:
    """What to connect to and how, for `lamp connection-string` and `lamp psql`."""
    for option in (
        click.option(
            "--ssl", type=click.Choice(SSL_MODES), help="The sslmode to ask for. [default: as the server says]"
        ),
        click.option("--endpoint-type", type=click.Choice(["read_only", "read_write"]), help="Which of its endpoints."),
        click.option("--pooled", is_flag=True, help="Through the pooler."),
        click.option("--database-name", help="The database. [default: the only one]"),
        click.option("--role-name", help="The role. [default: the database's owner]"),
        click.argument("source", metavar="[BRANCH[@POINT]]", type=BranchAt(), required=False),
    ):
        function = option(function)
    return function


@click.command("connection-string", cls=Command)
@connection_options
@click.option("--prisma", is_flag=True, help="With the parameters that Prisma needs.")
@click.option("--extended", is_flag=True, help="Print its parts as well.")
@click.option("--psql", "connect", is_flag=True, help="Connect with psql instead of printing it.")
@api_command(project=True, branch=True)
def connection_string(
    session: Session,
    *,
    source: Source | None,
    role_name: str | None,
    database_name: str | None,
    pooled: bool,
    endpoint_type: str | None,
    ssl: str | None,
    prisma: bool,
    extended: bool,
    connect: bool,
) -> None:
    """Print the connection string of a branch, password included.

    BRANCH is a name or id, by default that of --branch, of the .neon file, or the default branch. Where the server has
    it, BRANCH@POINT connects to the branch as it was at a time or LSN.

    \b
    Examples:
      lamp connection-string
      lamp connection-string dev --pooled
      psql "$(lamp connection-string dev --database-name shop --role-name reader)"
      lamp connection-string main@2026-01-31T12:00:00Z
    """  # noqa: D301 - click wants the character itself
    parts, endpoint = resolve(
        session, source, role=role_name, database=database_name, pooled=pooled, kind=endpoint_type, ssl=ssl
    )
    if connect:
        from lamplighter.cli.psql import run_psql  # noqa: PLC0415 - for this option only

        run_psql(session, parts, endpoint, ())
        return
    show(session, for_prisma(parts, pooled=pooled) if prisma else parts, extended=extended)


def resolve(
    session: Session,
    source: Source | None,
    *,
    role: str | None,
    database: str | None,
    pooled: bool,
    kind: str | None,
    ssl: str | None,
) -> tuple[Parts, Endpoint]:
    """The connection that is meant, and the endpoint behind it. Raises Failure."""
    branch = find_branch(session, source.branch if source else None)
    endpoint = endpoint_of(session, branch, kind=kind)
    database, role = choose_database(session, branch, database=database, role=role)
    uri = session.neon.projects.connection_uri(
        session.project_id(),
        branch_id=branch.id,
        endpoint_id=endpoint.id,
        database_name=database,
        role_name=role,
        pooled=True if pooled else None,
    )
    try:
        parts = with_ssl(parts_of(uri), ssl)
        if source is not None and source.point is not None:
            parts = at_point(parts, endpoint_id=endpoint.id, branch_id=branch.id, point=source.point)
    except ValueError as error:
        raise Failure(str(error)) from None
    return parts, endpoint


def show(session: Session, parts: Parts, *, extended: bool) -> None:
    """The string alone on a line for people, with its parts for programs and for those who ask."""
    if session.output == "table" and not extended:
        write(clean(parts.uri) + "\n")
        return
    told = {
        "connection_string": parts.uri,
        "host": parts.host,
        "port": parts.port,
        "role": parts.role,
        "password": parts.password,
        "database": parts.database,
        "options": "&".join(f"{name}={value}" for name, value in parts.parameters),
    }
    emit(session, told, columns_of([told]), secrets=True)
