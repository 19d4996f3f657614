"""`lamp openapi`: the API's description, made from the table of operations."""

from __future__ import annotations

import click


@click.command()
@click.option("--server", metavar="URL", help="Where the server answers, such as http://127.0.0.1:7432.")
def openapi(server: str | None) -> None:
    """Print the OpenAPI document of the API.

    As JSON. It needs no running platform, which serves the same at /openapi.json.

    \b
    Examples:
      lamp openapi > openapi.json
    """  # noqa: D301 - click wants the character itself
    import json  # noqa: PLC0415 - `--help` does without

    from lamplighter import __version__  # noqa: PLC0415 - the same
    from lamplighter.control.http.openapi import document  # noqa: PLC0415 - the same

    click.echo(json.dumps(document(server_url=server, version=__version__), indent=2, ensure_ascii=False))
