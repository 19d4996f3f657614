"""`lamp keys init`: where the minter key is kept, whose it is, what it can and cannot do, and a first policy."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lamplighter.cli.errors import AUTHENTICATION, CONFLICT, USAGE, Failure
from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import KeySession, keys_command
from lamplighter.cli.keys.options import org_option
from lamplighter.cli.output import Column, emit

if TYPE_CHECKING:
    from lamplighter.api.secret import Secret
    from lamplighter.keys.minter import Minter

_LONGEST: Final = 4096


def _lines(texts: Any) -> str:
    return "; ".join(texts or []) or "-"


_COLUMNS = (
    Column("minter", "Minter"),
    Column("server"),
    Column("account_id", "Account"),
    Column("kind"),
    Column("key_id", "Key"),
    Column("can", show=_lines),
    Column("cannot", show=_lines),
    Column("policy"),
    Column("state_dir", "State"),
)


@click.command(cls=Command)
@click.option("--key-stdin", is_flag=True, help="Read the minter key from standard input, and store it in PLACE.")
@click.option("--key-fd", type=click.IntRange(min=0), metavar="N", help="Read it from this file descriptor.")
@click.option("--mint", is_flag=True, help="Have the current context's key mint it: PLACE is keyring: or vault: then.")
@click.option("--replace", is_flag=True, help="Write over a key that PLACE holds already.")
@click.option("--no-policy", is_flag=True, help="Write no lamp-keys.toml.")
@org_option
@keys_command(changes=True)
def init(session: KeySession, **given: Any) -> None:
    """Set up the minter, the key that makes all others, and say what it can and cannot do.

    PLACE (--minter) is where it is kept. A key that is given is tried, and then stored there; without one, what PLACE
    holds already is looked at, by default the current context's key. A policy that names it is written to
    lamp-keys.toml, if there is none yet.

    \b
    Examples:
      lamp keys init
      lamp keys init --minter file:minter.key --key-stdin < key.txt
      lamp keys init --minter keyring:neon/minter --mint
    """  # noqa: D301 - click wants the character itself
    if sum((given["key_stdin"], given["key_fd"] is not None, given["mint"])) > 1:
        raise click.UsageError("Give one of --key-stdin, --key-fd and --mint.")
    # A policy that cannot be meant is found out before anything is stored.
    assert session.policy is not None
    if given["mint"]:
        _mint(session, replace=given["replace"])
    elif given["key_stdin"] or given["key_fd"] is not None:
        _store(session, 0 if given["key_stdin"] else given["key_fd"], replace=given["replace"])
    elif _is_empty(session.minter) and sys.stdin.isatty():
        _store(session, None, replace=given["replace"])
    fact = _examine(session, given["org_id"])
    path = Path("lamp-keys.toml")
    if session.policy_path is None and not given["no_policy"] and not session.dry_run:
        _write_policy(path, fact, given["org_id"])
        session.note(f"Wrote {path}; add lineages to it, or `lamp keys mint --name ... --to ...`.")
        fact["policy"] = str(path.absolute())
    else:
        fact["policy"] = str(session.policy_path) if session.policy_path else None
    emit(session, fact, _COLUMNS)
    if session.dry_run:
        session.note("Nothing was changed.")


# A key into its place


def _is_empty(minter: Minter) -> bool:
    from lamplighter.keys.errors import MinterUnfit  # noqa: PLC0415 - `--help` does without

    if minter.source not in ("keyring", "vault", "file"):
        return False
    try:
        minter.read()
    except MinterUnfit:
        return True
    return False


def _store(session: KeySession, fd: int | None, *, replace: bool) -> None:
    """Try a key, and put it where the minter is to be read from."""
    from lamplighter.client.config import NEON_CLOUD, normalise  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.errors import KeysError  # noqa: PLC0415 - the same
    from lamplighter.keys.neon import NeonKeys  # noqa: PLC0415 - the same

    minter = session.minter
    if minter.source not in ("keyring", "vault", "file"):
        raise Failure(
            f"{minter} is read, and never written",
            hint="give --minter keyring:SERVICE/NAME, vault:MOUNT/PATH#FIELD or file:PATH; contexts: `lamp login`",
            status=USAGE,
        )
    _keep_what_is_there(minter, replace=replace)
    key = _read_key(fd)
    host = session.options.api_host or session.policy.neon.base_url or os.environ.get("NEON_API_HOST", "").strip()
    with NeonKeys(base_url=normalise(host or NEON_CLOUD), api_key=key) as server:
        why = ""
        try:
            server.identity()
        except KeysError as error:
            why = str(error)
        if why:
            raise Failure(f"the key was not stored: {why}", status=AUTHENTICATION)
    if session.dry_run:
        session.note(f"The key works; it would be stored in {minter}.")
        return
    _put(minter, key, replace=replace)
    session.note(f"Stored the minter key in {minter}.")


def _holds_something(minter: Minter) -> bool:
    from lamplighter.keys.sinks.registry import parse_sink  # noqa: PLC0415 - for a place that is a sink

    if minter.sink_address is None:
        return os.path.lexists(Path(minter.place).expanduser())
    sink = parse_sink(minter.sink_address)
    try:
        return sink.metadata() is not None
    finally:
        sink.close()


def _keep_what_is_there(minter: Minter, *, replace: bool) -> None:
    """Whatever is there, even if it is no key, or cannot be read by us. Raises Failure, SinkError."""
    if not replace and _holds_something(minter):
        raise Failure(f"{minter} holds something already", hint="give --replace to write over it", status=CONFLICT)


def _read_key(fd: int | None) -> Secret:
    from lamplighter.api.secret import Secret  # noqa: PLC0415 - `--help` does without
    from lamplighter.client.config import seal  # noqa: PLC0415 - the same
    from lamplighter.client.errors import ConfigurationError  # noqa: PLC0415 - the same

    if fd is None:
        typed = Secret(click.prompt("The minter key", hide_input=True, err=True))
    else:
        try:
            with open(fd, "rb", closefd=False) as stream:
                typed = Secret(stream.read(_LONGEST).decode("ascii", errors="replace"))
        except OSError as error:
            raise Failure(f"file descriptor {fd} cannot be read: {error.strerror}", status=USAGE) from None
    try:
        return seal(typed)
    except ConfigurationError as error:
        why = error.message
    raise Failure(why, status=USAGE)


def _put(minter: Minter, key: Secret, *, replace: bool) -> None:
    from lamplighter.keys.sinks.registry import parse_sink  # noqa: PLC0415 - for a place that is a sink
    from lamplighter.keys.value import KeyBuffer  # noqa: PLC0415 - the same

    if minter.sink_address is not None:
        sink = parse_sink(minter.sink_address)
        with KeyBuffer(bytearray(key.reveal().encode())) as value:
            try:
                sink.write(value, "the minter of lamp keys")
            finally:
                sink.close()
        return
    path = Path(minter.place).expanduser()
    if path.is_symlink() or (path.exists() and not (replace and path.is_file())):
        raise Failure(f"{path} is there already, and no file of ours", status=CONFLICT)
    from lamplighter.files import write_atomic  # noqa: PLC0415 - for a file only

    write_atomic(path.absolute(), f"{key.reveal()}\n".encode(), mode=0o600)


def _mint(session: KeySession, *, replace: bool) -> None:
    """A personal key as the minter, minted by the current context's and managed as the lineage `minter`."""
    from lamplighter.cli.keys.common import current_context  # noqa: PLC0415 - `--help` does without
    from lamplighter.cli.keys.hooks import hooks_of  # noqa: PLC0415 - the same
    from lamplighter.keys.minter import Minter  # noqa: PLC0415 - the same
    from lamplighter.keys.naming import Naming  # noqa: PLC0415 - the same
    from lamplighter.keys.records import Scope  # noqa: PLC0415 - the same
    from lamplighter.keys.rotate import Rotation  # noqa: PLC0415 - the same
    from lamplighter.keys.sinks.registry import parse_sink  # noqa: PLC0415 - the same

    place = session.minter
    if place.sink_address is None:
        raise Failure(
            f"a key cannot be minted into {place}",
            hint="give --minter keyring:SERVICE/NAME or vault:MOUNT/PATH#FIELD; for a file: --key-stdin",
            status=USAGE,
        )
    sink = parse_sink(place.sink_address)
    _keep_what_is_there(place, replace=replace)
    if session.dry_run:
        raise Failure("a minter that is not there yet cannot be looked at", hint="leave out --dry-run", status=USAGE)
    source = Minter("context", current_context())
    with source.connect(session.options.api_host or session.policy.neon.base_url) as server:
        # The new key is of that server, and goes nowhere else.
        session.host = server.base_url
        hooks = hooks_of(session)
        Rotation(
            server,
            session.journal,
            Naming("minter", prefix=session.policy.neon.prefix),
            scope=Scope(kind="personal"),
            sinks=[sink],
            soak=0,
            minter=str(source),
            progress=hooks.progress,
        ).run()


# What it is


def _examine(session: KeySession, org_id: str | None) -> dict[str, Any]:
    """For programs: whose key it is, and what follows from that."""
    server = session.server
    who = server.identity()
    kind = {"personal": "personal key", "organization": "key of an organization, or of a project"}.get(who.kind or "")
    if kind is None:
        raise Failure(f"what {session.minter} holds is no API key: {who.method}", status=AUTHENTICATION)
    can, cannot, roles = _powers(session, who.kind == "personal", who.account_id, org_id)
    return {
        "minter": str(session.minter),
        "server": server.base_url,
        "account_id": who.account_id,
        "kind": who.kind,
        "key_id": session.manager().know_own(session.state()),
        "organizations": roles,
        "can": can,
        "cannot": cannot,
        "state_dir": str(session.state_dir),
    }


def _powers(
    session: KeySession, personal: bool, account_id: str, org_id: str | None
) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    if not personal:
        told = f"list and revoke the keys of {account_id}, if it is the organization's and not a project's"
        return (
            [told],
            ["mint any key: that takes a personal key of an admin"],
            [{"id": account_id, "name": None, "role": None}],
        )
    can, cannot, roles = ["mint, list and revoke the personal keys of its user"], [], []
    for each in session.neon.users.organizations():
        if org_id not in (None, each.id):
            continue
        role = _role(session, each.id, account_id)
        roles.append({"id": each.id, "name": each.name, "role": role})
        if role == "admin":
            can.append(f"mint, list and revoke keys of {each.id} ({each.name}) and of its projects")
        else:
            cannot.append(f"mint keys of {each.id} ({each.name}): its user is {role or 'no member'}, not admin")
    cannot.append("be limited to minting: whoever has it can do all that its user can")
    return can, cannot, roles


def _role(session: KeySession, org_id: str, account_id: str) -> str | None:
    for each in session.neon.organizations.members(org_id, limit=500).all():
        if str(each.member.user_id) == account_id:
            return str(each.member.role)
    return None


# The first policy


def _write_policy(path: Path, fact: dict[str, Any], org_id: str | None) -> None:
    from lamplighter.files import write_atomic  # noqa: PLC0415 - for a new policy only

    organizations = [each["id"] for each in fact["organizations"] if each["role"] in ("admin", None)]
    chosen = org_id or (organizations[0] if len(organizations) == 1 else None)
    lines = [
        f"# Written by `lamp keys init` on {datetime.now(UTC):%Y-%m-%d}. What is in it is no secret.",
        "version = 1",
        "",
        "[neon]",
        f'base_url = "{fact["server"]}"',
        # A string of JSON is one of TOML.
        f"minter = {json.dumps(fact['minter'])}",
        f"minter_id = {fact['key_id']}" if fact["key_id"] else "# minter_id = the id of its key, once it is known",
        f'org_id = "{chosen}"' if chosen else '# org_id = "org-..."',
        "",
        "[defaults]",
        'max_age = "90d"',
        'fail_on = "high"',
        "",
        "# [lineage.ci]",
        '# scope = "project"',
        '# project_id = "..."',
        '# owner = "team@example.com"',
        '# sinks = ["github:OWNER/REPO/NEON_API_KEY"]',
        "",
    ]
    write_atomic(path.absolute(), "\n".join(lines).encode(), mode=0o644)
