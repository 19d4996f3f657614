"""`lamp regions`: where projects can live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lamplighter.cli.groups import Command
from lamplighter.cli.output import Column, emit
from lamplighter.cli.session import api_command

if TYPE_CHECKING:
    from lamplighter.cli.session import Session

_COLUMNS = (
    Column("region_id", "Id"),
    Column("name"),
    Column("default"),
    Column("geo_lat", "Latitude", right=True),
    Column("geo_long", "Longitude", right=True),
)


@click.command(cls=Command)
@api_command(org=True)
def regions(session: Session) -> None:
    """List the regions that projects can live in.

    \b
    Examples:
      lamp regions
      lamp regions --output csv
    """  # noqa: D301 - click wants the character itself
    emit(session, session.neon.regions.list(org_id=session.org_id()).all(), _COLUMNS, empty="There are no regions.")
