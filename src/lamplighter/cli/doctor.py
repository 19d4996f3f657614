"""`lamp doctor`: what this host offers, what is wrong, and what was left."""

from __future__ import annotations

from pathlib import Path

import click

from lamplighter.cli.errors import FAILED
from lamplighter.cli.options import data_dir_option, output_option
from lamplighter.cli.settings import read_settings


@click.command()
@data_dir_option
@click.option(
    "--fix",
    is_flag=True,
    help="Remove kernel redirects (nftables tables) of platforms that are gone, of every data directory; tell for each "
    "other leftover who takes it away. Nothing else is changed: `lamp up` mends what it may when it starts.",
)
@output_option
def doctor(data_dir: Path | None, fix: bool, output: str) -> None:
    """Check what this host offers, and look for leftovers.

    Tells which PostgreSQL versions there are, what they lack, which storage drivers work here and why one was chosen,
    what a branch costs on this file system (measured), space, ports, limits, and what belongs to nothing. The
    settings are those that `lamp up` would take from the environment. Takes some seconds, and changes nothing
    without --fix.

    Exit status: 0 a platform can run here, 1 something prevents it.

    \b
    Examples:
      lamp doctor
      lamp doctor --fix
      lamp doctor --data-dir /srv/neon --output json | jq .problems
    """  # noqa: D301 - click wants the character itself
    settings = read_settings(data_dir=data_dir)
    from lamplighter.cli.progress import Progress  # noqa: PLC0415 - `--help` does without
    from lamplighter.platform.checkup import examine  # noqa: PLC0415 - the same

    if fix:
        remove_redirects()
    with Progress() as progress:
        checkup = examine(settings, progress.update)
    if output == "json":
        from lamplighter.cli.views import as_json  # noqa: PLC0415 - for JSON only

        click.echo(as_json(checkup))
    else:
        from lamplighter.cli.doctor_view import checkup_text  # noqa: PLC0415 - for text only

        click.echo(checkup_text(checkup, fix=fix))
    if checkup.problems:
        click.get_current_context().exit(FAILED)


def remove_redirects() -> None:
    """Remove the tables of platforms that are gone, and say so on stderr. What cannot be removed stays a leftover."""
    from lamplighter.platform.errors import RedirectFailed  # noqa: PLC0415 - `--help` does without
    from lamplighter.platform.redirect import leftover, repair  # noqa: PLC0415 - `--help` does without

    for table in leftover():
        try:
            repair([table])
        except RedirectFailed as error:
            click.echo(f"The nftables table {table.name} stays: {error.why}.", err=True)
        else:
            click.echo(f"Removed the nftables table {table.name}, of a platform that does not run.", err=True)
