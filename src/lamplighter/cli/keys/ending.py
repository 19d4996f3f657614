"""`lamp keys adopt`, `revoke` and `forget`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from lamplighter.cli.errors import CONFLICT, Failure
from lamplighter.cli.groups import Command
from lamplighter.cli.keys.common import keys_command
from lamplighter.cli.keys.options import org_option, to_option
from lamplighter.cli.output import Column, emit

if TYPE_CHECKING:
    from lamplighter.cli.keys.common import KeySession


def choose_lineage(session: KeySession, name: str, wanted: str | None) -> str:
    """The lineage of a key by its name: the one that is wanted, the policy's that has such names, else its own."""
    from lamplighter.keys.manager import lineage_of_name  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.naming import check_lineage  # noqa: PLC0415 - the same

    if wanted is not None:
        return check_lineage(wanted)
    for lineage, declared in session.policy.lineages.items():
        if declared.naming.rid_of(name) is not None:
            return lineage
    return lineage_of_name(name, prefix=session.policy.neon.prefix)


_ADOPTED = (
    Column("id"),
    Column("name"),
    Column("lineage"),
    Column("scope.kind", "Scope"),
    Column("sinks", "Stores"),
    Column("recognised", "Known by value"),
)


@click.command(cls=Command)
@click.argument("key_id", metavar="ID", type=click.IntRange(min=1))
@click.option("--lineage", metavar="NAME", help="The lineage that takes it in. [default: of its name]")
@to_option
@org_option
@keys_command(changes=True)
def adopt(session: KeySession, key_id: int, lineage: str | None, places: tuple[str, ...], org_id: str | None) -> None:
    """Take a key that somebody else made into a lineage, so that rotations put another in its place and revoke it.

    --to names the stores that hold it; without it, those that the policy has for the lineage. Stores that can be read
    are read, to know the key again by the fingerprint of its value.

    \b
    Examples:
      lamp keys adopt 123 --lineage ci --to dotenv:.env#NEON_API_KEY
    """  # noqa: D301 - click wants the character itself
    from lamplighter.cli.keys.results import scope_fact  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.manager import sinks_named  # noqa: PLC0415 - the same
    from lamplighter.keys.sinks.registry import sink_of  # noqa: PLC0415 - the same

    state, manager = session.state(), session.manager()
    known = state.lineage_of(key_id)
    if known is not None and key_id in known.live:
        raise Failure(f"key {key_id} is of {known.name} already", status=CONFLICT)
    key, scope = manager.find(key_id, org_id=org_id, state=state)
    name = choose_lineage(session, key.name, lineage)
    sinks: tuple[Any, ...] = sinks_named(places, session.policy)
    if not places and name in session.policy.lineages:
        sinks = tuple(sink_of(each) for each in session.policy.sinks_of(name))
    mac = None
    if not session.dry_run:
        mac = manager.adopt(key, scope, lineage=name, sinks=sinks).mac
    else:
        session.note("Nothing was changed.")
    fact = {
        "id": key.id,
        "name": key.name,
        "lineage": name,
        "scope": scope_fact(scope),
        "sinks": [each.describe() for each in sinks],
        "recognised": mac is not None,
    }
    emit(session, fact, _ADOPTED)
    if not sinks:
        session.note(
            f"No store is known to hold it: `lamp keys rotate {name} --to ...` would revoke it after the soak."
        )


_REVOKED = (Column("id"), Column("name"), Column("lineage"), Column("revoked"))


@click.command(cls=Command)
@click.argument("key_ids", metavar="ID...", nargs=-1, required=True, type=click.IntRange(min=1))
@click.option("--force", is_flag=True, help="Although stores may hold it, or it is the last of its lineage.")
@org_option
@keys_command(destructive=True)
def revoke(session: KeySession, key_ids: tuple[int, ...], force: bool, org_id: str | None) -> None:
    """Revoke keys by id, at once and for good.

    A key that a store may hold is not revoked, nor the last one of a lineage, nor one that only its name puts into a
    lineage, nor the one that this command works with. For a leak there is `lamp keys emergency`.

    \b
    Examples:
      lamp keys revoke 123
      lamp keys revoke 123 124 --yes
    """  # noqa: D301 - click wants the character itself
    state, manager = session.state(), session.manager()
    found = []
    for key_id in dict.fromkeys(key_ids):
        known = state.lineage_of(key_id)
        org = org_id or (known.keys[key_id].scope.org_id if known else None)
        found.append((*manager.find(key_id, org_id=org, state=state), known))
    session.confirm([_told(key, known) for key, _, known in found])
    if session.dry_run:
        session.note("Nothing was changed.")
        return
    facts = []
    try:
        for key, scope, known in found:
            gone = manager.revoke(key, scope, reason="somebody asked for it", forced=force)
            facts.append({"id": key.id, "name": key.name, "lineage": known.name if known else None, "revoked": gone})
    finally:
        # What is gone is gone, whatever is in the way of the next.
        if facts:
            emit(session, facts, _REVOKED)


def _told(key: Any, known: Any) -> str:
    used = f", last used at {key.last_used_at}" if key.last_used_at else ", never used"
    where = f" from {', '.join(key.last_used_from)}" if key.last_used_from else ""
    holders = known.holders(key.id) if known else ()
    held = f"; {', '.join(holders)} may hold it" if holders else ""
    return f"key {key.id} ({key.name}) is revoked{used}{where}{held}"


@click.command(cls=Command)
@click.argument("lineage")
@click.argument("address", metavar="SINK")
@keys_command(server=False, destructive=True)
def forget(session: KeySession, lineage: str, address: str) -> None:
    """Say that a store holds no key of a lineage any more: it was deleted there, or the store is gone.

    The old keys may be revoked then although that store was never written again. Its secret is not touched.

    \b
    Examples:
      lamp keys forget ci github:OWNER/REPO/NEON_API_KEY
    """  # noqa: D301 - click wants the character itself
    from lamplighter.keys.errors import PolicyError  # noqa: PLC0415 - `--help` does without
    from lamplighter.keys.manager import forget as forget_in  # noqa: PLC0415 - the same
    from lamplighter.keys.manager import sinks_named  # noqa: PLC0415 - the same

    known = session.state().lineage(lineage)
    place = address
    if address not in known.refs:
        try:
            place = sinks_named([address], session.policy)[0].describe()
        except PolicyError:
            place = address
    session.confirm([f"{place} is taken to hold no key of {lineage}: the next rotation revokes what it held"])
    if session.dry_run:
        session.note("Nothing was changed.")
        return
    forget_in(session.journal, lineage, place, now=datetime.now(UTC))
    emit(session, {"lineage": lineage, "sink": place, "forgotten": True}, _FORGOTTEN)


_FORGOTTEN = (Column("lineage"), Column("sink"), Column("forgotten"))
