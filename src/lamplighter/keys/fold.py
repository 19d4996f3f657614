"""What is true after the lines of a journal so far. Pure: `apply(state, record)` gives the next state.

The heart of it is `may_hold`: the keys that a sink may hold, as far as can be known of a store that cannot be read. A
key is added when we are about to write it, and the others leave when the store has said that it took it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import singledispatch
from typing import Literal

from lamplighter.keys import records as rec
from lamplighter.keys.records import Record, Scope, SinkRef
from lamplighter.keys.sinks.base import Receipt

End = Literal["aborted", "superseded", "done"]
Phase = Literal[
    "minting", "minted", "storing", "stored", "verified", "soaking", "held", "aborted", "superseded", "done"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a lineage. `told` says that some sink was told of it, or was adopted with it.

    `stray` is a key whose value nobody saw: found by its name, to be revoked.
    """

    id: int
    name: str
    scope: Scope
    mac: str | None = None
    rid: str | None = None
    told: bool = False
    stray: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    since: datetime
    until: datetime
    seen: Mapping[int, str | None]
    held: rec.HeldBack | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One mint intent and what came of it. A rotation is one attempt, or more when a value was lost half-way."""

    intent: rec.MintIntent
    key_id: int | None = None
    mac: str | None = None
    checked: bool = False
    told: frozenset[str] = frozenset()
    before: Mapping[str, Receipt | None] = field(default_factory=dict)
    stored: Mapping[str, Receipt] = field(default_factory=dict)
    verified: rec.Verified | None = None
    soak: Soak | None = None
    end: End | None = None
    reason: str = ""

    @property
    def rid(self) -> str:
        return self.intent.rid

    @property
    def remaining(self) -> tuple[SinkRef, ...]:
        """The sinks that have not said that they took the key, in the order of writing."""
        return tuple(each for each in self.intent.sinks if each.address not in self.stored)

    @property
    def phase(self) -> Phase:
        if self.end is not None:
            return self.end
        if self.soak is not None:
            return "held" if self.soak.held else "soaking"
        if self.verified is not None:
            return "verified"
        if self.key_id is None:
            return "minting"
        if not self.told:
            return "minted"
        return "storing" if self.remaining else "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """One logical key: its attempts in order, its keys by id, and which of them each sink may hold."""

    name: str
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    keys: Mapping[int, Key] = field(default_factory=dict)
    may_hold: Mapping[str, frozenset[int]] = field(default_factory=dict)
    refs: Mapping[str, SinkRef] = field(default_factory=dict)
    revoking: Mapping[int, rec.RevokeIntent] = field(default_factory=dict)
    revoked: frozenset[int] = frozenset()
    current: int | None = None
    scope: Scope | None = None
    #: Whose personal keys these are: only that user's list tells whether they are live. None: not known.
    account: str | None = None
    #: Attempts that were given up half-way since a rotation was last finished.
    pending: tuple[str, ...] = ()

    @property
    def live(self) -> frozenset[int]:
        """Ids of keys that were not seen to be revoked."""
        return frozenset(self.keys) - self.revoked

    @property
    def unsure(self) -> tuple[Attempt, ...]:
        """Attempts of which it is not known whether there is a key."""
        return tuple(each for each in self.attempts.values() if each.end is None and each.key_id is None)

    @property
    def open(self) -> Attempt | None:
        """The attempt that is under way with a key of its own."""
        found = [each for each in self.attempts.values() if each.end is None and each.key_id is not None]
        return found[-1] if found else None

    @property
    def latest(self) -> Attempt | None:
        return list(self.attempts.values())[-1] if self.attempts else None

    @property
    def doomed(self) -> tuple[Key, ...]:
        """Keys that no sink was ever told of and nobody will use: strays, and those of aborted attempts."""
        aborted = {each.key_id for each in self.attempts.values() if each.end == "aborted"}
        return tuple(
            key
            for key in self.keys.values()
            if key.id not in self.revoked and not key.told and (key.stray or key.id in aborted)
        )

    @property
    def watched(self) -> frozenset[str]:
        """Names of which no key was ever seen, though one was asked for: a late one may still appear."""
        seen = {key.name for key in self.keys.values()}
        return frozenset(
            each.intent.name
            for each in self.attempts.values()
            if each.end == "aborted" and each.key_id is None and each.intent.name not in seen
        )

    @property
    def unfinished(self) -> bool:
        """Whether `recover` has something to do."""
        return bool(self.unsure or self.open or self.pending or self.doomed or (set(self.revoking) - self.revoked))

    def holders(self, key_id: int) -> tuple[str, ...]:
        """Addresses of the sinks that may hold this key."""
        return tuple(address for address, ids in self.may_hold.items() if key_id in ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    lineages: Mapping[str, Lineage] = field(default_factory=dict)

    def lineage(self, name: str) -> Lineage:
        """Of a name that the journal does not know: an empty one."""
        return self.lineages.get(name) or Lineage(name=name)

    @property
    def unfinished(self) -> tuple[str, ...]:
        return tuple(name for name, each in self.lineages.items() if each.unfinished)

    def lineage_of(self, key_id: int) -> Lineage | None:
        return next((each for each in self.lineages.values() if key_id in each.keys), None)

    def id_of(self, mac: str) -> int | None:
        """The key whose value has this HMAC. MACs are no secret: they are compared as they are."""
        found = (key.id for each in self.lineages.values() for key in each.keys.values() if key.mac == mac)
        return next(found, None)


def fold(records: Iterable[Record]) -> State:
    """The state after all of them. Raises ValueError for a record that cannot follow the ones before it."""
    state = State()
    for record in records:
        state = apply(state, record)
    return state


def apply(state: State, record: Record) -> State:
    """The state after one more. Raises ValueError."""
    changed = _change(record, state.lineage(record.lineage))
    return State(lineages={**state.lineages, record.lineage: changed})


@singledispatch
def _change(record: Record, lineage: Lineage) -> Lineage:  # noqa: ARG001 - the signature of those that follow
    raise ValueError(f"a {record.kind} record changes nothing that is known")


def _attempt(lineage: Lineage, rid: str) -> Attempt:
    attempt = lineage.attempts.get(rid)
    if attempt is None:
        raise ValueError("a record of a rotation that never began")
    return attempt


def _with(lineage: Lineage, attempt: Attempt) -> Lineage:
    return replace(lineage, attempts={**lineage.attempts, attempt.rid: attempt})


def _refs(lineage: Lineage, sinks: Iterable[SinkRef]) -> dict[str, SinkRef]:
    return {**lineage.refs, **{each.address: each for each in sinks}}


@_change.register
def _(record: rec.Adopted, lineage: Lineage) -> Lineage:
    key = Key(id=record.key_id, name=record.name, scope=record.scope, mac=record.mac, told=True)
    held = {each.address: lineage.may_hold.get(each.address, frozenset()) | {key.id} for each in record.sinks}
    return replace(
        lineage,
        keys={**lineage.keys, key.id: key},
        may_hold={**lineage.may_hold, **held},
        refs=_refs(lineage, record.sinks),
        current=key.id,
        scope=record.scope,
        account=(record.account if record.scope.kind == "personal" else None) or lineage.account,
    )


@_change.register
def _(record: rec.MintIntent, lineage: Lineage) -> Lineage:
    if record.rid in lineage.attempts:
        raise ValueError("two rotations with one id")
    begun = _with(lineage, Attempt(intent=record))
    account = record.account if record.scope.kind == "personal" else None
    return replace(begun, refs=_refs(lineage, record.sinks), scope=record.scope, account=account or lineage.account)


@_change.register
def _(record: rec.Minted, lineage: Lineage) -> Lineage:
    attempt = replace(_attempt(lineage, record.rid), key_id=record.key_id, mac=record.mac)
    key = Key(id=record.key_id, name=attempt.intent.name, scope=attempt.intent.scope, mac=record.mac, rid=record.rid)
    return replace(_with(lineage, attempt), keys={**lineage.keys, key.id: key})


@_change.register
def _(record: rec.Found, lineage: Lineage) -> Lineage:
    attempt = _attempt(lineage, record.rid)
    key = Key(id=record.key_id, name=attempt.intent.name, scope=attempt.intent.scope, rid=record.rid, stray=True)
    return replace(lineage, keys={**lineage.keys, key.id: key})


@_change.register
def _(record: rec.Checked, lineage: Lineage) -> Lineage:
    attempt = replace(_attempt(lineage, record.rid), checked=True)
    account = record.account_id if attempt.intent.scope.kind == "personal" else lineage.account
    return replace(_with(lineage, attempt), account=account)


@_change.register
def _(record: rec.StoreIntent, lineage: Lineage) -> Lineage:
    attempt = _attempt(lineage, record.rid)
    changed = replace(attempt, told=attempt.told | {record.sink}, before={**attempt.before, record.sink: record.before})
    if attempt.key_id != record.key_id:
        raise ValueError("a key is stored that was not minted")
    key = replace(lineage.keys[record.key_id], told=True)
    held = lineage.may_hold.get(record.sink, frozenset()) | {record.key_id}
    return replace(
        _with(lineage, changed),
        keys={**lineage.keys, key.id: key},
        may_hold={**lineage.may_hold, record.sink: held},
    )


@_change.register
def _(record: rec.Stored, lineage: Lineage) -> Lineage:
    attempt = _attempt(lineage, record.rid)
    changed = replace(attempt, stored={**attempt.stored, record.sink: record.receipt})
    held = {**lineage.may_hold, record.sink: frozenset({record.key_id})}
    return replace(_with(lineage, changed), may_hold=held)


@_change.register
def _(record: rec.Observed, lineage: Lineage) -> Lineage:
    attempt = _attempt(lineage, record.rid)
    stored = {address: receipt for address, receipt in attempt.stored.items() if address != record.sink}
    held = lineage.may_hold.get(record.sink, frozenset())
    if record.key_id is not None:
        held |= {record.key_id}
    return replace(
        _with(lineage, replace(attempt, stored=stored, verified=None, soak=None)),
        may_hold={**lineage.may_hold, record.sink: held},
    )


@_change.register
def _(record: rec.Verified, lineage: Lineage) -> Lineage:
    return _with(lineage, replace(_attempt(lineage, record.rid), verified=record))


@_change.register
def _(record: rec.Soaking, lineage: Lineage) -> Lineage:
    soak = Soak(since=record.at, until=record.until, seen=record.seen)
    return _with(lineage, replace(_attempt(lineage, record.rid), soak=soak))


@_change.register
def _(record: rec.HeldBack, lineage: Lineage) -> Lineage:
    soak = Soak(since=record.at, until=record.until, seen=record.seen, held=record)
    return _with(lineage, replace(_attempt(lineage, record.rid), soak=soak))


@_change.register
def _(record: rec.RevokeIntent, lineage: Lineage) -> Lineage:
    return replace(lineage, revoking={**lineage.revoking, record.key_id: record})


@_change.register
def _(record: rec.Revoked, lineage: Lineage) -> Lineage:
    return replace(
        lineage,
        revoked=lineage.revoked | {record.key_id},
        current=None if lineage.current == record.key_id else lineage.current,
    )


def _ended(lineage: Lineage, rid: str, end: End, *, reason: str = "") -> Lineage:
    return _with(lineage, replace(_attempt(lineage, rid), end=end, reason=reason))


@_change.register
def _(record: rec.Aborted, lineage: Lineage) -> Lineage:
    return _ended(lineage, record.rid, "aborted", reason=record.reason)


@_change.register
def _(record: rec.Superseded, lineage: Lineage) -> Lineage:
    ended = _ended(lineage, record.rid, "superseded", reason=record.reason)
    return replace(ended, pending=(*lineage.pending, record.rid))


@_change.register
def _(record: rec.Done, lineage: Lineage) -> Lineage:
    ended = _ended(lineage, record.rid, "done")
    return replace(ended, current=record.key_id, pending=())


@_change.register
def _(record: rec.Forgotten, lineage: Lineage) -> Lineage:
    return replace(
        lineage,
        may_hold={address: ids for address, ids in lineage.may_hold.items() if address != record.sink},
        refs={address: ref for address, ref in lineage.refs.items() if address != record.sink},
    )
