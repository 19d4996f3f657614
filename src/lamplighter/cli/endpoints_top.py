"""`lamp endpoints top`: what passes through the endpoints of a platform now. Neon's cloud does not tell that."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from lamplighter.cli.errors import FAILED, NOT_THERE, Failure
from lamplighter.cli.groups import Command
from lamplighter.cli.harmless import clean
from lamplighter.cli.output import emit, screen_of
from lamplighter.cli.session import Session, api_command
from lamplighter.cli.top_view import Look, Row, columns_of, frame, look_of, rows_of, shown

if TYPE_CHECKING:
    from lamplighter.client._sync.sender import Sender

PATH = "/lamplighter/v1/endpoints/top"
_BASE = "/api/v2"
_CLOUD = ".neon.tech"
_INTERVAL = 2.0


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="Print the table once; so it does where it cannot refresh it.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=_INTERVAL, show_default=True, metavar="SECONDS",
    help="Time between two looks; rates are of that time.",
)  # fmt: skip
@click.option("--project-id", metavar="ID", help="Of this project alone. [default: all that the key may see]")
@api_command()
def top(session: Session, *, once: bool, interval: float, project_id: str | None) -> None:
    """Show endpoints with their connections, traffic and wakes, busiest first.

    On a terminal the table is refreshed until Ctrl-C. Only Lamplighter tells this. CONNS are open connections; wakes
    are those since the platform started. Rates take two looks, and so one interval.

    \b
    Examples:
      lamp endpoints top
      lamp endpoints top --once --interval 10
      lamp endpoints top --output json | jq '.[] | select(.connections > 0).id'
    """  # noqa: D301 - click wants the character itself
    watcher = Watcher(session, project_id or None)
    try:
        if once or session.output != "table" or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
            _print_once(session, watcher, interval)
        else:
            _refresh(watcher, interval)
    finally:
        watcher.close()


def _print_once(session: Session, watcher: Watcher, interval: float) -> None:
    before = watcher.look()
    time.sleep(interval)
    rows = rows_of(before, watcher.look())
    if session.output == "table":
        rows = [shown(row) for row in rows]
    # CSV has the same columns always.
    columns = columns_of([{"name": "any"}] if session.output == "csv" else rows, now=datetime.now(UTC))
    emit(session, rows, columns, empty="There are no endpoints.")


def _refresh(watcher: Watcher, interval: float) -> None:
    """Until Ctrl-C, which is how it is meant to end."""
    from rich.console import Console  # noqa: PLC0415 - some 60 ms, for a terminal only
    from rich.live import Live  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    before, after = None, watcher.look()
    console = Console(highlight=False)
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                text = _text(rows_of(before, after), watcher.trouble)
                live.update(Text.from_ansi(text, no_wrap=True, overflow="crop"), refresh=True)
                time.sleep(interval)
                later = watcher.look_again()
                if later is not None:
                    before, after = after, later
    except KeyboardInterrupt:
        return


def _text(rows: list[Row], trouble: str) -> str:
    lines = shutil.get_terminal_size().lines
    # Local time, as a clock on the wall.
    return frame(rows, now=datetime.now(UTC).astimezone(), screen=screen_of(sys.stdout), lines=lines, note=trouble)


class Watcher:
    """Asks a platform, and knows what its refusals mean. `trouble` is why there was no answer the last time."""

    def __init__(self, session: Session, project_id: str | None) -> None:
        server = session.neon.server
        if (urlsplit(server.base_url).hostname or "").endswith(_CLOUD):
            raise Failure(
                f"{server.base_url} does not tell what passes through its endpoints; only Lamplighter does",
                hint="`lamp endpoints list` shows their states; `lamp use` or --context chooses another server",
                status=NOT_THERE,
            )
        self._base_url = server.base_url
        self._sender = _sender(session)
        self._project_id = project_id
        self._clock: Callable[[], float] = time.monotonic
        self.trouble = ""

    def close(self) -> None:
        self._sender.close()

    def look(self) -> Look:
        """Raises Failure where the server is none of ours, and what the client raises."""
        from lamplighter.client.errors import NotAvailable, NotFound  # noqa: PLC0415 - the client is in use

        try:
            reply = self._ask()
            return look_of(reply, at=self._clock(), project_id=self._project_id)
        except (NotFound, NotAvailable) as error:
            raise Failure(
                f"{self._base_url} does not tell what passes through its endpoints",
                hint="only Lamplighter does, from the release that this command came with",
                status=NOT_THERE,
            ) from error
        except ValueError as error:
            raise Failure(f"{self._base_url}{PATH}: {error}", status=FAILED) from error

    def look_again(self) -> Look | None:
        """None while the server does not answer: a platform that restarts is no reason to end."""
        from lamplighter.client.errors import ConnectionFailed, ServerError  # noqa: PLC0415 - the client is in use

        try:
            found = self.look()
        except (ConnectionFailed, ServerError) as error:
            self.trouble = f"no answer: {clean(str(error))}"
            return None
        self.trouble = ""
        return found

    def _ask(self) -> Any:
        import json  # noqa: PLC0415 - for answers only

        from lamplighter.client.spec import Request  # noqa: PLC0415 - the client is in use

        answer = self._sender.send(Request(method="GET", path=PATH, operation_id=f"GET {PATH}", safe=True))
        return json.loads(answer.payload.reveal())


def _sender(session: Session) -> Sender:
    """A client of the same server and key, for what lies beside the API."""
    from lamplighter.client._sync.driver import Driver  # noqa: PLC0415 - `--help` does without
    from lamplighter.client._sync.sender import Sender  # noqa: PLC0415 - the same
    from lamplighter.client.options import Options  # noqa: PLC0415 - the same
    from lamplighter.client.retry import RetryPolicy  # noqa: PLC0415 - the same

    server = session.neon.server
    beside = replace(server, base_url=server.base_url.removesuffix(_BASE))
    return Sender(Driver(beside), Options(retry=RetryPolicy(retries=1)), None)
