"""`lamp`: the command. Each subcommand lives in a module of its own, imported only when it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from lamplighter import __version__
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.streams import open_missing

#: Name: module and attribute of the command, and its line in `lamp --help`, which must not import it.
SERVER: Mapping[str, tuple[str, str]] = {
    "projects": ("lamplighter.cli.projects:projects", "List, create, change and delete projects."),
    "branches": ("lamplighter.cli.branches:branches", "List, create, compare and delete branches."),
    "endpoints": (
        "lamplighter.cli.endpoints:endpoints",
        "List, create, change, start, suspend and delete endpoints.",
    ),
    "databases": ("lamplighter.cli.databases:databases", "List, create, change and delete databases of a branch."),
    "roles": (
        "lamplighter.cli.roles:roles",
        "List, create and delete roles of a branch, and see or reset their passwords.",
    ),
    "operations": ("lamplighter.cli.operations:operations", "List operations, and wait for them."),
    "snapshots": ("lamplighter.cli.snapshots:snapshots", "List, create, restore and delete snapshots of branches."),
    "connection-string": (
        "lamplighter.cli.connection_string:connection_string",
        "Print the connection string of a branch, password included.",
    ),
    "psql": ("lamplighter.cli.psql:psql", "Connect to a branch with psql."),
    "watch": (
        "lamplighter.cli.watch:watch",
        "Show operations and states of endpoints as they change, a line each.",
    ),
    "api": ("lamplighter.cli.api:api", "Call any operation of the API."),
    "regions": ("lamplighter.cli.regions:regions", "List the regions that projects can live in."),
}
ACCOUNT: Mapping[str, tuple[str, str]] = {
    "me": ("lamplighter.cli.me:me", "Show who the key belongs to, and which server it is for."),
    "orgs": ("lamplighter.cli.orgs:orgs", "List organizations and their members."),
    "api-keys": ("lamplighter.cli.api_keys:api_keys", "List, create and revoke API keys."),
    "keys": (
        "lamplighter.cli.keys:keys",
        "Mint API keys, put them into stores, rotate, audit and revoke them.",
    ),
    "login": ("lamplighter.cli.login:login", "Keep the API key of a server, under a name."),
    "logout": ("lamplighter.cli.login:logout", "Forget the key of a server."),
    "use": ("lamplighter.cli.use:use", "Choose the server that commands and the SDK talk to."),
    "context": ("lamplighter.cli.context:context", "List, show and remove the servers that have names."),
}
PLATFORM: Mapping[str, tuple[str, str]] = {
    "up": ("lamplighter.cli.up:up", "Start the platform here, in the foreground."),
    "down": ("lamplighter.cli.down:down", "Stop the platform that runs on a data directory."),
    "status": ("lamplighter.cli.status:status", "Show the running platform, its branches and computes."),
    "ca": (
        "lamplighter.cli.ca:ca",
        "Print the certificate of the authority that this platform's Postgres is known by.",
    ),
    "doctor": ("lamplighter.cli.doctor:doctor", "Check what this host offers, and look for leftovers."),
    "postgres": ("lamplighter.cli.postgres:postgres", "List, install and remove PostgreSQL versions."),
    "storage": ("lamplighter.cli.storage:storage", "Make a copy-on-write pool, and show it."),
    "openapi": ("lamplighter.cli.openapi:openapi", "Print the OpenAPI document of the API."),
}
TOOLS: Mapping[str, tuple[str, str]] = {
    "completion": ("lamplighter.cli.completion:completion", "Print what makes a shell complete `lamp`."),
}
SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Talk to a server, Neon's cloud or your own": SERVER,
    "Choose the server, and who you are there": ACCOUNT,
    "Run the platform here": PLATFORM,
    "Tools": TOOLS,
}
COMMANDS: Mapping[str, tuple[str, str]] = {**SERVER, **ACCOUNT, **PLATFORM, **TOOLS}

#: Other names that the neon CLI has for the same.
ALIASES: Mapping[str, str] = {
    "project": "projects",
    "branch": "branches",
    "endpoint": "endpoints",
    "database": "databases",
    "db": "databases",
    "role": "roles",
    "operation": "operations",
    "org": "orgs",
    "api-key": "api-keys",
    "snapshot": "snapshots",
    "cs": "connection-string",
}


class LazyGroup(NearGroup):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        found = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if found is None:
            return None
        module, _, attribute = found[0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        widest = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), text) for name, (_, text) in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="lamp")
def lamp() -> None:
    """Neon you can run yourself, and the tools to run any Neon.

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found or not running, 4 conflict or locked, 5 authentication,
    6 rate limited, 7 timed out.

    \b
    Examples:
      lamp up                        start the platform; the first time it makes a key and a project
      lamp me                        which server commands talk to, and as whom
      lamp branches create --name dev
      lamp psql dev -- -c "select 1"
      lamp projects list -o json     for programs
    """  # noqa: D301 - click wants the character itself


def run(arguments: Sequence[str] | None = None) -> Any:
    """Run a command and end the process. Expected errors become one line on standard error; others are ours."""
    open_missing()
    given = sys.argv[1:] if arguments is None else list(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        # A terminal that cannot show a character gets its number, and not a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = lamp.main(args=given, prog_name="lamp", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - what is not expected is raised again
        _fail(error, given)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(error: BaseException, given: Sequence[str]) -> NoReturn:
    from lamplighter.cli.errors import FAILED, INTERRUPTED, Failure, failure_of  # noqa: PLC0415 - something failed

    if isinstance(error, click.exceptions.Abort):
        interrupted = isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)
        sys.exit(INTERRUPTED if interrupted else FAILED)
    shown: click.ClickException | None
    shown = error if isinstance(error, click.ClickException) else failure_of(error)
    if shown is None:
        raise error
    if not wants_json(given):
        shown.show()
    else:
        failure = shown if isinstance(shown, Failure) else Failure(shown.format_message(), status=shown.exit_code)
        click.echo(failure.as_json(), err=True)
    sys.exit(shown.exit_code)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON: errors are then JSON too, even those of the command line. Pure."""
    asked = False
    for place, word in enumerate(arguments):
        if word == "--":
            break
        if word in ("--output", "-o") and place + 1 < len(arguments):
            asked = arguments[place + 1] == "json"
        elif word.startswith(("--output=", "-ojson", "-o=")):
            asked = word in ("--output=json", "-ojson")
    return asked
