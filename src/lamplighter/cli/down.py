"""`lamp down`: stop the platform from another terminal, or what a crashed one has left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lamplighter.cli.errors import Failure
from lamplighter.cli.options import data_dir_option
from lamplighter.cli.settings import data_dir_of
from lamplighter.cli.text import plural

if TYPE_CHECKING:
    from lamplighter.platform.halt import Halted


@click.command()
@data_dir_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the end.",
)
def down(data_dir: Path | None, timeout: float) -> None:
    """Stop the platform that runs on a data directory.

    As Ctrl-C in its terminal does: computes write what they hold before they end, and nothing is lost. When the
    platform itself has crashed, the computes that it left running are stopped. No platform running is no error.

    Exit status: 0 nothing runs any more, 1 something still runs.

    \b
    Examples:
      lamp down
      lamp down --data-dir ./neon --timeout 300
    """  # noqa: D301 - click wants the character itself
    from lamplighter.cli.progress import Progress  # noqa: PLC0415 - `--help` does without
    from lamplighter.platform.halt import halt  # noqa: PLC0415 - the same

    place = data_dir_of(data_dir)
    with Progress() as progress:
        halted = halt(place, seconds=timeout, tick=lambda passed, left: progress.update(waiting(passed, left)))
    click.echo(told(halted, place))
    if halted.left.problems:
        raise Failure("\n".join(halted.left.problems), hint="`lamp doctor` shows what is left")


def waiting(passed: float, computes: int) -> str:
    """What the line says meanwhile. Pure."""
    left = f", {plural(computes, 'compute')} left" if computes else ""
    return f"Stopping the platform: {passed:.0f} s{left}"


def told(halted: Halted, data_dir: Path) -> str:
    """What happened. Pure."""
    lines = []
    if halted.pid is not None:
        lines.append(f"The platform on {data_dir} has stopped (process {halted.pid}, {halted.seconds:.1f} s).")
    elif halted.left:
        lines.append(f"No platform runs on {data_dir}, but one had crashed there.")
    else:
        lines.append(f"No platform runs on {data_dir}.")
    if halted.left.computes:
        lines.append(f"Stopped what it had left: {', '.join(halted.left.computes)}.")
    if pids := halted.left.gateways:
        ended = f"{plural(len(pids), 'process', 'processes')} ({', '.join(map(str, pids))})"
        lines.append(f"Ended what passed connections on: {ended}.")
    return "\n".join(lines)
