"""`lamp`: the command. Each subcommand lives in a module of its own, imported only when it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from lamplighter import __version__

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


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("lamplighter"):
                raise
            raise click.ClickException(
                f"`lamp {cmd_name}` needs the platform ({error.name} is missing): pip install 'lamplighter[platform]'"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="lamp")
def lamp() -> None:
    """Neon you can run yourself, and the tools to run any Neon."""


def main(arguments: Sequence[str] | None = None) -> Any:
    """The entry point of the `lamp` script."""
    try:
        return lamp.main(args=None if arguments is None else list(arguments), prog_name="lamp")
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes at exit.
        sys.stderr.close()
        sys.exit(1)
