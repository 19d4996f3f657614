"""`lamp keys sinks`: the stores that are known, and a trial of one."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.errors import CONFLICT, Failure
from lamplighter.cli.groups import Command, NearGroup
from lamplighter.cli.keys.common import keys_command
from lamplighter.cli.output import Column, emit
from lamplighter.cli.text import NOTHING

if TYPE_CHECKING:
    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.sinks.base import Sink


def _ids(ids: Any) -> str:
    return ", ".join(map(str, ids or [])) or NOTHING


_SINKS = (
    Column("name"),
    Column("address", whole=True),
    Column("lineage"),
    Column("readable", "Can be read"),
    Column("effect", "Seen"),
    Column("may_hold", "May hold", show=_ids),
    Column("error", "Error"),
)


@click.group(cls=NearGroup)
def sinks() -> None:
    """List the stores that the policy and the journal know, and try one.

    \b
    Examples:
      lamp keys sinks list
      lamp keys sinks test dotenv:.env#NEON_API_KEY --write
    """  # noqa: D301 - click wants the character itself


@sinks.command("list", cls=Command)
@click.option("--kinds", is_flag=True, help="The kinds of stores that there are, instead.")
@keys_command(server=False)
def list_(session: KeySession, kinds: bool) -> None:
    """List the stores that the policy names, and those in which the journal knows keys.

    \b
    Examples:
      lamp keys sinks list
      lamp keys sinks list --kinds
    """  # noqa: D301 - click wants the character itself
    if kinds:
        from lamplighter.keys.sinks.registry import kinds as known  # noqa: PLC0415 - for --kinds only

        emit(session, [{"kind": each} for each in known()], (Column("kind"),))
        return
    emit(session, _facts(session), _SINKS, empty="Neither the policy nor the journal names a store.")


def _facts(session: KeySession) -> list[dict[str, Any]]:
    policy, state = session.policy, session.state()
    lineages = {sink: name for name, each in policy.lineages.items() for sink in each.sinks}
    found: dict[str, dict[str, Any]] = {}
    for name, each in policy.sinks.items():
        fact = _fact(name, each.ref, lineages.get(name))
        found[fact["address"]] = fact
    for lineage in state.lineages.values():
        for address, ref in lineage.refs.items():
            fact = found.setdefault(address, _fact(None, ref, lineage.name))
            fact["may_hold"] = sorted(lineage.may_hold.get(address, frozenset()) & lineage.live)
    return list(found.values())


def _fact(name: str | None, ref: Any, lineage: str | None) -> dict[str, Any]:
    from lamplighter.keys.errors import PolicyError  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.sinks.registry import sink_of  # noqa: PLC0415 - the same

    fact: dict[str, Any] = {"name": name, "address": ref.address, "lineage": lineage}
    try:
        sink = sink_of(ref)
    except PolicyError as error:
        return fact | {"readable": None, "effect": None, "soak_seconds": None, "may_hold": [], "error": error.message}
    able = sink.capabilities
    return fact | {
        "address": sink.describe(),
        "readable": able.readable,
        "versioned": able.versioned,
        "effect": able.effect,
        "soak_seconds": able.soak,
        "may_hold": [],
        "error": None,
    }


_TRIED = (
    Column("address"),
    Column("check", "Access"),
    Column("there", "Holds a secret"),
    Column("updated_at", "Changed"),
    Column("version"),
    Column("readable", "Can be read"),
    Column("holds_key", "Holds key"),
    Column("written", "Written, and taken away"),
)


@sinks.command("test", cls=Command)
@click.argument("place", metavar="SINK")
@click.option("--write", is_flag=True, help="Write a random value, read it back and delete it: where nothing is yet.")
@keys_command(server=False)
def test(session: KeySession, place: str, write: bool) -> None:
    """Try a store, by its name in the policy or by its address: is it there, may we write, what does it hold?

    Changes nothing without --write, and with it only where there is no secret yet: use an address of the same store
    with another name.

    \b
    Examples:
      lamp keys sinks test gh-ci
      lamp keys sinks test vault:secret/lamp-trial#value --write
    """  # noqa: D301 - click wants the character itself
    from lamplighter.keys.harden import hardened  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.manager import sinks_named  # noqa: PLC0415 - the same

    sink = sinks_named([place], session.policy)[0]
    try:
        with session.waiting("Asking the store"), hardened():
            said, found = sink.check(), sink.metadata()
            if write and found is not None:
                raise Failure(
                    f"{sink.describe()} holds a secret, which is not to be written over",
                    hint="name another place in the same store",
                    status=CONFLICT,
                )
            fact = {
                "address": sink.describe(),
                "check": said,
                "there": found is not None,
                "updated_at": found.updated_at.isoformat() if found and found.updated_at else None,
                "version": found.version if found else None,
                "readable": sink.capabilities.readable,
                "effect": sink.capabilities.effect,
                "holds_key": _held(session, sink) if found is not None else None,
                "written": _try(sink) if write else None,
            }
    finally:
        sink.close()
    emit(session, fact, _TRIED)


def _held(session: KeySession, sink: Sink) -> int | None:
    """The key that it holds, where it can be read and the journal knows that key."""
    if not sink.capabilities.readable or not session.state_dir.is_dir():
        return None
    value = sink.read_back()
    if value is None:
        return None
    with value, session.journal as journal:
        return journal.state.id_of(value.mac(journal.salt))


def _try(sink: Sink) -> str:
    """Write, read back, delete. Raises SinkError, NotProven; what was written is taken away in any case."""
    from lamplighter.keys.errors import NotProven  # noqa: PLC0415 - for --write only
    from lamplighter.keys.proof import level_of  # noqa: PLC0415 - the same
    from lamplighter.keys.value import KeyBuffer  # noqa: PLC0415 - the same

    salt = secrets.token_bytes(32)
    with KeyBuffer(bytearray(f"lamp-trial-{secrets.token_hex(24)}".encode())) as value:
        try:
            receipt = sink.write(value, "a trial, and no key")
            if sink.capabilities.readable:
                found = sink.read_back()
                if found is None:
                    raise NotProven("gives nothing back", address=sink.describe(), hint="see what else writes there")
                with found:
                    if not found.matches(value.mac(salt), salt):
                        raise NotProven(
                            "gives back something else", address=sink.describe(), hint="see what else writes there"
                        )
                return "value"
            level = level_of(None, receipt, sink.metadata())
            if level is None:
                raise NotProven("does not show what was written", address=sink.describe(), hint="see what it says")
            return level
        finally:
            sink.delete()
