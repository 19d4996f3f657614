"""What an audit finds, and the facts as its rules look at them. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, Literal

from lamplighter.keys.duration import show_duration
from lamplighter.keys.facts import Inventory, KeyFact, SinkFact
from lamplighter.keys.fold import Attempt, Lineage
from lamplighter.keys.policy import SEVERITIES, Ignore, LineagePolicy, Policy, Severity

_USUAL: Final = re.compile(r"(?P<prefix>[^.]+)\.(?P<lineage>[^.]+)\.[a-z2-7]{10}")

#: What a rule goes by; each is one or more sources of the inventory.
Need = Literal["keys", "members", "projects", "journal", "minter", "sinks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it should be.

    What it is about: `key_id` and `name`, `lineage`, `sink`, as far as they apply. `place` is where the policy says how
    it should be. `addresses` are where a key was used from: reports leave them out unless they are asked for.
    """

    sentence: str
    advice: str
    key_id: int | None = None
    name: str | None = None
    lineage: str | None = None
    sink: str | None = None
    addresses: tuple[str, ...] = ()
    place: tuple[str, ...] = ("defaults",)

    @property
    def subject(self) -> str:
        """`key 12 (lamp.ci.abcdefghij)`, or the sink, the lineage or the name that it is about."""
        if self.key_id is not None:
            return f"key {self.key_id}" + (f" ({self.name})" if self.name else "")
        return self.sink or self.lineage or self.name or "all keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem, by the rule that found it. `line` is that of the policy; `ignored` is who answers for it."""

    rule: str
    severity: Severity
    problem: Problem
    line: int = 1
    ignored: Ignore | None = None

    @property
    def order(self) -> tuple[int, str, int, str, str, str, str]:
        """The worst first."""
        about = self.problem
        texts = (about.lineage or "", about.sink or "", about.name or "", about.sentence)
        return (-SEVERITIES.index(self.severity), self.rule, about.key_id or 0, *texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`unasked` says why there is nothing to check, None where there is: without a limit nothing is beyond it."""

    id: str
    title: str
    severity: Severity
    why: str
    needs: frozenset[Need]
    check: Callable[[View], Iterator[Problem]]
    unasked: Callable[[View], str | None] = field(default=lambda view: None)  # noqa: ARG005 - most are always asked


def days(span: timedelta) -> str:
    """`91 days`, `1 day`; hours below two days."""
    if span < timedelta(days=2):
        return show_duration(timedelta(hours=span // timedelta(hours=1))) if span >= timedelta(hours=1) else "minutes"
    return f"{span // timedelta(days=1)} days"


@dataclass(frozen=True, kw_only=True)
class View:
    """The inventory joined with the policy, at one moment. A rule only ever sees this."""

    inventory: Inventory
    policy: Policy
    now: datetime

    @cached_property
    def keys(self) -> tuple[KeyFact, ...]:
        return tuple(sorted(self.inventory.keys, key=lambda key: key.id))

    @cached_property
    def consumers(self) -> tuple[KeyFact, ...]:
        """All keys but the minter."""
        return tuple(key for key in self.keys if key.id != self.inventory.minter_id)

    @cached_property
    def minter(self) -> KeyFact | None:
        return next((key for key in self.keys if key.id == self.inventory.minter_id), None)

    @cached_property
    def by_id(self) -> Mapping[int, KeyFact]:
        return {key.id: key for key in self.keys}

    @cached_property
    def lineages(self) -> Mapping[int, str]:
        """The lineage of each key that has one: as the journal knows it, or as its name says."""
        found: dict[int, str] = {}
        for key in self.consumers:
            lineage = self._lineage(key)
            if lineage is not None:
                found[key.id] = lineage
        return found

    def _lineage(self, key: KeyFact) -> str | None:
        known = self.journal_of(key.id)
        if known is not None:
            return known.name
        if key.name in self._announced:
            return self._announced[key.name]
        for name, each in self.policy.lineages.items():
            if each.naming.rid_of(key.name) is not None:
                return name
        return self._undeclared(key.name)

    def _undeclared(self, name: str) -> str | None:
        """The lineage that a name of the usual form says, though the policy has none of it."""
        found = _USUAL.fullmatch(name)
        return found["lineage"] if found and found["prefix"] == self.policy.neon.prefix else None

    @cached_property
    def _announced(self) -> Mapping[str, str]:
        """Lineages by the names that were ever asked for: a key may be there though its answer was lost."""
        state = self.inventory.state
        lineages = state.lineages if state else {}
        return {each.intent.name: name for name, known in lineages.items() for each in known.attempts.values()}

    @property
    def journal_failed(self) -> bool:
        """There is one, but nobody could read it: what it does not say is not known."""
        return any(gap.source == "journal" for gap in self.inventory.gaps)

    @cached_property
    def _journal_keys(self) -> Mapping[int, Lineage]:
        state = self.inventory.state
        return {key_id: each for each in state.lineages.values() for key_id in each.keys} if state else {}

    def journal_of(self, key_id: int) -> Lineage | None:
        return self._journal_keys.get(key_id)

    def recorded(self, lineage: str) -> Lineage | None:
        state = self.inventory.state
        return state.lineages.get(lineage) if state else None

    @cached_property
    def members_of(self) -> Mapping[str, tuple[KeyFact, ...]]:
        """The live keys of each lineage, by its name."""
        found: defaultdict[str, list[KeyFact]] = defaultdict(list)
        for key in self.consumers:
            if (lineage := self.lineages.get(key.id)) is not None:
                found[lineage].append(key)
        return {name: tuple(found[name]) for name in sorted(found)}

    def declared(self, key: KeyFact) -> LineagePolicy | None:
        lineage = self.lineages.get(key.id)
        return self.policy.lineages.get(lineage) if lineage is not None else None

    # The present key of a lineage, and those before it

    def successor(self, lineage: str) -> Attempt | None:
        """The attempt that put the present key in place: proven, and not given up."""
        known = self.recorded(lineage)
        if known is None:
            return None
        proven = [
            each
            for each in known.attempts.values()
            if each.verified is not None and each.end in (None, "done") and each.key_id is not None
        ]
        if not proven:
            return None
        last = proven[-1]
        # A key that was adopted since, or found to be revoked, is not this attempt's any more.
        return last if last.end is None or known.current == last.key_id else None

    def current(self, lineage: str) -> KeyFact | None:
        """The live key that every sink should hold: as the journal says, else the youngest."""
        successor, known = self.successor(lineage), self.recorded(lineage)
        if successor is not None and successor.key_id is not None:
            return self.by_id.get(successor.key_id)
        if known is not None and known.current is not None:
            return self.by_id.get(known.current)
        if known is not None and (known.keys or known.attempts):
            # A first rotation that is under way, or one that was undone.
            return None
        keys = self.members_of.get(lineage, ())
        return max(keys, key=lambda key: (key.created_at, key.id)) if keys else None

    def sinks_of(self, lineage: str) -> tuple[SinkFact, ...]:
        """The sinks that answered, of the policy and of the journal."""
        declared = self.policy.lineages.get(lineage)
        known = self.recorded(lineage)
        names = set(declared.sinks) if declared else set()
        addresses = {address for address, ids in known.may_hold.items() if ids & known.live} if known else set()
        facts = self.inventory.sinks.values()
        return tuple(
            sorted(
                (each for each in facts if each.name in names or each.address in addresses), key=lambda fact: fact.name
            )
        )

    # Problems

    def about(self, key: KeyFact, sentence: str, advice: str, *, addresses: tuple[str, ...] = ()) -> Problem:
        lineage = self.lineages.get(key.id)
        return Problem(
            sentence=sentence,
            advice=advice,
            key_id=key.id,
            name=key.name,
            lineage=lineage,
            addresses=addresses,
            place=self.place(lineage),
        )

    def place(self, lineage: str | None) -> tuple[str, ...]:
        return ("lineage", lineage) if lineage in self.policy.lineages and lineage is not None else ("defaults",)

    def renewal(self, key: KeyFact) -> str:
        """How to get another key into the place of this one."""
        lineage = self.lineages.get(key.id)
        if key.id == self.inventory.minter_id:
            return "make a new minter, then revoke this one: `lamp keys init`"
        if lineage is not None and lineage in self.policy.lineages:
            return f"`lamp keys rotate {lineage}`"
        return f"`lamp keys rotate --id {key.id}` with `--to` for every place that holds it"
