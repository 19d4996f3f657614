"""`lamp psql`: a session of psql on a branch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lamplighter.cli.connection_string import connection_options, resolve
from lamplighter.cli.connections import environment
from lamplighter.cli.groups import Command
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.values import Source

if TYPE_CHECKING:
    from lamplighter.api.models.endpoints import Endpoint
    from lamplighter.cli.connections import Parts


_AFTER = "lamplighter.cli.psql.arguments"


class Passing(Command):
    """A command that keeps what follows `--` for another program. click would take it for arguments of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            ctx.meta[_AFTER] = tuple(args[place + 1 :])
            args = args[:place]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- PSQL_ARGUMENTS...]"]


@click.command(cls=Passing)
@connection_options
@api_command(project=True, branch=True)
def psql(
    session: Session,
    *,
    source: Source | None,
    role_name: str | None,
    database_name: str | None,
    pooled: bool,
    endpoint_type: str | None,
    ssl: str | None,
) -> None:
    """Connect to a branch with psql.

    psql is that of the PATH, else one that came with a version that `lamp postgres` installed. What follows -- is for
    psql. The password goes into psql's environment, and never onto its command line. The exit status is psql's.

    \b
    Examples:
      lamp psql
      lamp psql dev -- -c "select 1"
      lamp psql --branch dev --database-name shop -- --csv -f report.sql
    """  # noqa: D301 - click wants the character itself
    parts, endpoint = resolve(
        session, source, role=role_name, database=database_name, pooled=pooled, kind=endpoint_type, ssl=ssl
    )
    run_psql(session, parts, endpoint, click.get_current_context().meta.get(_AFTER, ()))


def run_psql(session: Session, parts: Parts, endpoint: Endpoint | None, arguments: Sequence[str]) -> None:
    """Become psql, so that signals and its exit status are its own. Does not return."""
    from lamplighter.cli.programs import find_program  # noqa: PLC0415 - `--help` does without

    program = find_program("psql")
    if endpoint is not None:
        wake(session, endpoint)
    session.close()
    sys.stdout.flush()
    sys.stderr.flush()
    env = environment(parts, os.environ) | program.environment
    # By its path: psql looks for its own files from where its name leads.
    os.execve(program.path, [str(program.path), *arguments], env)  # noqa: S606 - no shell, by design


def wake(session: Session, endpoint: Endpoint) -> None:
    """Start an endpoint that is suspended: not every server does so when somebody connects.

    A key that may not do that leaves it to the server.
    """
    from lamplighter.client.errors import NotAvailable, PermissionDenied  # noqa: PLC0415 - the client is in use

    if endpoint.current_state != "idle" or endpoint.pending_state not in (None, "idle"):
        return
    try:
        with session.waiting(f"Starting {endpoint.id}"):
            session.neon.endpoints.start(session.project_id(), endpoint.id, wait=60)
    except (PermissionDenied, NotAvailable):
        return
