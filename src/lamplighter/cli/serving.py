"""The foreground run of `lamp up`: signals, logs, and what is printed when the platform is ready."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import signal
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Final

import click
import psutil
import structlog
import uvloop

from lamplighter.cli.errors import Failure
from lamplighter.cli.progress import Progress
from lamplighter.cli.streams import forgive
from lamplighter.client.contexts import Remembered, remember_platform
from lamplighter.platform.server import Platform, running_platform
from lamplighter.platform.settings import Settings

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Of a process that a signal was meant to end.
_LEFT_AT_ONCE = 130


class Phase(Enum):
    """Where a run is, as far as signals are concerned."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    #: Stopping, and somebody asked again.
    PRESSED = "pressed"


class Act(Enum):
    """What a signal brings about."""

    CANCEL = "cancel the start"
    STOP = "stop"
    EXPLAIN = "say that it is stopping"
    LEAVE = "leave at once"


#: The start is cancelled once only: a second cancellation would cut off the clean-up after the first. To leave at once
#: is what a crash does: computes go on, and the next `lamp up` or `lamp down` finds them.
SIGNALLED: Final[dict[Phase, tuple[Act, Phase]]] = {
    Phase.STARTING: (Act.CANCEL, Phase.STOPPING),
    Phase.RUNNING: (Act.STOP, Phase.STOPPING),
    Phase.STOPPING: (Act.EXPLAIN, Phase.PRESSED),
    Phase.PRESSED: (Act.LEAVE, Phase.PRESSED),
}


class Conductor:
    """Turns signals into the end of a run. Made inside of the task that runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = asyncio.current_task()
        self.phase = Phase.STARTING
        self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # nohup has SIGHUP ignored, so that the platform outlives its terminal. (A shell's `&` has SIGINT ignored,
            # but who sends that means it.)
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._signalled)

    async def serve(self, _platform: Platform) -> None:
        """Until a signal says stop."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.RUNNING
        await self._stop.wait()

    def _signalled(self) -> None:
        act, self.phase = SIGNALLED[self.phase]
        if act is Act.CANCEL:
            self._progress.give_up()
            self._progress("Stopping")
            _interrupt_children()
            assert self._task is not None
            self._task.cancel()
        elif act is Act.STOP:
            self._progress.unsettle()
            self._stop.set()
        elif act is Act.EXPLAIN:
            self._progress.clear()
            click.echo(
                "Still stopping: operations end and computes write what they hold. Once more leaves at once; "
                "computes then go on until `lamp down` or the next `lamp up`.",
                err=True,
            )
            self._progress("Stopping")
        else:
            self._progress.clear()
            os._exit(_LEFT_AT_ONCE)


def _interrupt_children() -> None:
    """Pass the signal on to the programs that a step of the start waits for, as a terminal's Ctrl-C does by itself.

    Postmasters have sessions of their own, and are not meant.
    """
    for child in psutil.Process().children():
        try:
            if os.getpgid(child.pid) == os.getpgrp():
                child.send_signal(signal.SIGINT)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue


class _Sink:
    """Standard error as it is at the moment: while a line turns on the terminal, rich stands in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logs(level: str) -> None:
    """Log to standard error: for people on a terminal, as JSON elsewhere."""
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.processors.JSONRenderer()
    if terminal:
        renderer = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(_Sink()),  # type: ignore[arg-type] # all that it uses of a TextIO
    )


def _remember(platform: Platform, settings: Settings) -> Remembered | None:
    """Write the context that `lamp` and the SDK find this platform by.

    Whatever fails here is only told: the key has been made, and what follows shows it.
    """
    try:
        return remember_platform(
            base_url=platform.base_url,
            data_dir=settings.data_dir,
            api_key=platform.first.api_key,
            project_id=platform.first.project_id,
        )
    except Exception as error:  # noqa: BLE001 - the same
        click.echo(f"Warning: this platform is no context of `lamp` and the SDK: {error}", err=True)
        return None


def ready_json(platform: Platform, settings: Settings, context: Remembered | None) -> str:
    """What a program needs to go on: one line of JSON. What there is nothing to say of is null."""
    first = platform.first
    return json.dumps(
        {
            "base_url": platform.base_url,
            "api_key": first.api_key.reveal() if first.api_key else None,
            "project_id": first.project_id,
            "connection_uri": first.connection_uri.reveal() if first.connection_uri else None,
            "context": context.name if context else None,
            "console_proxy": {"url": platform.console.url, "ca_file": platform.console.authority}
            if platform.console
            else None,
            "data_dir": str(settings.data_dir),
            "storage_driver": platform.driver,
            "mended": list(platform.mended),
        }
    )


def ready_text(platform: Platform, settings: Settings, context: Remembered | None) -> str:
    """What a user needs to go on. Secrets appear here once, on standard output, and nowhere else."""
    first = platform.first
    lines = [f"API          {platform.base_url}"]
    if first.api_key is not None:
        lines.append(f"API key      {first.api_key.reveal()}   (shown once; keep it)")
    else:
        lines.append("API key      as before; `lamp up --new-key` makes another")
    if first.project_id is not None and first.connection_uri is not None:
        lines.append(f"Project      {first.project_id}")
        lines.append(f"Connection   {first.connection_uri.reveal()}")
    if context is not None:
        how = "`lamp` and the SDK use it" if context.used else f"`lamp use {context.name}` chooses it"
        lines.append(f"Context      {context.name} ({how})")
    if platform.console is not None:
        trusted = shlex.quote(platform.console.authority)
        lines.append(f"Console      HTTPS_PROXY={platform.console.url} REQUESTS_CA_BUNDLE={trusted}")
    lines.append(f"Data         {settings.data_dir} (branches by {platform.driver})")
    lines += [f"Mended       {sentence}" for sentence in platform.mended]
    lines.append("Ready. Ctrl-C stops the platform.")
    return "\n".join(lines)


async def _serve(settings: Settings, progress: Progress, *, new_key: bool, as_json: bool) -> None:
    conductor = Conductor(progress)
    async with running_platform(settings, report=progress, new_key=new_key) as platform:
        progress.settle()
        context = _remember(platform, settings)
        click.echo((ready_json if as_json else ready_text)(platform, settings, context))
        await conductor.serve(platform)


def _make_data_dir(data_dir: Path) -> None:
    """Here, where it can be said which directory it is and what to do. Raises Failure."""
    hint = "name another directory with --data-dir"
    try:
        data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    except FileExistsError:
        raise Failure(f"{data_dir} is no directory", hint=hint) from None
    except OSError as error:
        raise Failure(f"the data directory {data_dir} cannot be made: {error.strerror}", hint=hint) from error
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise Failure(f"the data directory {data_dir} is not yours to write in", hint=hint)


def run(settings: Settings, *, new_key: bool, as_json: bool) -> None:
    """Run a platform until a signal ends it. Raises what `running_platform` raises."""
    forgive()
    configure_logs(settings.log_level)
    _make_data_dir(settings.data_dir)
    with Progress() as progress:
        progress.update("Starting")
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(settings, progress, new_key=new_key, as_json=as_json))
        except (asyncio.CancelledError, KeyboardInterrupt):
            progress.clear()
            click.echo("Stopped before the platform was up.", err=True)
        else:
            progress.clear()
            click.echo("Stopped.", err=True)
