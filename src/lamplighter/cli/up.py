"""`lamp up`: the platform in the foreground, until Ctrl-C. What it does is in `serving`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lamplighter.cli.options import data_dir_option, output_option
from lamplighter.cli.settings import read_settings


@click.command()
@data_dir_option
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API; 0 takes a free one. [default: 7432]")
@click.option("--host", help="Address of the API. [default: 127.0.0.1]")
@click.option("--postgres-bin", type=click.Path(path_type=Path), help="Use the PostgreSQL programs in this directory.")
@click.option("--catalog-url", help="Keep the catalog in this Postgres database instead of one of our own.")
@click.option(
    "--storage-driver",
    type=click.Choice(["btrfs", "reflink", "overlay", "copy"]),
    help="How branches are copied. [default: the best that works]",
)
@click.option("--endpoint-ports", nargs=2, type=int, help="First and last port for endpoints. [default: 20000 29999]")
@click.option("--compute-ports", nargs=2, type=int, help="Ports behind the gateway. [default: 30000 32767]")
@click.option("--listen", help="Address that endpoints listen on; 0.0.0.0 for a network. [default: 127.0.0.1]")
@click.option("--domain", help="Endpoints are <id>.DOMAIN on one port, told apart by TLS (SNI).")
@click.option("--domain-port", type=click.IntRange(1, 65535), help="That port. [default: 5432]")
@click.option(
    "--console-proxy",
    type=click.IntRange(0, 65535),
    help="Port of an HTTPS proxy for clients that have Neon's address built in. [default: none]",
)
@click.option(
    "--tls-certificate", type=click.Path(path_type=Path), help="Your own certificate, PEM, read when changed."
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key.")
@click.option("--redirect", is_flag=True, default=None, help="Lead clients to awake computes by nftables (root).")
@click.option(
    "--endpoint-connections", type=click.IntRange(1), help="How many clients an endpoint may have. [default: 10000]"
)
@click.option("--active-endpoints", type=click.IntRange(1), help="How many endpoints may be active. [default: all]")
@click.option(
    "--suspend-after", type=click.IntRange(1), help="Seconds without clients before an endpoint sleeps. [default: 300]"
)
@click.option("--rate-limits", type=click.Choice(["off", "neon"]), help="Limit requests as Neon does. [default: off]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: warning]")
@click.option("--new-key", is_flag=True, help="Make another API key for the first user, and show it.")
@output_option
def up(new_key: bool, output: str, **options: Any) -> None:
    """Start the platform here, in the foreground.

    The first start fetches PostgreSQL and makes an API key and a project, which it prints. Ctrl-C (or SIGTERM, or the
    end of the terminal) stops everything; the next start finds it as it was left. Every option can be set by the
    environment too: LAMP_PORT for --port, and so on.

    \b
    Examples:
      lamp up
      lamp up --data-dir ./neon --port 0
      lamp up --output json > platform.json    for programs: one line when it is ready
    """  # noqa: D301 - click wants the character itself
    settings = read_settings(**options)
    from lamplighter.cli.serving import run  # noqa: PLC0415 - half a second of imports that `--help` does without

    run(settings, new_key=new_key, as_json=output == "json")
