"""A key leaked: which one is it, what breaks without it, and how it is put out of use and replaced.

Cut first, then mint another (`cut`, then `Manager.rotate`); or swap, where an outage is worse than some more minutes.
A leaked value is looked up by its HMAC, without a network; only one that the journal does not know is tried on Neon.
Nothing here waits for the journal's lock: a leaked key is revoked although a rotation is at work, or the disk is full.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal

from lamplighter.keys.errors import Busy, JournalError, NeonFailed, NotProven, PolicyError
from lamplighter.keys.fold import State
from lamplighter.keys.manager import Manager, scope_of
from lamplighter.keys.neon import Identity
from lamplighter.keys.plan import LiveKey
from lamplighter.keys.records import Record, Scope
from lamplighter.keys.sinks.registry import sink_of
from lamplighter.keys.value import KeyBuffer

How = Literal["id", "name", "journal", "use"]

#: Neon may note uses in whole seconds.
_BETWEEN_LISTINGS: Final = 1.1
_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """The key that leaked. `holders` are the addresses of sinks that may hold it; `live` False: it is dead already.

    `how` says what it was told by: its id, its name, the HMAC of its value, or that Neon saw it used. `mac` is that
    HMAC, where the value was given and the journal does not know it.
    """

    key_id: int
    name: str
    scope: Scope
    how: How
    lineage: str | None = None
    holders: tuple[str, ...] = ()
    live: bool = True
    last_used_at: str | None = None
    last_used_from: tuple[str, ...] = ()
    mac: str | None = None

    @property
    def key(self) -> LiveKey:
        return LiveKey(id=self.key_id, name=self.name, project_id=self.scope.project_id)


def by_text(text: str, manager: Manager, state: State, *, org_id: str | None = None) -> Leak:
    """The key of this id or name. Raises PolicyError for a name that several have, NeonFailed (404) for none."""
    if text.isascii() and text.isdecimal():
        return _by_id(int(text), manager, state, org_id=org_id)
    lists = [Scope(kind="organization", org_id=org_id)] if org_id else _lists(manager, state)
    found = [
        (key, scope_of(key, scope))
        for scope in lists
        for key in manager.server.list(scope).values()
        # The rotation id at its end is not what people know a key by.
        if key.name == text or key.name.rpartition(".")[0] == text
    ]
    if not found:
        raise NeonFailed(f"no live key is called {text!r}", status=404, hint="`lamp keys list` shows them")
    if len(found) > 1:
        ids = ", ".join(str(key.id) for key, _ in found)
        raise PolicyError(f"{len(found)} live keys are called {text!r}: {ids}", hint="name one of them by its id")
    return _leak(*found[0], "name", manager, state)


def _by_id(key_id: int, manager: Manager, state: State, *, org_id: str | None) -> Leak:
    known = state.lineage_of(key_id)
    if known is not None:
        key = known.keys[key_id]
        manager.check_account(known)
        listed = manager.server.list(key.scope).get(key_id)
        return _known(key_id, state, listed, "id")
    return _leak(*manager.find(key_id, org_id=org_id, state=state), "id", manager, state)


def by_value(value: KeyBuffer, manager: Manager, state: State) -> Leak:
    """The key that has this value. `state` is what the journal says.

    Raises NeonFailed for a value that Neon does not accept (404), and when it cannot be told which key it is.
    """
    salt = _salt(manager)
    mac = None if salt is None else value.mac(salt)
    key_id = None if mac is None else state.id_of(mac)
    if key_id is not None:
        known = state.lineage_of(key_id)
        assert known is not None
        manager.check_account(known)
        listed = manager.server.list(known.keys[key_id].scope).get(key_id)
        return _known(key_id, state, listed, "journal")
    who = _tried(value, manager)
    kind = who.kind
    if kind is None:
        raise NotProven("what leaked is no API key: Neon says that it is something else", hint="see whose it is")
    if kind == "personal" and who.account_id != manager.server.identity().account_id:
        raise NeonFailed(
            f"the leaked key is a personal key of another account ({who.account_id})",
            hint="only its user can revoke it; ask them to, at once",
        )
    scope = Scope(kind="personal") if kind == "personal" else Scope(kind="organization", org_id=who.account_id)
    # Of today only: it is compared, and not kept.
    trial = b"" if salt is None else salt
    if manager.server.mac(trial) == value.mac(trial):
        raise PolicyError(
            "the leaked key is the minter itself, which cannot revoke itself",
            hint="make another minter (`lamp keys init`), then run this with that one",
        )
    key = _by_use(value, scope, manager)
    leak = _leak(key, scope_of(key, scope), "use", manager, state)
    return replace(leak, mac=mac)


def _salt(manager: Manager) -> bytes | None:
    """One is made where there is none yet, if that can be: the key is known again by it when it is dead."""
    with suppress(Busy, JournalError):
        if manager.salt is None:
            with manager.journal:
                pass
    return manager.salt


def _tried(value: KeyBuffer, manager: Manager) -> Identity:
    try:
        return manager.server.try_key(value)
    except NotProven:
        # Raised below: what that error says is meant of a new key.
        pass
    raise NeonFailed(
        "the server does not accept the leaked key: there it is not live, or not any more",
        status=404,
        hint="if it is of another server: --api-host, or another minter",
    )


def _by_use(value: KeyBuffer, scope: Scope, manager: Manager) -> LiveKey:
    """The one key whose last use moves when we use it, and does not when we do not: twice, for once may be chance."""
    candidates: set[int] | None = None
    listed: Mapping[int, LiveKey] = {}
    for _ in range(_ROUNDS):
        before = _uses(manager, scope)
        manager.clock.sleep(_BETWEEN_LISTINGS)
        idle = _uses(manager, scope)
        manager.clock.sleep(_BETWEEN_LISTINGS)
        manager.server.try_key(value)
        listed = manager.server.list(scope)
        after = {key.id: key.last_used_at for key in listed.values()}
        moved = {key_id for key_id, at in after.items() if at != idle.get(key_id)}
        moved -= {key_id for key_id, at in idle.items() if at != before.get(key_id)}
        seen_before = set() if candidates is None else candidates & moved
        candidates = seen_before or moved
        if len(seen_before) == 1:
            return listed[seen_before.pop()]
    among = ", ".join(map(str, sorted(candidates or listed)))
    raise NeonFailed(
        "the leaked key works, but which one it is cannot be told by its use",
        hint=f"it is one of {among}: `lamp keys list` shows their uses; then give its id",
    )


def _uses(manager: Manager, scope: Scope) -> dict[int, str | None]:
    return {key.id: key.last_used_at for key in manager.server.list(scope).values()}


def _lists(manager: Manager, state: State) -> list[Scope]:
    known = [Scope(kind="personal")] if manager.server.identity().kind == "personal" else []
    return list({each.org_id: each for each in [*known, *manager.scopes(state)]}.values())


def _known(key_id: int, state: State, listed: LiveKey | None, how: How) -> Leak:
    lineage = state.lineage_of(key_id)
    assert lineage is not None
    key = lineage.keys[key_id]
    return Leak(
        key_id=key_id,
        name=key.name,
        scope=key.scope,
        how=how,
        lineage=lineage.name,
        holders=lineage.holders(key_id),
        live=listed is not None,
        last_used_at=listed.last_used_at if listed else None,
        last_used_from=listed.last_used_from if listed else (),
    )


def _leak(key: LiveKey, scope: Scope, how: How, manager: Manager, state: State) -> Leak:
    if state.lineage_of(key.id) is not None:
        return _known(key.id, state, key, how)
    policy = manager.policy
    # Made by another machine: this journal does not know it, but its name says where it belongs.
    lineage = next((name for name, each in policy.lineages.items() if each.naming.rid_of(key.name) is not None), None)
    return Leak(
        key_id=key.id,
        name=key.name,
        scope=scope,
        how=how,
        lineage=lineage,
        holders=tuple(sink_of(each).describe() for each in policy.sinks_of(lineage)) if lineage else (),
        last_used_at=key.last_used_at,
        last_used_from=key.last_used_from,
    )


def what_breaks(leak: Leak) -> list[str]:
    """Sentences for whoever decides. Pure."""
    if not leak.live:
        return [f"key {leak.key_id} ({leak.name}) is not live any more"]
    told = [f"key {leak.key_id} ({leak.name}, {leak.scope}) is revoked, at once and for good"]
    told += [f"{address} may hold it: what reads it there fails until the new key is there" for address in leak.holders]
    if not leak.holders:
        told.append("no store is known to hold it: whatever uses it is locked out")
    if leak.last_used_at is not None:
        where = f" from {', '.join(leak.last_used_from)}" if leak.last_used_from else ""
        told.append(f"it was last used at {leak.last_used_at}{where}")
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The key is revoked. `ours` False: it was gone already.

    `unrecorded` are the kinds of lines that the journal lacks, `why` is what was in the way of them: None for nothing.
    """

    ours: bool
    unrecorded: tuple[str, ...] = ()
    why: Busy | JournalError | None = None


def cut(leak: Leak, manager: Manager, state: State) -> Cut:
    """Revoke it, although sinks may hold it, and write down what can be. `state` is what the journal says.

    A rotation at work sees that the key is gone, as when somebody else revokes it. Raises as `Manager.revoke`, but not
    for the journal.
    """
    taken, begun = manager.withdrawal(
        leak.key, leak.scope, reason="emergency: it leaked", forced=True, mac=leak.mac, state=state
    )
    left, _ = _record([each for each in (taken, begun) if each is not None], manager)
    ours = manager.withdraw(leak.scope, leak.key_id)
    # Again: the lock may be free by now, and for what was done there may be room where for an intent there was none.
    left, why = _record([*left, manager.withdrawn(begun, ours=ours)], manager)
    return Cut(ours=ours, unrecorded=tuple(each.kind for each in left), why=why)


def _record(records: list[Record], manager: Manager) -> tuple[list[Record], Busy | JournalError | None]:
    """Write down what can be: what is left then, and what was in the way."""
    left: list[Record] = []
    why: Busy | JournalError | None = None
    try:
        with manager.journal as journal:
            for each in records:
                try:
                    journal.append(each)
                except JournalError as error:
                    left.append(each)
                    why = error
    except (Busy, JournalError) as error:
        return records, error
    return left, why
