"""`lamp keys plan`, and what `--dry-run` of the other verbs shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import keys_command
from lamplighter.cli.keys.options import to_option
from lamplighter.cli.output import Column, emit, write
from lamplighter.cli.terminal import clean
from lamplighter.cli.text import human_duration, plural, table

if TYPE_CHECKING:
    from datetime import datetime

    from lamplighter.cli.keys.common import KeySession
    from lamplighter.keys.fold import State
    from lamplighter.keys.manager import Due, Target
    from lamplighter.keys.plan import LiveKey

_COLUMNS = (
    Column("lineage"),
    Column("action"),
    Column("due"),
    Column("due_at"),
    Column("key_name"),
    Column("scope.kind"),
    Column("soak_seconds"),
    Column("sinks"),
    Column("revokes"),
)


@click.command(cls=Command)
@click.argument("lineages", metavar="[LINEAGE]...", nargs=-1)
@to_option
@click.option("--check", is_flag=True, help="Ask every store whether it is there and lets us write.")
@keys_command()
def plan(session: KeySession, lineages: tuple[str, ...], places: tuple[str, ...], check: bool) -> None:
    """Show what a rotation would do: which stores, in which order, when consumers see the key, what is revoked.

    Without LINEAGE: all of the policy and of the journal, and which of them are due. Changes nothing.

    \b
    Examples:
      lamp keys plan
      lamp keys plan ci --check --output json
    """  # noqa: D301 - click wants the character itself
    from lamplighter.keys.manager import sinks_named, target_of  # noqa: PLC0415 - `--help` does without

    state = session.state()
    if places and len(lineages) != 1:
        raise click.UsageError("--to goes with one LINEAGE.")
    names = lineages or session.manager().names(state)
    sinks = sinks_named(places, session.policy)
    show_plan(session, [target_of(name, session.policy, state).with_sinks(sinks) for name in names], check=check)


def show_plan(
    session: KeySession, targets: Sequence[Target], *, due: Sequence[Due] | None = None, check: bool = False
) -> None:
    """Print what a rotation of each target would do. Changes nothing."""
    state, manager = session.state(), session.manager()
    scopes = manager.scopes(state) + [each.scope for each in targets if each.scope is not None]
    keys = manager.live(scopes)
    known = {each.lineage: each for each in (manager.due(state, keys) if due is None else due)}
    now = manager.clock.now()
    facts = [
        plan_fact(each, session, state, keys, due=known.get(each.lineage), now=now, check=check) for each in targets
    ]
    if session.output != "table":
        emit(session, facts, _COLUMNS)
    elif not facts:
        session.note("Nothing is due." if due is not None else "There is no lineage yet: `lamp keys mint` begins one.")
    else:
        write("".join(f"{line}\n" for fact in facts for line in _told(fact)))
    session.note("Nothing was changed.")


def plan_fact(
    target: Target,
    session: KeySession,
    state: State,
    keys: Mapping[int, LiveKey],
    *,
    due: Due | None,
    now: datetime,
    check: bool = False,
) -> dict[str, Any]:
    """For programs: one rotation that was not done."""
    from lamplighter.cli.keys.results import scope_fact  # noqa: PLC0415 - it is loaded for a rotation alone
    from lamplighter.keys.naming import RID_LENGTH  # noqa: PLC0415 - the same

    known = state.lineage(target.lineage)
    unknown = [
        each for each in keys.values() if each.id not in known.keys and target.naming.rid_of(each.name) is not None
    ]
    revokes = [keys[each] for each in sorted(known.live) if each in keys]
    return {
        "lineage": target.lineage,
        "action": "resume" if known.unfinished else "rotate" if known.live else "mint",
        "due": due.now if due else None,
        "due_at": due.at.isoformat() if due and due.at else None,
        "reason": due.reason if due else None,
        "owner": target.owner,
        "key_name": target.naming.name(rid="x" * RID_LENGTH, at=now).replace("x" * RID_LENGTH, "<rid>"),
        "scope": scope_fact(target.scope),
        "sinks": [
            _sink(number, sink, sorted(known.may_hold.get(sink.describe(), ())), check=check)
            for number, sink in enumerate(target.ordered(session.minter.sink_address), 1)
        ],
        "smoke": target.smoke,
        "consumer_seconds": target.consumer.total_seconds() if target.consumer else None,
        "soak_seconds": target.soak_seconds,
        "revokes": [_key(each) for each in revokes],
        "foreign": [_key(each) for each in unknown],
    }


def _sink(number: int, sink: Any, holds: list[int], *, check: bool) -> dict[str, Any]:
    able = sink.capabilities
    fact: dict[str, Any] = {
        "order": number,
        "address": sink.describe(),
        "readable": able.readable,
        "versioned": able.versioned,
        "effect": able.effect,
        "soak_seconds": able.soak,
        "holds": holds,
    }
    if check:
        from lamplighter.keys.errors import SinkError  # noqa: PLC0415 - for --check only

        try:
            fact["check"] = {"ok": True, "said": sink.check()}
        except SinkError as error:
            fact["check"] = {"ok": False, "said": error.message}
    return fact


def _key(key: LiveKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "last_used_at": key.last_used_at,
        "last_used_from": list(key.last_used_from),
    }


# For people


def _told(fact: Mapping[str, Any]) -> list[str]:
    what = {
        "resume": "go on with the rotation that is under way",
        "rotate": "put a new key in the place of the old one",
        "mint": "mint its first key",
    }[fact["action"]]
    due = "" if fact["due"] is None else f" ({fact['reason']}{_when(fact)})"
    scope = fact["scope"] or {}
    where = scope.get("project_id") or scope.get("org_id") or ""
    lines = [f"{fact['lineage']}: {what}{due}", f"  1. mint {fact['key_name']}, {scope.get('kind')} {where}".rstrip()]
    lines.append(f"  2. store it in {plural(len(fact['sinks']), 'place')}, in this order")
    rows = [
        (
            "    ",
            each["address"],
            "read back" if each["readable"] else "cannot be read",
            f"seen: {each['effect']}",
            _check(each),
        )
        for each in fact["sinks"]
    ]
    # The header of the table is not wanted here.
    lines += table(("    ", "", "", "", ""), rows)[1:] if rows else []
    proofs = ["GET /auth with the new key", "every store"]
    proofs += [f"`{fact['smoke']}` ends with 0"] if fact["smoke"] else []
    proofs += (
        [f"a consumer uses it within {human_duration(fact['consumer_seconds'])}"] if fact["consumer_seconds"] else []
    )
    lines.append(f"  3. prove: {', '.join(proofs)}")
    if fact["revokes"]:
        ids = ", ".join(f"{each['id']} ({each['name']})" for each in fact["revokes"])
        lines.append(f"  4. wait {human_duration(fact['soak_seconds'])}, then revoke {ids} unless it is still used")
    lines += [
        f"  ! key {each['id']} ({each['name']}) is live, and not in the journal: `lamp keys adopt {each['id']}`"
        for each in fact["foreign"]
    ]
    return [clean(line) for line in lines]


def _when(fact: Mapping[str, Any]) -> str:
    if fact["due"]:
        return "; due"
    return f"; not due before {fact['due_at'][:10]}" if fact["due_at"] else "; not due"


def _check(sink: Mapping[str, Any]) -> str:
    if "check" not in sink:
        return ""
    return sink["check"]["said"] if sink["check"]["ok"] else f"FAILS: {sink['check']['said']}"
