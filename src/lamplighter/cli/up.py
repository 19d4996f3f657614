"""`lamp up`: the platform in the foreground, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import click
import structlog
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from lamplighter.api.errors import ApiError
from lamplighter.cli.options import data_dir_option, given
from lamplighter.compute.errors import ComputeError
from lamplighter.control.errors import ControlError
from lamplighter.platform.server import Platform, PortBusy, running_platform
from lamplighter.platform.settings import Settings
from lamplighter.platform.state import AlreadyRunning
from lamplighter.storage.errors import StorageError

EXPECTED = (ApiError, ComputeError, ControlError, StorageError, AlreadyRunning, PortBusy, OSError)


class Progress:
    """Long steps: a line that changes on a terminal, one line each elsewhere. Everything goes to standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status = self._console.status("Starting") if self._console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def __call__(self, sentence: str) -> None:
        if self._status is not None:
            self._status.update(escape(sentence))
        else:
            click.echo(f"{sentence} ...", err=True)

    def clear(self) -> None:
        """Take the changing line away before something is printed."""
        if self._status is not None:
            self._status.stop()


def configure_logs(level: str) -> None:
    """Log to standard error: for people on a terminal, as JSON elsewhere."""
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def show_json(platform: Platform, data_dir: Path) -> None:
    """The same as `show` for programs: one line of JSON. What there is nothing to say of is null."""
    first = platform.first
    shown = {
        "base_url": platform.base_url,
        "api_key": first.api_key.reveal() if first.api_key else None,
        "project_id": first.project_id,
        "connection_uri": first.connection_uri.reveal() if first.connection_uri else None,
        "data_dir": str(data_dir),
        "storage_driver": platform.driver,
        "mended": list(platform.mended),
    }
    click.echo(json.dumps(shown))


def show(platform: Platform, data_dir: Path) -> None:
    """What a user needs to go on. Secrets appear here once, on standard output, and nowhere else."""
    first = platform.first
    click.echo(f"API          {platform.base_url}")
    if first.api_key is not None:
        click.echo(f"API key      {first.api_key.reveal()}   (shown once; keep it)")
    else:
        click.echo("API key      as before; `lamp up --new-key` makes another")
    if first.project_id is not None and first.connection_uri is not None:
        click.echo(f"Project      {first.project_id}")
        click.echo(f"Connection   {first.connection_uri.reveal()}")
    click.echo(f"Data         {data_dir} (branches by {platform.driver})")
    for sentence in platform.mended:
        click.echo(f"Mended       {sentence}")
    click.echo("Ready. Ctrl-C stops the platform.")


async def serve(settings: Settings, progress: Progress, *, new_key: bool, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Until it is up, a signal must interrupt whatever it is busy with.
    opening = asyncio.current_task()
    assert opening is not None  # noqa: S101 - we run inside a task
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, opening.cancel)
    async with running_platform(settings, report=progress, new_key=new_key) as platform:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        progress.clear()
        (show_json if as_json else show)(platform, settings.data_dir)
        await stop.wait()


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
@click.option("--rate-limits", type=click.Choice(["off", "neon"]), help="Limit requests as Neon does. [default: off]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--new-key", is_flag=True, help="Make another API key for the first user, and show it.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print where it answers.")
def up(new_key: bool, output: str, **options: Any) -> None:
    """Start the platform here, in the foreground.

    The first start fetches PostgreSQL and makes an API key and a project, which it prints. Ctrl-C stops everything;
    the next start finds it as it was left.
    """
    try:
        settings = Settings(**given(**options))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise click.UsageError(f"{place}: {fault['msg']}") from error
    configure_logs(settings.log_level)
    progress = Progress()
    try:
        runner = _runner()
        with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
            runner(serve(settings, progress, new_key=new_key, as_json=output == "json"))
    except EXPECTED as error:
        progress.clear()
        raise click.ClickException(str(error)) from error
    finally:
        progress.clear()


def _runner() -> Any:
    import uvloop  # noqa: PLC0415 - it is not there on every platform that the tools run on

    return uvloop.run
