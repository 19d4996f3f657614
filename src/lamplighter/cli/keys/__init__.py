"""`lamp keys`: API keys from their minting to their end. Each verb is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

import click

from lamplighter.cli.groups import NearGroup

_HERE: Final = "lamplighter.cli.keys"

#: Verb: module and attribute of the command, and its line in `lamp keys --help`.
VERBS: Final[Mapping[str, tuple[str, str]]] = {
    "init": ("setup:init", "Set up the minter, and say what it can and cannot do."),
    "list": ("listing:list_", "List keys: owner, age, last use, reach, lineage."),
    "mint": ("rotation:mint", "Mint a key and put it into stores."),
    "rotate": ("rotation:rotate", "Put a new key in the place of an old one, everywhere, then revoke that."),
    "plan": ("planning:plan", "Show what a rotation would do."),
    "recover": ("rotation:recover", "Finish or undo what was interrupted."),
    "status": ("showing:status", "Show where each rotation is, by the journal alone."),
    "history": ("showing:history", "Show what was done, by the journal alone."),
    "audit": ("auditing:audit", "Look for keys and stores that are not as they should be."),
    "adopt": ("ending:adopt", "Take a key that somebody else made into a lineage."),
    "revoke": ("ending:revoke", "Revoke keys, by id."),
    "emergency": ("leaking:emergency", "A key leaked: revoke it now, then put another in its place."),
    "forget": ("ending:forget", "Say that a store holds no key of a lineage any more."),
    "sinks": ("stores:sinks", "List stores, and try one."),
}


class LazyVerbs(NearGroup):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"{_HERE}.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group("keys", cls=LazyVerbs)
def keys() -> None:
    """Mint API keys, put them into stores, rotate, audit and revoke them.

    A value is never shown: it goes from Neon into stores (--to), and only they have it. What is done is in a journal,
    so that a rotation that was interrupted anywhere can be finished or undone: `lamp keys recover`.

    Works with a policy file (lamp-keys.toml) or without. The key that mints is read from the place that --minter, the
    policy or LAMP_KEYS_MINTER names, else it is that of the current context, such as `lamp up`'s.

    \b
    Examples:
      lamp keys list
      lamp keys mint --name ci-2026-Q4 --to dotenv:.env#NEON_API_KEY
      lamp keys rotate ci
      lamp keys rotate --due --no-wait --output json
    """  # noqa: D301 - click wants the character itself
