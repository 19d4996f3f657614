"""`lamp login` and `lamp logout`: the key of a server, kept in the OS keychain or in a file of the user's alone.

A key is read from the terminal without echo, from standard input or a file descriptor, never from the command line,
which others on the machine can see. It is kept only after the server has said whose it is.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.errors import AUTHENTICATION, CONFLICT, USAGE, Failure
from lamplighter.cli.harmless import clean
from lamplighter.cli.options import output_option

if TYPE_CHECKING:
    from lamplighter.api.secret import Secret
    from lamplighter.client.config import Context, Contexts
    from lamplighter.client.contexts import ContextFile

#: More than any key has.
_LONGEST_KEY = 4096
_KINDS = {"api_key_user": "personal key", "api_key_org": "organization's key"}


@click.command()
@click.argument("name", required=False)
@click.option("--api-host", metavar="URL", help="The server. [default: NAME's, else NEON_API_HOST, else Neon's cloud]")
@click.option("--key-stdin", is_flag=True, help="Read the key from standard input.")
@click.option("--key-fd", type=click.IntRange(min=0), metavar="N", help="Read the key from this file descriptor.")
@click.option(
    "--store",
    type=click.Choice(["auto", "keychain", "file"]),
    default="auto",
    show_default=True,
    help="Where to keep the key; auto is the keychain if there is one, else the file.",
)
@click.option("--org-id", help="The organization that is meant when none is given.")
@click.option("--project-id", help="The project that is meant when none is given.")
@output_option
def login(name: str | None, output: str, **options: Any) -> None:
    """Keep the API key of a server, under a name.

    The key is asked for on the terminal, and shown nowhere. It is kept after the server has said whose it is, in the
    keychain of the operating system (pip install 'lamplighter[keychain]') or in a file that only you can read, and is
    sent to that server alone. Commands and the SDK then use it.

    \b
    Examples:
      lamp login
      lamp login staging --api-host https://neon.example.com
      lamp login --key-stdin < key.txt
    """  # noqa: D301 - click wants the character itself
    from lamplighter.client.contexts import ContextFile  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.errors import ConfigurationError  # noqa: PLC0415 - the same

    if options["key_stdin"] and options["key_fd"] is not None:
        raise click.UsageError("give --key-stdin or --key-fd, not both")
    file = ContextFile()
    known = file.read()
    try:
        place = place_of(known, name, api_host=options["api_host"], env_host=os.environ.get("NEON_API_HOST"))
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    _warn_of_http(place.base_url)
    key = _read_key(place.base_url, stdin=options["key_stdin"], fd=options["key_fd"])
    account = _prove(place.base_url, key)
    defaults: dict[str, Any] = {"org_id": options["org_id"], "project_id": options["project_id"]}
    kept = _keep(file, place, key, store=options["store"], defaults=defaults)
    _say(place, account, kept, output=output)


@click.command()
@click.argument("name", required=False)
def logout(name: str | None) -> None:
    """Forget the key of a server.

    NAME is the context's, by default that of the current one. The context stays, without its key; `lamp context remove`
    forgets it whole. The key stays valid: `lamp api-keys revoke` ends that.

    Exit status: 0 forgotten, or there was none; 3 there is no context NAME.

    \b
    Examples:
      lamp logout
      lamp logout staging
    """  # noqa: D301 - click wants the character itself
    from lamplighter.cli.context import chosen_of, existing  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.contexts import ContextFile  # noqa: PLC0415 - the same

    file = ContextFile()
    known = file.read()
    meant = name or chosen_of(known)
    if meant is None:
        click.echo("No context is chosen, and no key to forget.", err=True)
        return
    if existing(known, meant).key_place is None:
        click.echo(f"The context {meant} has no key.", err=True)
        return
    file.forget_key(meant)
    click.echo(f"Forgot the key of {meant} ({known.get(meant).base_url}). It stays valid until it is revoked.")


# Which server, under which name


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key belongs. `before` is the context that is there already."""

    name: str
    base_url: str
    before: Context | None


def place_of(known: Contexts, name: str | None, *, api_host: str | None, env_host: str | None) -> Place:
    """The context that a login makes or renews. Pure. Raises ConfigurationError, and Failure for a name that is taken.

    Without a NAME: that of the context which the server has; else `neon` for Neon's cloud, else the server's host.
    """
    from lamplighter.client.config import NEON_CLOUD, check_name, host_of, normalise  # noqa: PLC0415 - after `--help`

    before = known.named.get(name) if name is not None else None
    if api_host is not None:
        base_url = normalise(api_host)
    elif before is not None:
        base_url = before.base_url
    else:
        base_url = normalise(env_host) if env_host and env_host.strip() else NEON_CLOUD
    if name is None:
        same = [each for each, one in known.named.items() if one.base_url == base_url]
        made_up = "neon" if base_url == NEON_CLOUD else host_of(base_url).strip("[").replace("]", "").replace(":", "-")
        name = known.current if known.current in same else same[0] if same else made_up
        before = known.named.get(name)
    if before is not None and before.base_url != base_url:
        raise Failure(
            f"the context {name} is for {before.base_url}",
            hint=f"give another NAME, or forget that one first: lamp context remove {name}",
            status=CONFLICT,
        )
    return Place(check_name(name), base_url, before)


def _warn_of_http(base_url: str) -> None:
    from lamplighter.client.config import is_private  # noqa: PLC0415 - `--help` does without

    if not is_private(base_url):
        click.echo(f"Warning: {base_url} is not https: whoever is on the way can read the key.", err=True)


# The key


def _read_key(base_url: str, *, stdin: bool, fd: int | None) -> Secret:
    from lamplighter.api.secret import Secret  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.config import host_of, seal  # noqa: PLC0415 - the same

    if stdin or fd is not None:
        return seal(_key_from(0 if stdin else fd or 0))
    if not sys.stdin.isatty():
        raise Failure(
            "there is no terminal to ask for the key on", hint="pipe it in, and give --key-stdin", status=USAGE
        )
    return seal(Secret(click.prompt(f"API key for {host_of(base_url)}", hide_input=True, err=True)))


def _key_from(fd: int) -> Secret:
    from lamplighter.api.secret import Secret  # noqa: PLC0415 - `--help` does without

    try:
        with open(fd, "rb", closefd=False) as stream:
            return Secret(stream.read(_LONGEST_KEY).decode("ascii", errors="replace"))
    except OSError as error:
        raise Failure(f"file descriptor {fd} cannot be read: {error.strerror}", status=USAGE) from None


@dataclass(frozen=True, slots=True)
class Account:
    """What the server says of a key. `email` is known of a user's key."""

    id: str
    method: str
    email: str | None = None

    def __str__(self) -> str:
        kind = _KINDS.get(self.method, self.method)
        return f"{self.email or self.id} ({kind})"


def _prove(base_url: str, key: Secret) -> Account:
    """Ask the server whose key this is. Raises Failure, and errors of the SDK."""
    from lamplighter import Neon  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.errors import APIError, AuthenticationError  # noqa: PLC0415 - the same

    # Somebody waits: a server that does not answer is more likely a slip in its name than one that will soon.
    with Neon(api_key=key, base_url=base_url, retries=1) as neon:
        try:
            found = neon.users.auth_details()
        except AuthenticationError as error:
            raise Failure(
                f"{base_url} does not know this key; nothing was kept", hint=error.hint or "", status=AUTHENTICATION
            ) from None
        email = None
        if found.auth_method == "api_key_user":
            try:
                email = neon.users.me().email
            except APIError:
                email = None  # it is for showing only
    return Account(found.account_id, found.auth_method, email)


# Keeping it


def _keep(file: ContextFile, place: Place, key: Secret, *, store: str, defaults: dict[str, Any]) -> tuple[str, Context]:
    """Keep the key, and make its context the current one. Returns where it is kept, for people."""
    from lamplighter.client.config import Context  # noqa: PLC0415 - `--help` does without

    in_keychain, where = _to_keychain(place, key, store=store)
    made = replace(
        place.before or Context(base_url=place.base_url),
        api_key=None if in_keychain else key,
        in_keychain=in_keychain,
        **{name: value for name, value in defaults.items() if value is not None},
    )
    if place.before is not None and place.before.in_keychain and not in_keychain:
        file.forget_key(place.name)
    file.change(lambda known: known.put(place.name, made).use(place.name))
    return where or f"in {file.path}", made


def _to_keychain(place: Place, key: Secret, *, store: str) -> tuple[bool, str]:
    """Whether the key is in the keychain now, and what that is called."""
    from lamplighter.client.contexts import account  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.errors import ConfigurationError  # noqa: PLC0415 - the same
    from lamplighter.client.keychain import open_keychain  # noqa: PLC0415 - the same

    # `lamp up` changes the URL of its context with its port, and cannot open a keychain to move the key.
    of_platform = place.before is not None and place.before.data_dir is not None
    if store == "keychain" and of_platform:
        raise Failure(f"`lamp up` looks after the context {place.name}; its key is kept in the file", status=USAGE)
    if store == "file" or of_platform:
        return False, ""
    try:
        keychain = open_keychain()
        keychain.set(account(place.name, place.base_url), key)
    except ConfigurationError:
        if store == "keychain":
            raise
        return False, ""
    return True, f"in the keychain ({keychain.name})"


def _say(place: Place, account: Account, kept: tuple[str, Context], *, output: str) -> None:
    where, made = kept
    if output == "json":
        import json  # noqa: PLC0415 - for JSON only

        from lamplighter.cli.context import fact_of  # noqa: PLC0415 - the same

        whose = {"account_id": account.id, "auth_method": account.method, "email": account.email}
        click.echo(json.dumps(fact_of(place.name, made, current=True) | whose, indent=2))
    else:
        click.echo(f"Logged in to {place.base_url} as {clean(str(account))}.")
        click.echo(f"The key is {where}; the context is {place.name}, and commands use it now.")
    from lamplighter.cli.context import overruled  # noqa: PLC0415 - `--help` does without

    if said := overruled(os.environ):
        click.echo(said, err=True)
