"""`lamp use`: which of the named servers `lamp` and the SDK talk to when nothing else is said."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lamplighter.client.config import Contexts


@click.command()
@click.argument("name", required=False)
@click.option("--none", "no_choice", is_flag=True, help="Take the choice back: `local` is used again, if there is one.")
@click.option("--org-id", help="Make this organization the context's default ('' for none).")
@click.option("--project-id", help="Make this project the context's default ('' for none).")
def use(name: str | None, *, no_choice: bool, org_id: str | None, project_id: str | None) -> None:
    """Choose the server that commands and the SDK talk to.

    NAME is that of a context: `lamp context` lists them, `lamp login` and `lamp up` make them.

    Exit status: 0 chosen, 3 there is no context NAME.

    \b
    Examples:
      lamp use local
      lamp use neon --project-id green-moon-12345678
    """  # noqa: D301 - click wants the character itself
    if (name is None) is not no_choice:
        raise click.UsageError("give the NAME of a context, or --none")
    if no_choice and (org_id, project_id) != (None, None):
        raise click.UsageError("defaults belong to a context: give its NAME")
    from lamplighter.cli.context import existing, overruled  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.contexts import ContextFile  # noqa: PLC0415 - the same

    def decide(known: Contexts) -> Contexts:
        return known.use(None) if name is None else chosen(known, name, org_id=org_id, project_id=project_id)

    file = ContextFile()
    if name is not None:
        existing(file.read(), name)
    known = file.change(decide)
    if name is None:
        click.echo("No context is chosen.")
    else:
        click.echo(f"Commands now talk to {known.get(name).base_url} (context {name}).")
    if said := overruled(os.environ):
        click.echo(said, err=True)


def chosen(known: Contexts, name: str, *, org_id: str | None, project_id: str | None) -> Contexts:
    """With `name` as the current context, and new defaults where they are given. Pure."""
    from dataclasses import replace  # noqa: PLC0415 - `--help` does without

    context = known.get(name)
    if org_id is not None:
        context = replace(context, org_id=org_id or None)
    if project_id is not None:
        context = replace(context, project_id=project_id or None)
    return known.put(name, context).use(name)
