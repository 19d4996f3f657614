"""`lamp`: the command. Each subcommand lives in a module of its own, imported only when it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from lamplighter import __version__
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.streams import open_missing

#: Name: module and attribute of the command, and its line in `lamp --help`, which must not import it.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("lamplighter.cli.up:up", "Start the platform here, in the foreground."),
    "down": ("lamplighter.cli.down:down", "Stop the platform that runs on a data directory."),
    "status": ("lamplighter.cli.status:status", "Show the running platform, its branches and computes."),
    "doctor": ("lamplighter.cli.doctor:doctor", "Check what this host offers, and look for leftovers."),
    "postgres": ("lamplighter.cli.postgres:postgres", "List, install and remove PostgreSQL versions."),
    "storage": ("lamplighter.cli.storage:storage", "Make a copy-on-write pool, and show it."),
    "openapi": ("lamplighter.cli.openapi:openapi", "Print the OpenAPI document of the API."),
}


class LazyGroup(NearGroup):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="lamp")
def lamp() -> None:
    """Neon you can run yourself, and the tools to run any Neon.

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found or not running.

    \b
    Examples:
      lamp doctor      what this host offers
      lamp up          start the platform; the first time it makes a key and a project
      lamp status      in another terminal: what runs
    """  # noqa: D301 - click wants the character itself


def run(arguments: Sequence[str] | None = None) -> Any:
    """Run a command and end the process. Expected errors become one line on standard error; others are ours."""
    open_missing()
    try:
        return lamp.main(args=None if arguments is None else list(arguments), prog_name="lamp")
    except Exception as error:
        from lamplighter.cli.errors import failure_of  # noqa: PLC0415 - needed when something failed

        failure = failure_of(error)
        if failure is None:
            raise
        failure.show()
        sys.exit(failure.exit_code)
