"""The audit's rules about stores, P001 to P004: where a secret has to be, may not be, and whether it is the right one.

Pure. A store that did not answer is a gap of the inventory, and no finding.
"""

from __future__ import annotations

from collections.abc import Iterator

from lamplighter.keys.facts import KeyFact, SinkFact
from lamplighter.keys.findings import Problem, View
from lamplighter.keys.fold import Lineage


def lacking(view: View) -> Iterator[Problem]:
    """P001: what the policy requires, and the sinks of a lineage that has a key."""
    seen: set[str] = set()
    for name, parity in sorted(view.policy.parity.items()):
        for sink in parity.required:
            fact = view.inventory.sinks.get(sink)
            if fact is not None and fact.receipt is None:
                seen.add(sink)
                yield Problem(
                    sentence=f"{name} has to be there, and is not",
                    advice=_refill(view, sink),
                    lineage=_lineage_of(view, sink),
                    sink=sink,
                    place=("parity", name, "required"),
                )
    excused = {sink for parity in view.policy.parity.values() for sink in parity.optional}
    for lineage in sorted(view.members_of):
        opened = known.open if (known := view.recorded(lineage)) else None
        waiting = {each.address for each in opened.remaining} if opened else set()
        for fact in view.sinks_of(lineage):
            if fact.receipt is None and fact.name not in seen | excused and fact.address not in waiting:
                yield Problem(
                    sentence=f"it should hold the key of {lineage}, and has no such secret",
                    advice=_refill(view, fact.name),
                    lineage=lineage,
                    sink=fact.name,
                    place=_place(view, fact),
                )


def forbidden(view: View) -> Iterator[Problem]:
    """P002."""
    for name, parity in sorted(view.policy.parity.items()):
        for sink in parity.forbidden:
            fact = view.inventory.sinks.get(sink)
            if fact is not None and fact.receipt is not None:
                yield Problem(
                    sentence=f"{name} may not be there, and is",
                    advice="delete it there, and rotate the key that it holds",
                    sink=sink,
                    place=("parity", name, "forbidden"),
                )


def stale(view: View) -> Iterator[Problem]:
    """P003."""
    for lineage in sorted(view.members_of):
        key = view.current(lineage)
        for fact in view.sinks_of(lineage) if key is not None else ():
            assert key is not None
            # A value that was read says more than a time, and P004 says it.
            if not _is_read(view, fact, key) and _is_older(fact, key):
                yield Problem(
                    sentence=f"it was last written before key {key.id}, the present one of {lineage}, was made",
                    advice=_refill(view, fact.name),
                    key_id=key.id,
                    name=key.name,
                    lineage=lineage,
                    sink=fact.name,
                    place=_place(view, fact),
                )


def _is_older(fact: SinkFact, key: KeyFact) -> bool:
    updated = fact.receipt.updated_at if fact.receipt else None
    # Stores have whole seconds.
    return updated is not None and updated < key.created_at.replace(microsecond=0)


def _is_read(view: View, fact: SinkFact, key: KeyFact) -> bool:
    return fact.was_read and _mac(view, key.id) is not None


def wrong_value(view: View) -> Iterator[Problem]:
    """P004. During a rotation a store may hold the new key already, or the old one still."""
    for lineage in sorted(view.members_of):
        known, key = view.recorded(lineage), view.current(lineage)
        present = _mac(view, key.id) if key is not None else None
        if known is None or key is None or present is None:
            continue
        good = {present} | _of_rotation(known)
        for fact in view.sinks_of(lineage):
            if _holds_another(fact, good):
                yield Problem(
                    sentence=f"it holds {_held(fact, known)}, and not key {key.id}, the present one of {lineage}",
                    advice=_refill(view, fact.name),
                    key_id=key.id,
                    name=key.name,
                    lineage=lineage,
                    sink=fact.name,
                    place=_place(view, fact),
                )


def _of_rotation(known: Lineage) -> set[str]:
    """Fingerprints of the keys that stores may hold because a rotation is on its way; empty where none is."""
    storing = known.open is not None and known.open.verified is None
    if not (storing or known.pending):
        return set()
    return {each.mac for each in known.keys.values() if each.mac and each.id not in known.revoked}


def _holds_another(fact: SinkFact, good: set[str]) -> bool:
    return fact.was_read and fact.receipt is not None and fact.holds not in good


def _held(fact: SinkFact, known: Lineage) -> str:
    found = [each.id for each in known.keys.values() if each.mac == fact.holds and fact.holds is not None]
    return f"key {found[0]}" if found else "something else"


def _mac(view: View, key_id: int) -> str | None:
    known = view.journal_of(key_id)
    return known.keys[key_id].mac if known else None


def _lineage_of(view: View, sink: str) -> str | None:
    return next((name for name, each in view.policy.lineages.items() if sink in each.sinks), None)


def _refill(view: View, sink: str) -> str:
    lineage = _lineage_of(view, sink)
    if lineage is not None:
        return f"`lamp keys rotate {lineage}` mints a key and gives it to every sink"
    return "mint a key for it: `lamp keys mint --to` with its address"


def _place(view: View, fact: SinkFact) -> tuple[str, ...]:
    return ("sink", fact.name) if ("sink", fact.name) in view.policy.lines else view.place(_lineage_of(view, fact.name))


# Why there was nothing to check


def no_parity(view: View) -> str | None:
    return None if view.policy.parity else "the policy has no [parity.NAME]"


def no_sinks(view: View) -> str | None:
    asked = view.policy.sinks or any(gap.source == "sink" for gap in view.inventory.gaps) or view.inventory.sinks
    return None if asked else "neither the policy nor the journal names a sink"


def no_values(view: View) -> str | None:
    return no_sinks(view) or (None if view.inventory.read_values else "values were not to be read")
