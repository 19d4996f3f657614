"""`lamp keys status` and `history`: what the journal says. No network, no key."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import keys_command
from lamplighter.cli.output import Column, emit
from lamplighter.keys import records as rec

if TYPE_CHECKING:
    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.fold import Lineage, Soak, State


def seconds(at: object) -> str:
    """A time of ISO 8601 without what is below a second. Pure."""
    return datetime.fromisoformat(at).isoformat(timespec="seconds") if isinstance(at, str) else "-"


def _ids(ids: Any) -> str:
    return ", ".join(map(str, ids or [])) or "-"


def _held(places: Any) -> str:
    return str(len(places or []))


_LINEAGES = (
    Column("lineage"),
    Column("phase"),
    Column("key_id", "Key"),
    Column("live", "Live", show=_ids),
    Column("scope.kind", "Scope"),
    Column("sinks", "Stores", right=True, show=_held),
    Column("until", "Soaks until", show=seconds),
    Column("needs_recover", "To recover"),
    Column("waits_for", "Waits for"),
)


@click.command(cls=Command)
@click.argument("lineages", metavar="[LINEAGE]...", nargs=-1)
@keys_command(server=False)
def status(session: KeySession, lineages: tuple[str, ...]) -> None:
    """Show where each rotation is, by the journal alone: asks no server, and needs no key.

    \b
    Examples:
      lamp keys status
      lamp keys status --output json | jq '.[] | select(.needs_recover)'
    """  # noqa: D301 - click wants the character itself
    now = datetime.now(UTC)
    known = session.state().lineages
    facts = [lineage_fact(each, now) for name, each in known.items() if not lineages or name in lineages]
    emit(session, facts, _LINEAGES, empty=f"The journal in {session.state_dir} has no lineage.")
    if session.output == "table" and any(each["needs_recover"] for each in facts):
        session.note("`lamp keys recover` finishes or undoes what is unfinished.")


def show_unfinished(session: KeySession, state: State, *, only: Iterable[str] = ()) -> None:
    """What `recover` would work on."""
    wanted = set(only)
    facts = [
        lineage_fact(each, datetime.now(UTC))
        for name, each in state.lineages.items()
        if (each.unfinished or each.watched) and (not wanted or name in wanted)
    ]
    emit(session, facts, _LINEAGES, empty="Nothing is unfinished.")
    session.note("Nothing was changed.")


def lineage_fact(known: Lineage, now: datetime) -> dict[str, Any]:
    """For programs: one lineage. Pure."""
    from lamplighter.cli.keys.results import scope_fact  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.audit import needs_recover  # noqa: PLC0415 - the same

    opened = known.open
    soak = opened.soak if opened else None
    return {
        "lineage": known.name,
        "phase": opened.phase if opened else "minting" if known.unsure else "resting" if known.live else "ended",
        "rid": opened.rid if opened else None,
        "key_id": known.current,
        "new_key_id": opened.key_id if opened else None,
        "live": sorted(known.live),
        "revoked": sorted(known.revoked),
        "scope": scope_fact(known.scope),
        "sinks": [{"address": address, "may_hold": sorted(ids)} for address, ids in known.may_hold.items()],
        "until": soak.until.isoformat() if soak else None,
        "held_by": list(soak.held.addresses) if soak and soak.held else [],
        "watched": sorted(known.watched),
        "unfinished": known.unfinished,
        "needs_recover": needs_recover(known, now),
        "waits_for": _waits(known, now),
    }


def _waits(known: Lineage, now: datetime) -> str | None:
    """In a word, what the next run has to do. Pure."""
    opened = known.open
    if known.unsure:
        return "the outcome of a mint whose answer was lost"
    if known.doomed or set(known.revoking) - known.revoked:
        return "a revocation"
    if opened is None:
        return "another key, for the value of the last was lost" if known.pending else None
    if opened.soak is not None:
        return _waits_in_soak(opened.soak, now)
    if opened.remaining:
        return f"{len(opened.remaining)} of {len(opened.intent.sinks)} stores"
    return "its proof"


def _waits_in_soak(soak: Soak, now: datetime) -> str:
    if now >= soak.until:
        return "the revocation of the old key"
    return f"key {soak.held.key_id} is still used" if soak.held is not None else "the end of the soak"


# history


_EVENTS = (
    Column("at", "Time", show=seconds),
    Column("lineage"),
    Column("kind", "Event"),
    Column("rid", "Rotation"),
    Column("sentence", "What"),
)


@click.command(cls=Command)
@click.argument("lineages", metavar="[LINEAGE]...", nargs=-1)
@click.option("--id", "key_id", type=click.IntRange(min=1), metavar="N", help="Only what is about this key.")
@click.option("--rid", metavar="RID", help="Only this rotation.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the last N.")
@keys_command(server=False)
def history(
    session: KeySession, lineages: tuple[str, ...], key_id: int | None, rid: str | None, limit: int | None
) -> None:
    """Show what was done, oldest first, by the journal alone: asks no server, and holds no value.

    \b
    Examples:
      lamp keys history ci
      lamp keys history --id 123 --output json
    """  # noqa: D301 - click wants the character itself
    from lamplighter.keys.journal import read_journal  # noqa: PLC0415 - `--help` does without

    found = [
        each
        for each in read_journal(session.state_dir)
        if (not lineages or each.lineage in lineages)
        and rid in (None, getattr(each, "rid", None))
        and key_id in (None, getattr(each, "key_id", None))
    ]
    facts = [event_of(each) for each in (found[-limit:] if limit else found)]
    emit(session, facts, _EVENTS, empty="Nothing was done yet.")


def event_of(record: rec.Record) -> dict[str, Any]:
    """For programs: the line of the journal, and a sentence. HMACs are left to the journal. Pure."""
    known: dict[str, Any] = json.loads(rec.write_record(record))
    known.pop("v")
    known.pop("mac", None)
    return {"at": known.pop("at"), **known, "sentence": sentence_of(record)}


@singledispatch
def sentence_of(record: rec.Record) -> str:
    """What a line of the journal says, for people. Pure."""
    return record.kind


@sentence_of.register
def _(record: rec.Adopted) -> str:
    where = ", ".join(each.address for each in record.sinks)
    return f"key {record.key_id} ({record.name}) was adopted" + (f"; it is in {where}" if where else "")


@sentence_of.register
def _(record: rec.MintIntent) -> str:
    return f"asks for {record.name}, {record.scope}, for {', '.join(each.address for each in record.sinks)}"


@sentence_of.register
def _(record: rec.Minted) -> str:
    return f"key {record.key_id} was made"


@sentence_of.register
def _(record: rec.Found) -> str:
    return f"key {record.key_id} was found by its name; nobody has its value"


@sentence_of.register
def _(record: rec.Checked) -> str:
    return f"key {record.key_id} works, and reaches what it should and no more"


@sentence_of.register
def _(record: rec.StoreIntent) -> str:
    return f"gives key {record.key_id} to {record.sink}"


@sentence_of.register
def _(record: rec.Stored) -> str:
    return f"{record.sink} has key {record.key_id}"


@sentence_of.register
def _(record: rec.Observed) -> str:
    held = "something else" if record.key_id is None else f"key {record.key_id}"
    return f"{record.sink} holds {held}"


@sentence_of.register
def _(record: rec.Verified) -> str:
    proofs = ", ".join(f"{address} by {level}" for address, level in record.levels.items())
    used = f"; a consumer used it at {record.consumer}" if record.consumer else ""
    smoke = f"; `{record.smoke}` ended with 0" if record.smoke else ""
    return f"key {record.key_id} is proven: {proofs}{smoke}{used}"


@sentence_of.register
def _(record: rec.Soaking) -> str:
    ids = ", ".join(map(str, record.seen))
    return f"the old key ({ids}) stays until {record.until.isoformat(timespec='seconds')}"


@sentence_of.register
def _(record: rec.HeldBack) -> str:
    where = f" from {', '.join(record.addresses)}" if record.addresses else ""
    return f"key {record.key_id} is still used{where}: it stays until {record.until.isoformat(timespec='seconds')}"


@sentence_of.register
def _(record: rec.RevokeIntent) -> str:
    return f"revokes key {record.key_id} ({record.name}): {record.reason}"


@sentence_of.register
def _(record: rec.Revoked) -> str:
    return f"key {record.key_id} is revoked" + ("" if record.ours else "; not by us")


@sentence_of.register
def _(record: rec.Aborted) -> str:
    return f"undone: {record.reason}"


@sentence_of.register
def _(record: rec.Superseded) -> str:
    return f"given up half-way: {record.reason}"


@sentence_of.register
def _(record: rec.Done) -> str:
    return f"done: key {record.key_id} is in place"


@sentence_of.register
def _(record: rec.Forgotten) -> str:
    return f"{record.sink} holds no key of it any more, somebody says"
