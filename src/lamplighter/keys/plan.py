"""What comes next in the life of a lineage: one table of rules for rotation and for recovery. Pure.

`next_action` sees what the journal says and what was found out since, and answers one action. A rotation that was
killed is the same rotation without a value in hand, so recovery is no code of its own. The rules keep these: a key that
a sink may hold is live (I1); no key of ours is live and unknown (I2); revoke by id only what may be revoked (I3); one
POST for a rotation id (I7); a key that is gone is revoked (I8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from lamplighter.keys import actions as act
from lamplighter.keys import records as rec
from lamplighter.keys.actions import Action
from lamplighter.keys.errors import Busy, Held, KeysError, MinterUnfit, MintUnknown, NotProven, PolicyError
from lamplighter.keys.fold import Attempt, Key, Lineage
from lamplighter.keys.naming import Naming
from lamplighter.keys.records import Scope, ScopeKind, SinkRef


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKey:
    """A key as Neon lists it."""

    id: int
    name: str
    created_at: datetime | None = None
    last_used_at: str | None = None
    last_used_from: tuple[str, ...] = ()
    project_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The live keys of the lineage's scopes, by id. `asked`: when they were asked for, by a clock that only runs."""

    asked: float
    keys: Mapping[int, LiveKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKey:
    """What is known of the key that we authenticate with. `scope` None: not known."""

    id: int | None = None
    mac: str | None = None
    scope: ScopeKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What the next attempt would be called, and what was asked for by whoever wants a rotation now."""

    rid: str
    name: str
    scope: Scope
    sinks: tuple[SinkRef, ...]
    soak: float
    smoke: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out in this run.

    `wanted`: a new rotation is asked for, and none was finished yet. `clock` is in seconds and only runs. `missed` says
    when a listing first lacked the key of an attempt. `contents` says which key of the lineage each sink holds that was
    read (None: none of them). `doubted` are sinks that were written again because they did not give the key back.
    `unanswered` is what became of the last request to mint, if that is not known. `soak`: whoever wants a rotation said
    that so many seconds are enough, also for one that soaks already.
    """

    now: datetime
    clock: float
    wanted: bool
    candidate: Candidate
    naming: Naming
    listing: Listing | None = None
    missed: Mapping[str, float] = field(default_factory=dict)
    in_hand: str | None = None
    readable: frozenset[str] = frozenset()
    contents: Mapping[str, int | None] | None = None
    doubted: frozenset[str] = frozenset()
    own: OwnKey = OwnKey()
    take_over: bool = False
    mints_left: int = 1
    unanswered: MintUnknown | None = None
    soak: float | None = None


#: Kinds of keys that the key we authenticate with could be one of, by its own kind.
_SAME_LIST: Final[Mapping[ScopeKind, frozenset[ScopeKind]]] = {
    "personal": frozenset({"personal"}),
    "organization": frozenset({"organization", "project"}),
    "project": frozenset({"organization", "project"}),
}


def next_action(lineage: Lineage, facts: Facts) -> Action:
    """The one thing to do now. Does not end by itself: the driver stops at `Stop` and `Finish`."""
    for rule in _RULES:
        action = rule(lineage, facts)
        if action is not None:
            return action
    return act.Finish(reason="nothing is left to do", foreign=foreign_keys(lineage, facts))


# What may be revoked


def why_not_revoke(lineage: Lineage, facts: Facts, key_id: int) -> KeysError | None:
    """I3: what forbids to revoke this key now, None when nothing does. Asked again right before the request."""
    key = lineage.keys.get(key_id)
    if key is None:
        return NotProven(f"key {key_id} is not in the journal, so it is not ours to revoke")
    if facts.listing is None:
        return NotProven(f"it was not looked whether key {key_id} is still the one we know")
    listed = facts.listing.keys.get(key_id)
    if listed is not None and listed.name != key.name:
        return NotProven(f"key {key_id} has another name than the journal says, so it was not revoked")
    begun = lineage.revoking.get(key_id)
    if begun is None or not begun.forced:
        if holders := lineage.holders(key_id):
            return NotProven(f"may still hold key {key_id}, so that was not revoked", address=holders[0])
        # A key that nobody was ever told of may be the last: undoing the first rotation leaves none.
        if key.told and not (lineage.live & set(facts.listing.keys)) - {key_id}:
            return NotProven(f"key {key_id} is the last live key of {lineage.name}, so it was not revoked")
    return _why_ours(key, facts)


def scopes_in_use(lineage: Lineage) -> tuple[Scope, ...]:
    """Of every key of a lineage that is live, or may be."""
    live = [lineage.keys[each].scope for each in sorted(lineage.live)]
    return tuple(dict.fromkeys([*live, *(each.intent.scope for each in lineage.unsure)]))


def why_not_theirs(
    lineage: Lineage, account_id: str, organizations: frozenset[str] | None = None
) -> MinterUnfit | None:
    """What forbids to believe the lists of a minter: they never have the keys of others, live as those are.

    `account_id` is whose personal keys it lists, `organizations` are those that it sees; None: nobody said.
    """
    hint = "use the server and the minter of that account; for this one another --lineage or --state-dir"
    for scope in scopes_in_use(lineage):
        if scope.org_id is None and lineage.account not in (None, account_id):
            return MinterUnfit(
                f"the keys of {lineage.name} are of account {lineage.account}, and the minter is of {account_id}",
                hint=hint,
            )
        if scope.org_id is not None and organizations is not None and scope.org_id not in organizations:
            return MinterUnfit(
                f"the keys of {lineage.name} are of organization {scope.org_id}, which the minter does not see",
                hint=hint,
            )
    return None


def _why_ours(key: Key, facts: Facts) -> KeysError | None:
    own = facts.own
    if own.id == key.id or (own.mac is not None and own.mac == key.mac):
        return MinterUnfit(f"key {key.id} is the one that we work with, so it was not revoked")
    if own.id is not None or (own.mac is not None and key.mac is not None):
        return None
    # A key that Neon gave us today cannot be the one that we asked with.
    if key.rid is not None or own.scope is None or key.scope.kind not in _SAME_LIST[own.scope]:
        return None
    return MinterUnfit(
        f"key {key.id} may be the one that we work with, so it was not revoked",
        hint="say which key is the minter's: `lamp keys init` finds it out",
    )


def foreign_keys(lineage: Lineage, facts: Facts) -> dict[int, str]:
    """Live keys with a name of this lineage that the journal does not know, by id."""
    if facts.listing is None:
        return {}
    known = {each.intent.name for each in lineage.attempts.values()}
    return {
        key.id: key.name
        for key in facts.listing.keys.values()
        if key.id not in lineage.keys and key.name not in known and facts.naming.rid_of(key.name)
    }


# Rules, in the order in which they are tried


def _sweep(lineage: Lineage, facts: Facts) -> Action | None:
    """Every intent to mint whose outcome is not known, before anything else; and late keys of those given up."""
    if facts.listing is None:
        busy = facts.wanted or lineage.unfinished or lineage.watched
        return act.Look(reason="see which keys there are") if busy else None
    for attempt, key_id in _strays(lineage, facts.listing):
        found = rec.Found(at=facts.now, lineage=lineage.name, rid=attempt.rid, key_id=key_id)
        return act.Note(record=found, reason=f"key {key_id} has the name of an attempt that never had an answer")
    for key in lineage.doomed:
        return _revoke(lineage, facts, key, f"no sink was told of key {key.id}, and its value is lost")
    for attempt in lineage.unsure:
        return _settle(lineage, facts, attempt)
    return None


def _strays(lineage: Lineage, listing: Listing) -> Iterator[tuple[Attempt, int]]:
    names = {each.intent.name: each for each in lineage.attempts.values()}
    for key_id in sorted(listing.keys):
        if key_id not in lineage.keys and (attempt := names.get(listing.keys[key_id].name)):
            yield attempt, key_id


def _settle(lineage: Lineage, facts: Facts, attempt: Attempt) -> Action:
    """No live key has the name. That is the truth once the request cannot be under way any more."""
    assert facts.listing is not None
    aborted = rec.Aborted(at=facts.now, lineage=lineage.name, rid=attempt.rid, reason="its request had no answer")
    if any(key.rid == attempt.rid for key in lineage.keys.values()):
        return act.Note(record=aborted, reason="the key of the attempt without an answer is revoked")
    known_at = facts.missed.get(attempt.rid, facts.listing.asked) + attempt.intent.timeout
    if facts.listing.asked >= known_at:
        return act.Note(record=aborted, reason="the attempt without an answer made no key; its name is watched")
    if facts.clock < known_at:
        return act.Pause(seconds=known_at - facts.clock, reason="a request to mint may still be under way")
    return act.Look(reason="see whether the request that had no answer made a key")


def _decided(lineage: Lineage, facts: Facts) -> Action | None:
    """A revocation that was begun is finished; one that is part of a rotation is asked again whether it may be."""
    under_way = lineage.open is not None or lineage.pending
    for key_id in sorted(set(lineage.revoking) - lineage.revoked):
        key = lineage.keys.get(key_id)
        if key is not None and (lineage.revoking[key_id].forced or not under_way):
            return _revoke(lineage, facts, key, "its revocation was begun")
    return None


def _lost(lineage: Lineage, facts: Facts) -> Action | None:
    """The new key is not live any more: somebody else revoked it."""
    attempt = lineage.open
    if attempt is None or facts.listing is None or attempt.key_id is None or attempt.key_id in facts.listing.keys:
        return None
    if not attempt.told:
        # Not in the list, but the list may lag: a DELETE by id settles it.
        return _undo(lineage, facts, attempt, f"key {attempt.key_id} is not in the list of live keys")
    return _supersede(lineage, facts, attempt, f"key {attempt.key_id} was revoked by somebody else")


def _fresh_key(lineage: Lineage, facts: Facts) -> Action | None:
    """A key that no sink was told of: in hand it goes on, else it is undone."""
    attempt = lineage.open
    if attempt is None or attempt.told:
        return None
    if facts.in_hand != attempt.rid:
        return _undo(lineage, facts, attempt, f"the value of key {attempt.key_id} is lost, and no sink was told of it")
    older = [key_id for key_id in foreign_keys(lineage, facts) if key_id < (attempt.key_id or 0)]
    if older and not facts.take_over:
        return act.Drop(rid=attempt.rid, error=_busy(lineage, older[0]), reason="another machine was first")
    if not attempt.checked:
        return act.Check(rid=attempt.rid, reason="see that the new key works and reaches what it should")
    return None


def _store(lineage: Lineage, facts: Facts) -> Action | None:
    attempt = lineage.open
    if attempt is None or not attempt.remaining or attempt.key_id is None:
        return None
    if facts.in_hand == attempt.rid:
        sink = attempt.remaining[0]
        return act.Store(rid=attempt.rid, key_id=attempt.key_id, sink=sink, reason=f"give it to {sink.address}")
    return _find_value(lineage, facts, attempt)


def _find_value(lineage: Lineage, facts: Facts, attempt: Attempt) -> Action:
    """The value is not in hand, and is needed: a sink that can be read may have it."""
    readable = tuple(each for each in attempt.intent.sinks if each.address in facts.readable)
    if readable and facts.contents is None:
        return act.Read(rid=attempt.rid, sinks=readable, reason="see whether a sink holds the new key")
    for sink in readable:
        if (facts.contents or {}).get(sink.address) == attempt.key_id:
            return act.Take(rid=attempt.rid, sink=sink, reason=f"{sink.address} holds the new key")
    return _supersede(lineage, facts, attempt, "its value is lost, and sinks may hold it")


def _verify(lineage: Lineage, facts: Facts) -> Action | None:
    attempt = lineage.open
    if attempt is None or attempt.verified is not None:
        return None
    proof = act.Verify(rid=attempt.rid, reason="prove that every sink has the new key")
    return _read_back(lineage, facts, attempt) or proof


def _read_back(lineage: Lineage, facts: Facts, attempt: Attempt) -> Action | None:
    """Every sink that can be read has the key."""
    readable = tuple(each for each in attempt.intent.sinks if each.address in facts.readable)
    if not readable:
        return None
    if facts.contents is None:
        return act.Read(rid=attempt.rid, sinks=readable, reason="read the new key back")
    wrong = [each for each in readable if facts.contents.get(each.address) != attempt.key_id]
    return _mismatch(lineage, facts, attempt, wrong[0]) if wrong else None


def _mismatch(lineage: Lineage, facts: Facts, attempt: Attempt, sink: SinkRef) -> Action:
    """A sink said that it took the key, and holds something else."""
    contents = facts.contents or {}
    elsewhere = any(key_id == attempt.key_id for key_id in contents.values())
    if sink.address not in facts.doubted and (facts.in_hand == attempt.rid or elsewhere):
        observed = rec.Observed(
            at=facts.now,
            lineage=lineage.name,
            rid=attempt.rid,
            sink=sink.address,
            key_id=contents.get(sink.address),
        )
        return act.Note(record=observed, reason=f"{sink.address} does not hold the new key: write it again")
    if facts.wanted and sink.address not in facts.doubted:
        return _supersede(lineage, facts, attempt, f"{sink.address} does not hold it any more, and nothing else can")
    error = NotProven(
        "holds another value than the one that was written",
        address=sink.address,
        hint="see what else writes there; `lamp keys rotate` mints a new key for all sinks",
    )
    return act.Stop(error=error, reason=f"{sink.address} does not give back what it was given")


def _retire(lineage: Lineage, facts: Facts) -> Action | None:
    """The new key is proven: wait for the consumers, then revoke what else there is."""
    attempt = lineage.open
    if attempt is None:
        return None
    if facts.listing is None:
        return act.Look(reason="see which old keys are live")
    others = sorted(lineage.live - {attempt.key_id})
    for key_id in others:
        if key_id not in facts.listing.keys:
            gone = rec.Revoked(
                at=facts.now,
                lineage=lineage.name,
                rid=attempt.rid,
                key_id=key_id,
                ours=key_id in lineage.revoking,
            )
            return act.Note(record=gone, reason=f"key {key_id} is not live any more")
    if not others:
        assert attempt.key_id is not None
        done = rec.Done(at=facts.now, lineage=lineage.name, rid=attempt.rid, key_id=attempt.key_id)
        return act.Note(record=done, reason=f"key {attempt.key_id} is the only live key of {lineage.name}")
    return (
        _soak(lineage, facts, attempt)
        # Somebody may have put the old key back meanwhile.
        or _read_back(lineage, facts, attempt)
        or _revoke_old(lineage, facts, attempt, lineage.keys[others[0]])
    )


def _soak(lineage: Lineage, facts: Facts, attempt: Attempt) -> Action | None:
    assert facts.listing is not None
    old = sorted(lineage.live - {attempt.key_id})
    seen = {key_id: facts.listing.keys[key_id].last_used_at for key_id in old}
    until = facts.now + timedelta(seconds=attempt.intent.soak)
    soak = attempt.soak
    # A clock that was set back would make the soak as long as the step: begin it again. So does a key that is new here.
    if soak is None or facts.now < soak.since or not set(seen) <= set(soak.seen):
        begun = rec.Soaking(at=facts.now, lineage=lineage.name, rid=attempt.rid, until=until, seen=seen)
        return act.Note(record=begun, reason="give the consumers time to take up the new key")
    ends = soak.until
    if facts.wanted and facts.soak is not None:
        # Somebody decided it: that no consumer uses the old key any more is seen all the same.
        ends = min(ends, soak.since + timedelta(seconds=facts.soak))
    if facts.now < ends:
        return act.Soak(rid=attempt.rid, until=ends, reason="the old key stays until then")
    for key_id in old:
        if seen[key_id] != soak.seen[key_id]:
            return _hold(lineage, facts, attempt, key_id, until=until, seen=seen)
    return None


def _hold(
    lineage: Lineage,
    facts: Facts,
    attempt: Attempt,
    key_id: int,
    *,
    until: datetime,
    seen: Mapping[int, str | None],
) -> Action:
    assert facts.listing is not None
    addresses = facts.listing.keys[key_id].last_used_from
    held = rec.HeldBack(
        at=facts.now,
        lineage=lineage.name,
        rid=attempt.rid,
        key_id=key_id,
        addresses=addresses,
        until=until,
        seen=seen,
    )
    where = f" from {', '.join(addresses)}" if addresses else ""
    error = Held(f"key {key_id} is still in use{where}, so it was not revoked", key_id=key_id, addresses=addresses)
    return act.Stop(error=error, record=held, reason=f"key {key_id} was used during the soak")


def _revoke_old(lineage: Lineage, facts: Facts, attempt: Attempt, key: Key) -> Action:
    ours = facts.own.id == key.id or (facts.own.mac is not None and facts.own.mac == key.mac)
    if not ours:
        return _revoke(lineage, facts, key, f"key {attempt.key_id} is in its place", rid=attempt.rid)
    contents = facts.contents or {}
    holding = [each for each in attempt.intent.sinks if contents.get(each.address) == attempt.key_id]
    if facts.in_hand == attempt.rid or holding:
        sink = None if facts.in_hand == attempt.rid else holding[0]
        return act.SignIn(rid=attempt.rid, sink=sink, reason=f"key {key.id} is our own: go on with the new one")
    error = MinterUnfit(
        f"key {key.id} is the one that we work with, so it was not revoked",
        hint=f"run `lamp keys recover` with key {attempt.key_id} as the minter",
    )
    return act.Stop(error=error, reason="the key that we work with cannot revoke itself")


def _begin(lineage: Lineage, facts: Facts) -> Action | None:
    """Nothing is under way: mint, when a rotation is asked for, or one was given up half-way."""
    given_up = lineage.attempts[lineage.pending[-1]] if lineage.pending else None
    if given_up is None and not facts.wanted:
        return None
    wanted = facts.candidate
    scope = given_up.intent.scope if given_up else wanted.scope
    sinks = _merged(given_up.intent.sinks, wanted.sinks if facts.wanted else ()) if given_up else wanted.sinks
    if (stop := _may_begin(lineage, facts, sinks)) is not None:
        return act.Stop(error=stop, reason="no key was minted")
    return act.Mint(
        rid=wanted.rid,
        name=wanted.name,
        scope=scope,
        sinks=sinks,
        soak=given_up.intent.soak if given_up else wanted.soak,
        smoke=given_up.intent.smoke if given_up else wanted.smoke,
        reason="mint another: the value of the last is lost" if given_up else "mint the new key",
    )


def _merged(first: tuple[SinkRef, ...], more: tuple[SinkRef, ...]) -> tuple[SinkRef, ...]:
    known = {each.address for each in first}
    return first + tuple(each for each in more if each.address not in known)


def _may_begin(lineage: Lineage, facts: Facts, sinks: tuple[SinkRef, ...]) -> KeysError | None:
    strangers = foreign_keys(lineage, facts)
    if strangers and not facts.take_over:
        return _busy(lineage, min(strangers))
    if facts.mints_left <= 0:
        return _no_answer(facts.unanswered)
    targets = {each.address for each in sinks}
    for address, ids in lineage.may_hold.items():
        if address not in targets and ids & lineage.live:
            return PolicyError(
                f"{address} may hold a key of {lineage.name}, and would not get the new one",
                hint=f"add it to the sinks, or say that it holds none: `lamp keys forget {lineage.name} {address}`",
            )
    return None


# Pieces


def _no_answer(last: MintUnknown | None) -> MintUnknown:
    text = "Neon was asked for a key more than once, and gave no answer that can be used; none is live"
    if last is None:
        return MintUnknown(text)
    text = f"{text}. The last: {last.message}"
    return MintUnknown(text, status=last.status, code=last.code, request_id=last.request_id)


def _busy(lineage: Lineage, key_id: int) -> Busy:
    return Busy(
        f"key {key_id} has a name of {lineage.name}, but this journal does not know it: another machine is at work",
        key_id=key_id,
        hint=f"when it is no rotation under way: `lamp keys adopt {key_id}`, or run it again with --take-over",
    )


def _revoke(lineage: Lineage, facts: Facts, key: Key, reason: str, *, rid: str | None = None) -> Action:
    if facts.listing is not None and key.id not in facts.listing.keys and key.id in lineage.revoking:
        gone = rec.Revoked(at=facts.now, lineage=lineage.name, rid=rid or key.rid, key_id=key.id)
        return act.Note(record=gone, reason=f"key {key.id} is not live any more")
    error = why_not_revoke(lineage, facts, key.id)
    if error is not None:
        return act.Stop(error=error, reason=error.message)
    return act.Revoke(rid=rid or key.rid, key_id=key.id, name=key.name, reason=reason)


def _undo(lineage: Lineage, facts: Facts, attempt: Attempt, reason: str) -> Action:
    """Revoke the key of an attempt that no sink was told of, then say that it is over."""
    assert attempt.key_id is not None
    if attempt.key_id not in lineage.revoked:
        return _revoke(lineage, facts, lineage.keys[attempt.key_id], reason, rid=attempt.rid)
    aborted = rec.Aborted(at=facts.now, lineage=lineage.name, rid=attempt.rid, reason=reason)
    return act.Note(record=aborted, reason="the new key is revoked; everything is as it was")


def _supersede(lineage: Lineage, facts: Facts, attempt: Attempt, reason: str) -> Action:
    given_up = rec.Superseded(at=facts.now, lineage=lineage.name, rid=attempt.rid, reason=reason)
    return act.Note(record=given_up, reason=f"give up key {attempt.key_id}: {reason}")


_RULES: Final[tuple[Callable[[Lineage, Facts], Action | None], ...]] = (
    _sweep,
    _decided,
    _lost,
    _fresh_key,
    _store,
    _verify,
    _retire,
    _begin,
)
