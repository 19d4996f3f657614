"""Rotation of one lineage: asks `plan` what comes next, does it, writes it down; the same for recovery.

    with Journal(directory) as journal:
        outcome = Rotation(server, journal, Naming("ci"), scope=scope, sinks=sinks).run()

Before every effect its intent is on disk, so a process may end anywhere: `recover()`, in any later process, finishes
the rotation or undoes it. Nothing here ever shows a value.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import singledispatchmethod
from typing import Final, Literal

from lamplighter import faults
from lamplighter.keys import actions as act
from lamplighter.keys import records as rec
from lamplighter.keys.actions import Action
from lamplighter.keys.errors import (
    KeysError,
    MintError,
    MinterUnfit,
    MintUnknown,
    NeonFailed,
    NotProven,
    PolicyError,
    SinkError,
    SinkUnreachable,
    WrongScope,
)
from lamplighter.keys.fold import Attempt, Lineage
from lamplighter.keys.harden import child_environment, hardened
from lamplighter.keys.journal import Journal
from lamplighter.keys.naming import RID_BYTES, Naming, make_rid
from lamplighter.keys.neon import KeyServer, check_theirs
from lamplighter.keys.plan import (
    Candidate,
    Facts,
    Listing,
    LiveKey,
    OwnKey,
    next_action,
    why_not_revoke,
)
from lamplighter.keys.proof import level_of
from lamplighter.keys.records import Scope, SinkRef
from lamplighter.keys.sinks.base import Receipt, Sink
from lamplighter.keys.sinks.registry import sink_of
from lamplighter.keys.value import KeyBuffer

Step = Literal["mint", "check", "store", "verify", "soak", "revoke"]

#: A rotation has some twenty steps; one that takes so many goes round in circles.
_MOST_STEPS: Final = 2000
#: How often a request is tried before a run gives up: POSTs (each with a name of its own), DELETEs, writes to a sink.
_MINTS: Final = 2
_DELETES: Final = 3
_WRITES: Final = 3
_SMOKE_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where the time comes from. `monotonic` is in seconds and only runs."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What is about to happen, or just did; `sentence` says why. Nothing in it is secret."""

    lineage: str
    step: Step | None
    sentence: str
    rid: str | None = None
    key_id: int | None = None
    sink: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to.

    `done`: the new key is everywhere, every other is revoked. `soaking`: so far, and the old keys stay until `until`.
    `undone`: everything is as it was before. `nothing`: there was nothing to do. `levels` says how far each sink was
    proven. `foreign` are live keys with a name of this lineage that the journal does not know.
    """

    lineage: str
    state: Literal["done", "soaking", "undone", "nothing"]
    rid: str | None = None
    key_id: int | None = None
    revoked: tuple[int, ...] = ()
    levels: Mapping[str, str] = field(default_factory=dict)
    consumer: str | None = None
    until: datetime | None = None
    foreign: Mapping[int, str] = field(default_factory=dict)


def _ignore(event: Event) -> None:
    """For callers that do not listen."""


@dataclass(slots=True)
class _Run:
    """What this run found out, and what it holds."""

    wanted: bool
    candidate: Candidate
    smoke: str | None = None
    listing: Listing | None = None
    missed: dict[str, float] = field(default_factory=dict)
    value: KeyBuffer | None = None
    in_hand: str | None = None
    contents: dict[str, int | None] | None = None
    doubted: set[str] = field(default_factory=set)
    own: OwnKey | None = None
    mints_left: int = _MINTS
    unanswered: MintUnknown | None = None
    deletes: int = 0
    revoked: list[int] = field(default_factory=list)
    finished: Attempt | None = None
    failure: KeysError | None = None
    sinks: dict[str, Sink] = field(default_factory=dict)

    def hold(self, rid: str, value: KeyBuffer) -> None:
        self.wipe()
        self.in_hand, self.value = rid, value

    def wipe(self) -> None:
        if self.value is not None:
            self.value.wipe()
        self.in_hand = self.value = None

    def drop(self, error: KeysError) -> None:
        """Undo what no sink was told of, then raise the error."""
        self.wipe()
        self.failure, self.wanted = error, False


class Rotation:
    """One lineage, on one server, by one journal.

    `scope` and `sinks` are needed for `run`; `recover` takes them from the journal. `soak` is in seconds; None is the
    longest that a sink asks for, and one that is given also shortens a soak that another run began. `smoke` is a shell
    command that has to end with 0 once every sink has the new key; it sees no key, and of our environment what
    `harden.child_environment` lets through and the names in `allow`.

    `consumer` is how many seconds to wait for somebody else to use the new key; None: not at all. `minter_id` is the id
    of the key that `server` is asked with, where it is known. `last` is the address of the sink that the minter itself
    is read from. With `wait` a run lasts through the soak, without holding the lock.

    `progress` hears of every step; `before` and `after` surround those that change something: what `before` raises
    stops the rotation there, as a crash would.
    """

    def __init__(
        self,
        server: KeyServer,
        journal: Journal,
        naming: Naming,
        *,
        scope: Scope | None = None,
        sinks: Sequence[Sink] = (),
        soak: float | None = None,
        smoke: str | None = None,
        allow: tuple[str, ...] = (),
        consumer: float | None = None,
        take_over: bool = False,
        minter: str = "",
        minter_id: int | None = None,
        last: str | None = None,
        wait: bool = True,
        resolve: Callable[[SinkRef], Sink] = sink_of,
        progress: Callable[[Event], None] = _ignore,
        before: Callable[[Event], None] = _ignore,
        after: Callable[[Event], None] = _ignore,
        clock: Clock | None = None,
    ) -> None:
        self._server = server
        self._journal = journal
        self._naming = naming
        self._scope = scope
        self._sinks = in_order(sinks, last)
        self._soak = soak
        self._smoke = smoke
        self._allow = allow
        self._consumer = consumer
        self._take_over = take_over
        self._minter = minter
        self._minter_id = minter_id
        self._wait = wait
        self._resolve = resolve
        self._progress, self._before, self._after = progress, before, after
        self._clock = clock or Clock()

    def run(self) -> Outcome:
        """Rotate: finish what is unfinished, then mint, store, prove, soak, revoke.

        Without an earlier key of the lineage, this is how its first one is made. Raises KeysError: the old key is then
        still in place, and `recover` goes on from there.
        """
        if self._scope is None:
            raise PolicyError("what the key is to reach was not said")
        if len({each.describe() for each in self._sinks}) < len(self._sinks):
            raise PolicyError("one sink is named twice")
        return self._go(wanted=True)

    def recover(self, *, smoke: str | None = None) -> Outcome:
        """Finish or undo what an earlier run left. Raises KeysError.

        `smoke` is run in the place of the command that the rotation was begun with; an empty one: none is run.
        """
        return self._go(wanted=False, smoke=smoke)

    # The loop

    def _go(self, *, wanted: bool, smoke: str | None = None) -> Outcome:
        with self._journal, hardened():
            run = _Run(wanted=wanted, candidate=self._candidate(), smoke=smoke)
            try:
                return self._loop(run)
            finally:
                run.wipe()
                for sink in run.sinks.values():
                    sink.close()

    def _loop(self, run: _Run) -> Outcome:
        for _ in range(_MOST_STEPS):
            action = next_action(self._lineage, self._facts(run))
            if run.failure is not None and isinstance(action, act.Finish | act.Stop | act.Mint):
                raise run.failure
            if isinstance(action, act.Finish):
                return self._outcome(run, foreign=action.foreign)
            if isinstance(action, act.Soak) and not self._wait:
                return self._outcome(run, until=action.until)
            self._progress(self._event(action))
            self._do(action, run)
            self._let_go(run)
        raise RuntimeError(f"the rotation of {self._naming.lineage} goes round in circles")

    @property
    def _lineage(self) -> Lineage:
        return self._journal.state.lineage(self._naming.lineage)

    def _facts(self, run: _Run) -> Facts:
        open_attempt = self._lineage.open
        refs = open_attempt.intent.sinks if open_attempt else ()
        return Facts(
            now=self._clock.now(),
            clock=self._clock.monotonic(),
            wanted=run.wanted,
            candidate=run.candidate,
            naming=self._naming,
            listing=run.listing,
            missed=run.missed,
            in_hand=run.in_hand,
            readable=frozenset(each.address for each in refs if self._sink(run, each).capabilities.readable),
            contents=run.contents,
            doubted=frozenset(run.doubted),
            own=run.own or OwnKey(id=self._minter_id),
            take_over=self._take_over,
            mints_left=run.mints_left,
            unanswered=run.unanswered,
            soak=self._soak,
        )

    def _candidate(self) -> Candidate:
        rid = make_rid(secrets.token_bytes(RID_BYTES))
        soaks = [each.capabilities.soak for each in self._sinks]
        return Candidate(
            rid=rid,
            name=self._naming.name(rid=rid, at=self._clock.now()),
            scope=self._scope or Scope(kind="personal"),
            sinks=tuple(SinkRef.of(each) for each in self._sinks),
            soak=float(max(soaks, default=0)) if self._soak is None else self._soak,
            smoke=self._smoke,
        )

    def _sink(self, run: _Run, ref: SinkRef) -> Sink:
        if ref.address not in run.sinks:
            given = [each for each in self._sinks if each.describe() == ref.address]
            run.sinks[ref.address] = given[0] if given else self._resolve(ref)
        return run.sinks[ref.address]

    def _let_go(self, run: _Run) -> None:
        """A value is held no longer than somebody needs it."""
        if run.in_hand is None:
            return
        attempt = self._lineage.attempts.get(run.in_hand)
        # When our own key is among the old ones, we go on with the new one.
        ours = run.own is not None and run.own.id in self._lineage.live
        if attempt is None or attempt.end is not None or (attempt.verified is not None and not ours):
            run.wipe()

    def _outcome(
        self, run: _Run, *, foreign: Mapping[int, str] | None = None, until: datetime | None = None
    ) -> Outcome:
        attempt = run.finished if until is None else self._lineage.open
        state: Literal["done", "soaking", "undone", "nothing"] = "nothing" if until is None else "soaking"
        if until is None and attempt is not None:
            state = "done" if attempt.end == "done" else "undone"
        verified = attempt.verified if attempt else None
        return Outcome(
            lineage=self._naming.lineage,
            state=state,
            rid=attempt.rid if attempt else None,
            key_id=attempt.key_id if attempt and state != "undone" else None,
            revoked=tuple(run.revoked),
            levels=verified.levels if verified else {},
            consumer=verified.consumer if verified else None,
            until=until,
            foreign=foreign or {},
        )

    # Saying what happens

    def _event(self, action: Action, step: Step | None = None) -> Event:
        sink = getattr(action, "sink", None)
        return Event(
            lineage=self._naming.lineage,
            step=step,
            sentence=action.reason,
            rid=getattr(action, "rid", None),
            key_id=getattr(action, "key_id", None),
            sink=sink.address if isinstance(sink, SinkRef) else None,
        )

    @contextmanager
    def _hooked(self, action: Action, step: Step) -> Iterator[None]:
        event = self._event(action, step)
        self._before(event)
        yield
        self._after(event)

    # Doing it

    @singledispatchmethod
    def _do(self, action: Action, run: _Run) -> None:
        raise NotImplementedError(type(action).__name__)

    @_do.register
    def _(self, action: act.Look, run: _Run) -> None:  # noqa: ARG002 - what is dispatched on
        self._look(run)

    def _look(self, run: _Run) -> None:
        if run.own is None:
            check_theirs(self._server, self._lineage)
            run.own = self._find_own()
        asked = self._clock.monotonic()
        keys: dict[int, LiveKey] = {}
        for scope in self._lists(run):
            keys.update(self._server.list(scope))
        run.listing = Listing(asked=asked, keys=keys)
        names = {each.name for each in keys.values()}
        for attempt in self._lineage.unsure:
            if attempt.intent.name not in names:
                run.missed.setdefault(attempt.rid, asked)

    def _find_own(self) -> OwnKey:
        mac = self._server.mac(self._journal.salt)
        known = self._minter_id
        if known is None and mac is not None:
            known = self._journal.state.id_of(mac)
        return OwnKey(id=known, mac=mac, scope=self._server.identity().kind)

    def _lists(self, run: _Run) -> list[Scope]:
        """One scope for each of Neon's lists that a key of this lineage may be in."""
        lineage = self._lineage
        scopes = [lineage.keys[key_id].scope for key_id in sorted(lineage.live)]
        scopes += [each.intent.scope for each in lineage.attempts.values() if each.key_id is None]
        scopes += [run.candidate.scope] if run.wanted or not scopes else []
        return list({each.org_id: each for each in scopes}.values())

    @_do.register
    def _(self, action: act.Pause, run: _Run) -> None:
        self._clock.sleep(action.seconds)
        run.listing = None

    @_do.register
    def _(self, action: act.Note, run: _Run) -> None:
        self._journal.append(action.record)
        record = action.record
        if isinstance(record, rec.Observed):
            run.doubted.add(record.sink)
            run.contents = None
        elif isinstance(record, rec.Superseded):
            run.contents = None
        elif isinstance(record, rec.Aborted | rec.Done):
            run.finished = self._lineage.attempts[record.rid]
            run.contents = None
        if isinstance(record, rec.Done) and run.finished is not None and self._is_wanted(run, run.finished):
            run.wanted = False

    def _is_wanted(self, run: _Run, attempt: Attempt) -> bool:
        """Whether this is the rotation that was asked for, even if another run began it."""
        asked = {each.address for each in run.candidate.sinks}
        return attempt.intent.scope == run.candidate.scope and {each.address for each in attempt.intent.sinks} == asked

    @_do.register
    def _(self, action: act.Mint, run: _Run) -> None:
        kind = self._server.identity().kind
        if kind not in (None, "personal"):
            raise MinterUnfit(
                "the minter is not a personal key, and no other can make keys",
                hint="use a personal key of an admin of the organization",
            )
        for ref in action.sinks:
            # What is down now is found out before there is a key.
            self._sink(run, ref).check()
        with self._hooked(action, "mint"):
            self._mint(action, run)
        run.candidate = self._candidate()
        run.listing = run.contents = None

    def _mint(self, action: act.Mint, run: _Run) -> None:
        now, lineage = self._clock.now(), self._naming.lineage
        intent = rec.MintIntent(
            at=now,
            lineage=lineage,
            rid=action.rid,
            name=action.name,
            scope=action.scope,
            sinks=action.sinks,
            soak=action.soak,
            timeout=self._server.settle,
            minter=self._minter,
            smoke=action.smoke,
            account=self._server.identity().account_id,
        )
        self._journal.append(intent)
        run.mints_left -= 1
        faults.point("keys.mint.before")
        try:
            minted = self._server.mint(action.scope, action.name)
        except MintUnknown as error:
            # The plan looks for it by its name.
            run.unanswered = error
            return
        except (MintError, MinterUnfit) as error:
            self._journal.append(rec.Aborted(at=now, lineage=lineage, rid=action.rid, reason=error.message))
            raise
        faults.point("keys.mint.after")
        run.hold(action.rid, minted.value)
        mac = minted.value.mac(self._journal.salt)
        self._journal.append(
            rec.Minted(at=self._clock.now(), lineage=lineage, rid=action.rid, key_id=minted.key_id, mac=mac)
        )
        if minted.project_id != action.scope.project_id:
            text = f"key {minted.key_id} was not made for {action.scope}"
            run.drop(WrongScope(text, key_id=minted.key_id))

    @_do.register
    def _(self, action: act.Check, run: _Run) -> None:
        attempt = self._lineage.attempts[action.rid]
        assert run.value is not None
        assert attempt.key_id is not None
        try:
            found = self._server.check(attempt.intent.scope, attempt.key_id, run.value)
        except KeysError as error:
            run.drop(error)
            return
        self._journal.append(
            rec.Checked(
                at=self._clock.now(),
                lineage=self._naming.lineage,
                rid=action.rid,
                key_id=attempt.key_id,
                account_id=found.account_id,
            )
        )

    @_do.register
    def _(self, action: act.Drop, run: _Run) -> None:
        run.drop(action.error)

    @_do.register
    def _(self, action: act.Read, run: _Run) -> None:
        known = {key.mac: key.id for key in self._lineage.keys.values() if key.mac is not None}
        contents: dict[str, int | None] = {}
        for ref in action.sinks:
            found = self._sink(run, ref).read_back()
            if found is None:
                contents[ref.address] = None
                continue
            with found:
                contents[ref.address] = known.get(found.mac(self._journal.salt))
        run.contents = contents

    @_do.register
    def _(self, action: act.Take, run: _Run) -> None:
        attempt = self._lineage.attempts[action.rid]
        found = self._sink(run, action.sink).read_back()
        if found is not None and attempt.mac is not None and found.matches(attempt.mac, self._journal.salt):
            run.hold(action.rid, found)
            return
        if found is not None:
            found.wipe()
        # It was there a moment ago.
        run.contents = None

    @_do.register
    def _(self, action: act.Store, run: _Run) -> None:
        sink = self._sink(run, action.sink)
        try:
            before = sink.metadata()
        except SinkError as error:
            if self._lineage.attempts[action.rid].told:
                raise
            run.drop(error)
            return
        with self._hooked(action, "store"):
            self._store(action, run, sink, before)

    def _store(self, action: act.Store, run: _Run, sink: Sink, before: Receipt | None) -> None:
        assert run.value is not None
        address, lineage = action.sink.address, self._naming.lineage
        self._journal.append(
            rec.StoreIntent(
                at=self._clock.now(),
                lineage=lineage,
                rid=action.rid,
                key_id=action.key_id,
                sink=address,
                before=before,
            )
        )
        faults.point("keys.store.before")
        receipt = self._write(sink, run.value, f"key {action.key_id}, rotation {action.rid}")
        faults.point("keys.store.after")
        self._journal.append(
            rec.Stored(
                at=self._clock.now(),
                lineage=lineage,
                rid=action.rid,
                key_id=action.key_id,
                sink=address,
                receipt=receipt,
            )
        )
        run.contents = None

    def _write(self, sink: Sink, value: KeyBuffer, marker: str) -> Receipt:
        """The same value to the same place: that may be done again."""
        for attempt in range(_WRITES - 1):
            try:
                return sink.write(value, marker)
            except SinkUnreachable:
                self._clock.sleep(0.5 * 4**attempt)
        return sink.write(value, marker)

    @_do.register
    def _(self, action: act.Verify, run: _Run) -> None:
        attempt = self._lineage.attempts[action.rid]
        assert attempt.key_id is not None
        if not self._still_works(run, attempt):
            return
        with self._hooked(action, "verify"):
            levels = {each.address: self._level(run, attempt, each) for each in attempt.intent.sinks}
            smoke = self._run_smoke(action, run)
            consumer = None if self._consumer is None else self._see_consumer(attempt, self._consumer)
            self._journal.append(
                rec.Verified(
                    at=self._clock.now(),
                    lineage=self._naming.lineage,
                    rid=action.rid,
                    key_id=attempt.key_id,
                    levels=levels,
                    consumer=consumer,
                    smoke=smoke,
                )
            )
        # What was used until now says nothing about the soak.
        run.listing = None

    def _still_works(self, run: _Run, attempt: Attempt) -> bool:
        """Whether Neon takes the new key. False: somebody revoked it meanwhile, and the plan sees that now."""
        if run.value is None or run.in_hand != attempt.rid:
            return True
        try:
            self._server.try_key(run.value)
        except NotProven:
            self._look(run)
            if run.listing is not None and attempt.key_id not in run.listing.keys:
                return False
            raise
        return True

    def _level(self, run: _Run, attempt: Attempt, ref: SinkRef) -> str:
        if (run.contents or {}).get(ref.address) == attempt.key_id:
            return "value"
        after = self._sink(run, ref).metadata()
        level = level_of(attempt.before.get(ref.address), attempt.stored[ref.address], after)
        if level is None:
            text = "has no such secret" if after is None else "was not changed by our write, or changed again since"
            raise NotProven(f"the store {text}", address=ref.address)
        return level

    def _run_smoke(self, action: act.Verify, run: _Run) -> str | None:
        """The command that ended with 0; None where there was none to run."""
        wanted = self._lineage.attempts[action.rid].intent.smoke
        command = wanted if run.smoke is None else run.smoke
        if command or wanted:
            told = f"run `{command}`, which has to end with 0" if command else f"`{wanted}` is not run"
            self._progress(replace(self._event(action), sentence=told))
        if command:
            self._smoke_of(command)
        return command or None

    def _smoke_of(self, command: str) -> None:
        why = ""
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                env=child_environment(allow=self._allow),
                stdin=subprocess.DEVNULL,
                # What it says is for people; our own stdout may be read by a program.
                stdout=2,
                timeout=_SMOKE_SECONDS,
                check=False,
            )
            why = f"ended with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            why = f"did not end within {_SMOKE_SECONDS:g} s"
        except OSError as error:
            why = f"cannot be run: {error.strerror}"
        if why:
            raise NotProven(
                f"the smoke command {why}",
                hint="put it right, then run `lamp keys recover`: it runs the same command again; with a LINEAGE and "
                "--smoke another, with --skip-smoke none",
            )

    def _see_consumer(self, attempt: Attempt, seconds: float) -> str:
        """Wait until the new key was used by somebody else than us: later than we did ourselves."""
        assert attempt.key_id is not None
        until = self._clock.monotonic() + seconds
        ours = self._last_use(attempt)
        while (used := self._last_use(attempt)) == ours:
            if self._clock.monotonic() >= until:
                raise NotProven(f"nobody used the new key within {seconds:g} s")
            self._clock.sleep(min(5.0, max(0.1, seconds / 20)))
        return used[0] or ""

    def _last_use(self, attempt: Attempt) -> tuple[str | None, tuple[str, ...]]:
        listed = self._server.list(attempt.intent.scope).get(attempt.key_id or 0)
        if listed is None:
            raise NotProven(f"key {attempt.key_id} was revoked by somebody else")
        return listed.last_used_at, listed.last_used_from

    @_do.register
    def _(self, action: act.Soak, run: _Run) -> None:
        known = {each.rid for each in self._lineage.attempts.values() if each.end == "done"}
        with self._hooked(action, "soak"), self._journal.released():
            # In short naps: the clock may be set meanwhile.
            while (left := (action.until - self._clock.now()).total_seconds()) > 0:
                self._clock.sleep(min(left, 30.0))
        # Another process may have brought it to its end meanwhile: that is not to be done twice.
        for attempt in self._lineage.attempts.values():
            if attempt.end == "done" and attempt.rid not in known and self._is_wanted(run, attempt):
                run.finished, run.wanted = attempt, False
        run.listing = run.contents = None

    @_do.register
    def _(self, action: act.SignIn, run: _Run) -> None:
        attempt = self._lineage.attempts[action.rid]
        value = run.value if action.sink is None else self._sink(run, action.sink).read_back()
        if value is None or attempt.mac is None or not value.matches(attempt.mac, self._journal.salt):
            raise NotProven(f"key {attempt.key_id} was there a moment ago")
        server = self._server.sign_in(value)
        value.wipe()
        if attempt.key_id not in server.list(attempt.intent.scope):
            raise MinterUnfit(f"key {attempt.key_id} cannot list keys, so the old minter stays")
        self._server = server
        run.own = OwnKey(id=attempt.key_id, mac=attempt.mac, scope=attempt.intent.scope.kind)

    @_do.register
    def _(self, action: act.Revoke, run: _Run) -> None:
        # I3 is asked of the list as it is now, not as it was when this was planned.
        self._look(run)
        error = why_not_revoke(self._lineage, self._facts(run), action.key_id)
        if error is not None:
            raise error
        with self._hooked(action, "revoke"):
            self._revoke(action, run)
        run.listing = None

    def _revoke(self, action: act.Revoke, run: _Run) -> None:
        if action.key_id not in self._lineage.revoking:
            self._journal.append(
                rec.RevokeIntent(
                    at=self._clock.now(),
                    lineage=self._naming.lineage,
                    rid=action.rid,
                    key_id=action.key_id,
                    name=action.name,
                    reason=action.reason,
                )
            )
        faults.point("keys.revoke.before")
        try:
            self._server.revoke(self._lineage.keys[action.key_id].scope, action.key_id)
        except NeonFailed:
            run.deletes += 1
            if run.deletes >= _DELETES:
                raise
            # Done or not: the list will tell.
            return
        faults.point("keys.revoke.after")
        self._journal.append(
            rec.Revoked(at=self._clock.now(), lineage=self._naming.lineage, rid=action.rid, key_id=action.key_id)
        )
        run.revoked.append(action.key_id)

    @_do.register
    def _(self, action: act.Stop, run: _Run) -> None:  # noqa: ARG002 - nothing is done with it any more
        if action.record is not None:
            self._journal.append(action.record)
        raise action.error


def in_order(sinks: Sequence[Sink], last: str | None) -> tuple[Sink, ...]:
    """Those that can be read first: after a crash the value may be had from them. What we live on comes last."""

    def rank(sink: Sink) -> tuple[bool, bool, bool]:
        able = sink.capabilities
        return sink.describe() == last, not able.readable, not able.versioned

    return tuple(sorted(sinks, key=rank))
