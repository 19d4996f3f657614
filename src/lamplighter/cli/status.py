"""`lamp status`: what runs, and what it takes."""

from __future__ import annotations

from pathlib import Path

import click

from lamplighter.cli.errors import NOT_THERE
from lamplighter.cli.options import data_dir_option, output_option
from lamplighter.cli.settings import data_dir_of


@click.command()
@data_dir_option
@click.option("--catalog-url", envvar="LAMP_CATALOG_URL", help="Where the catalog is, when `lamp up` was given one.")
@output_option
def status(data_dir: Path | None, catalog_url: str | None, output: str) -> None:
    """Show the running platform, its branches and computes.

    Needs no API key; run it as the user who runs the platform (or as root, to see less of it). MEMORY is a compute's
    own share (PSS), OWN what a branch does not share with others on disk, LOGICAL the size of its databases.

    Exit status: 0 the platform runs, 3 it does not.

    \b
    Examples:
      lamp status
      lamp status --output json | jq -r '.projects[].branches[].endpoints[].port'
    """  # noqa: D301 - click wants the character itself
    from lamplighter.cli.progress import Progress  # noqa: PLC0415 - `--help` does without
    from lamplighter.platform.inspect import read_status  # noqa: PLC0415 - the same

    with Progress() as progress:
        facts = read_status(data_dir_of(data_dir), catalog_url=catalog_url, report=progress.update)
    if output == "json":
        from lamplighter.cli.views import as_json  # noqa: PLC0415 - for JSON only

        click.echo(as_json(facts))
    else:
        import time  # noqa: PLC0415 - for text only

        from lamplighter.cli.views import status_text  # noqa: PLC0415 - the same

        click.echo(status_text(facts, now=time.time()))
    if facts.platform.state != "running":
        click.get_current_context().exit(NOT_THERE)
