"""`lamp context`: the servers that `lamp` and the SDK know by name. Keys are never shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.errors import NOT_THERE, USAGE, Failure
from lamplighter.cli.groups import NearGroup
from lamplighter.cli.harmless import clean
from lamplighter.cli.options import output_option
from lamplighter.cli.text import NOTHING, fields, table

if TYPE_CHECKING:
    from lamplighter.client.config import Context, Contexts

_PLACES = {"keychain": "in the keychain", "file": "in the file", None: "none: `lamp login` gives it one"}


@click.group(cls=NearGroup, invoke_without_command=True)
@click.pass_context
def context(ctx: click.Context) -> None:
    """List, show and remove the servers that have names.

    `lamp login` and `lamp up` make them, `lamp use` chooses one. A command talks to the server that --context or
    --api-host names; else to NEON_API_KEY's, which is at NEON_API_HOST or in Neon's cloud; else to LAMP_CONTEXT's; else
    to the one that `lamp use` chose; else to `local`.

    \b
    Examples:
      lamp context
      lamp context show
      lamp context remove staging
    """  # noqa: D301 - click wants the character itself
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@context.command("list")
@output_option
def list_(output: str = "text") -> None:
    """List all names, their servers, and where the keys are.

    \b
    Examples:
      lamp context list --output json
    """  # noqa: D301 - click wants the character itself
    from lamplighter.client.contexts import ContextFile  # noqa: PLC0415 - `--help` does without

    known = ContextFile().read()
    if output == "json":
        import json  # noqa: PLC0415 - for JSON only

        click.echo(json.dumps(described(known), indent=2))
    elif known.named:
        click.echo(listed(known))
    else:
        click.echo("There are no contexts yet: `lamp login` and `lamp up` make them.", err=True)
    if said := overruled(os.environ):
        click.echo(said, err=True)


@context.command()
@click.argument("name", required=False)
@output_option
def show(name: str | None, output: str) -> None:
    """Show which server commands talk to, or that of the context NAME.

    \b
    Examples:
      lamp context show
      lamp context show local
    """  # noqa: D301 - click wants the character itself
    facts = _of_name(name) if name is not None else _in_use()
    if output == "json":
        import json  # noqa: PLC0415 - for JSON only

        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo("\n".join(shown(facts)))


@context.command()
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def remove(name: str, *, yes: bool) -> None:
    """Forget the context NAME, and its key.

    The key stays valid: `lamp api-keys revoke` ends that.

    Exit status: 0 removed, 3 there is none of that name.

    \b
    Examples:
      lamp context remove staging --yes
    """  # noqa: D301 - click wants the character itself
    from lamplighter.client.contexts import ContextFile  # noqa: PLC0415 - `--help` does without

    file = ContextFile()
    found = existing(file.read(), name)
    if not yes:
        confirm_loss(name, found)
    if found.in_keychain:
        file.forget_key(name)
    file.change(lambda known: known.without(name))
    click.echo(f"Forgot {name} ({found.base_url}).")


def confirm_loss(name: str, found: Context) -> None:
    """Ask before something goes. Raises Failure where nobody can be asked, click.Abort for a no."""
    import sys  # noqa: PLC0415 - `--help` does without

    click.echo(
        f"This forgets {name} ({found.base_url}), and its key {_PLACES[found.key_place].partition(':')[0]}.", err=True
    )
    if found.data_dir is not None:
        click.echo("That key cannot be shown again; `lamp up --new-key` makes another.", err=True)
    if not sys.stdin.isatty():
        raise Failure("nobody is there to be asked", hint="give --yes", status=USAGE)
    click.confirm("Go on?", abort=True, err=True)


def existing(known: Contexts, name: str) -> Context:
    """Raises Failure, which names those that there are."""
    if name not in known.named:
        there = f"there are: {', '.join(known.named)}" if known.named else "`lamp login` and `lamp up` make contexts"
        raise Failure(f"there is no context {name!r}", hint=there, status=NOT_THERE)
    return known.named[name]


def chosen_of(known: Contexts) -> str | None:
    """The context that is used when nothing else is said."""
    from lamplighter.client.config import LOCAL  # noqa: PLC0415 - `--help` does without

    return known.current or (LOCAL if LOCAL in known.named else None)


def overruled(environ: Mapping[str, str]) -> str:
    """What in the environment comes before the choice of `lamp use`; empty when nothing does. Pure."""
    if environ.get("NEON_API_KEY", "").strip():
        return "NEON_API_KEY is set, and comes before all contexts but one given by --context."
    if environ.get("NEON_API_HOST", "").strip():
        return f"NEON_API_HOST={clean(environ['NEON_API_HOST'])} is set: a context of that server is used."
    if name := environ.get("LAMP_CONTEXT", "").strip():
        return f"LAMP_CONTEXT={clean(name)} is set, and comes before the choice of `lamp use`."
    return ""


def _of_name(name: str) -> dict[str, Any]:
    from lamplighter.client.contexts import ContextFile  # noqa: PLC0415 - `--help` does without

    known = ContextFile().read()
    return fact_of(name, existing(known, name), current=name == chosen_of(known))


def _in_use() -> dict[str, Any]:
    """The server that a command would talk to; its key is not fetched, which may take the user's password."""
    from lamplighter.api.secret import Secret  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.config import choose  # noqa: PLC0415 - the same
    from lamplighter.client.contexts import ContextFile  # noqa: PLC0415 - the same

    class Unopened(ContextFile):
        def key(self, name: str, context: Context) -> Secret:  # noqa: ARG002 - as its base has it
            return Secret("not fetched")

    file = Unopened()
    server = choose(environ=os.environ, contexts=file)
    if server.name is not None:
        known = file.read()
        facts = fact_of(server.name, known.get(server.name), current=server.name == chosen_of(known))
    else:
        facts = _fact(None, server.base_url, None, current=True)
    return facts | {"source": server.source}


def _fact(name: str | None, base_url: str, key: str | None, *, current: bool, **more: str | None) -> dict[str, Any]:
    places = {"org_id": None, "project_id": None, "data_dir": None}
    return {"name": name, "base_url": base_url, "key": key, "current": current, **places, **more}


def fact_of(name: str, one: Context, *, current: bool) -> dict[str, Any]:
    """For programs: one context, without its key. Pure."""
    return _fact(
        name,
        one.base_url,
        one.key_place,
        current=current,
        org_id=one.org_id,
        project_id=one.project_id,
        data_dir=one.data_dir,
    )


def described(known: Contexts) -> list[dict[str, Any]]:
    """For programs: all contexts. Pure."""
    chosen = chosen_of(known)
    return [fact_of(name, one, current=name == chosen) for name, one in known.named.items()]


def listed(known: Contexts) -> str:
    """For people: a line for each context, a star at the one that is used when nothing else is said. Pure."""
    rows = [
        ("*" if one["current"] else "", one["name"], one["base_url"], one["key"] or NOTHING, _defaults(one))
        for one in described(known)
    ]
    return "\n".join(table(("", "NAME", "SERVER", "KEY", "DEFAULTS"), rows))


def _defaults(one: Mapping[str, Any]) -> str:
    return clean(", ".join(each for each in (one["org_id"], one["project_id"]) if each)) or NOTHING


def shown(facts: Mapping[str, Any]) -> list[str]:
    """For people: one server. Pure."""
    source = facts.get("source")
    place = f"in {source}" if facts["name"] is None else _PLACES[facts["key"]]
    pairs = [("Context", facts["name"] or f"none, but {source}"), ("Server", facts["base_url"]), ("Key", place)]
    known = {"org_id": "Organization", "project_id": "Project", "data_dir": "Data"}
    pairs += [(title, clean(facts[each])) for each, title in known.items() if facts[each]]
    return fields(pairs)
