"""Between a policy, the journal and rotations: which lineages there are, what each needs, what is due.

Works with a policy and without one: what no policy says, the journal knows from the last rotation, or the caller says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from lamplighter import faults
from lamplighter.keys import records as rec
from lamplighter.keys.audit import needs_recover
from lamplighter.keys.errors import Busy, JournalBroken, JournalError, KeysError, NeonFailed, NotProven, PolicyError
from lamplighter.keys.fold import Key, Lineage, State, apply, fold
from lamplighter.keys.harden import hardened
from lamplighter.keys.journal import Journal, read_journal, read_salt
from lamplighter.keys.naming import RID_LENGTH, Naming
from lamplighter.keys.neon import KeyServer, check_theirs
from lamplighter.keys.plan import Candidate, Facts, Listing, LiveKey, OwnKey, why_not_revoke
from lamplighter.keys.policy import Policy, parse_policy
from lamplighter.keys.records import Scope, SinkRef
from lamplighter.keys.rotate import Clock, Event, Outcome, Rotation, in_order
from lamplighter.keys.sinks.base import Sink
from lamplighter.keys.sinks.registry import parse_sink, sink_of

POLICY_FILE: Final = "lamp-keys.toml"
#: Keys that are revoked though no lineage has them: the journal tells of them here.
UNMANAGED: Final = "unmanaged"

_OWN_ROUNDS: Final = 2
_LARGEST_POLICY: Final = 1 << 20
_RID: Final = re.compile(rf"\.[a-z2-7]{{{RID_LENGTH}}}$")
#: Dates in names, and the places of a pattern that make such dates; the longest first.
_DATES: Final = (
    (re.compile(r"(?<!\d)20\d\d-Q[1-4](?!\d)"), "{year}-Q{quarter}"),
    (re.compile(r"(?<!\d)20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d)"), "{year}-{month}-{day}"),
    (re.compile(r"(?<!\d)20\d\d-(?:0[1-9]|1[0-2])(?!\d)"), "{year}-{month}"),
    (re.compile(r"(?<!\d)20\d\d(?!\d)"), "{year}"),
)


# Where things are


def find_policy(*, cwd: Path, config_home: Path) -> Path | None:
    """`lamp-keys.toml` in `cwd`, else `lamplighter/keys.toml` in `config_home`; None where there is neither."""
    places = (cwd / POLICY_FILE, config_home / "lamplighter" / "keys.toml")
    return next((each for each in places if each.is_file()), None)


def load_policy(path: Path) -> Policy:
    """Raises PolicyError, which names the file and the line."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_POLICY + 1)
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_POLICY:
        raise PolicyError(f"{path} is too large for a policy")
    try:
        return parse_policy(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise PolicyError(f"{path} is no UTF-8 text") from None
    except PolicyError as error:
        raise PolicyError(f"{path}: {error.message}", hint=error.hint) from None


def state_directory(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/lamplighter/keys`, by default below `~/.local/state`."""
    home = environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home else Path("~/.local/state").expanduser()) / "lamplighter" / "keys"


def read_state(directory: Path) -> State:
    """What the journal says, without its lock. Raises JournalError."""
    records = read_journal(directory)
    try:
        return fold(records)
    except ValueError as error:
        why = str(error)
    raise JournalBroken(f"the journal cannot be followed: {why}")


def forget(journal: Journal, lineage: str, address: str, *, now: datetime) -> None:
    """Write down that a sink holds no key of a lineage any more. Raises PolicyError where it never did."""
    with journal:
        known = journal.state.lineage(lineage)
        if address not in known.refs and address not in known.may_hold:
            there = f"it has {', '.join(sorted(known.refs))}" if known.refs else "it has none"
            raise PolicyError(f"{lineage} has no sink {address}", hint=there)
        journal.append(rec.Forgotten(at=now, lineage=lineage, sink=address))


# Names


def pattern_of(name: str) -> str:
    """A pattern that gives names like this one at other times: `ci-2026-Q4` is `ci-{year}-Q{quarter}`. Pure."""
    text = _RID.sub("", name)
    if "{" in text or "}" in text:
        return text
    for date, places in _DATES:
        text, count = date.subn(places, text, count=1)
        if count:
            break
    return text


def lineage_of_name(name: str, *, prefix: str = "") -> str:
    """A lineage for a key that has only a name: what stays of it without dates and rotation ids. Pure."""
    text = _RID.sub("", name).removeprefix(f"{prefix}." if prefix else "")
    text = re.sub(r"\{[^{}]*\}", "", text)
    for date, _ in _DATES:
        text = date.sub("", text)
    slug = re.sub(r"-Q(?=-|$)", "", re.sub(r"[^A-Za-z0-9]+", "-", text)).lower()
    return re.sub(r"-+", "-", slug).strip("-")[:40].strip("-") or "key"


def naming_for(lineage: str, name: str, *, prefix: str, now: datetime) -> Naming:
    """How keys of a lineage are named whose user asked for `name`: exactly so, and by its date at other times.

    Raises PolicyError for a name that no key can have.
    """
    general = pattern_of(name)
    if general != name:
        naming = Naming(lineage, prefix=prefix, pattern=general)
        # A date that is not today's was meant as it is.
        if naming.name(rid="a" * RID_LENGTH, at=now) == f"{name}.{'a' * RID_LENGTH}" or "{" in name:
            return naming
    return Naming(lineage, prefix=prefix, pattern=name)


# What a lineage needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """All that a rotation of one lineage has to be told. `scope` None: not known yet."""

    lineage: str
    naming: Naming
    scope: Scope | None = None
    sinks: tuple[Sink, ...] = ()
    soak: timedelta | None = None
    smoke: str | None = None
    consumer: timedelta | None = None
    allow: tuple[str, ...] = ()
    owner: str | None = None
    declared: bool = False

    @property
    def soak_seconds(self) -> float:
        """What the policy says, else the longest that a sink asks for."""
        if self.soak is not None:
            return self.soak.total_seconds()
        return float(max((each.capabilities.soak for each in self.sinks), default=0))

    def ordered(self, last: str | None = None) -> tuple[Sink, ...]:
        """In the order in which they get the key: readable and versioned ones first, what the minter lives in last."""
        return in_order(self.sinks, last)

    def with_sinks(self, more: Iterable[Sink]) -> Target:
        """Each place once, in the order in which they were named."""
        return replace(self, sinks=tuple({each.describe(): each for each in (*self.sinks, *more)}.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one lineage: an outcome, or what stopped it."""

    lineage: str
    outcome: Outcome | None = None
    error: KeysError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Whether a lineage is to be rotated now. `at` None: it has no key yet. `key_id` is the present key."""

    lineage: str
    now: bool
    reason: str
    at: datetime | None = None
    key_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Who hears of what happens, as `Rotation` has it. What `before` raises stops the rotation."""

    progress: Callable[[Event], None] = lambda event: None  # noqa: ARG005 - nobody listens
    before: Callable[[Event], None] = lambda event: None  # noqa: ARG005 - the same
    after: Callable[[Event], None] = lambda event: None  # noqa: ARG005 - the same


@dataclass(slots=True, kw_only=True)
class Manager:
    """One server, one journal, one policy. `minter` is where its key comes from, as the journal tells it.

    `last` is the address of the sink that the minter is read from, `minter_id` its id, where these are known.
    """

    server: KeyServer
    journal: Journal
    policy: Policy = field(default_factory=Policy)
    minter: str = ""
    minter_id: int | None = None
    last: str | None = None
    hooks: Hooks = field(default_factory=Hooks)
    clock: Clock = field(default_factory=Clock)

    # Lineages

    def names(self, state: State) -> tuple[str, ...]:
        """Every lineage of the policy, then those that only the journal knows and that have a live key."""
        known = [name for name, each in state.lineages.items() if name != UNMANAGED and (each.live or each.unfinished)]
        return tuple(dict.fromkeys([*self.policy.lineages, *sorted(known)]))

    def target(self, name: str, state: State) -> Target:
        """Raises PolicyError where neither the policy nor the journal has such a lineage."""
        return target_of(name, self.policy, state)

    def naming(self, name: str, state: State) -> Naming:
        return naming_of(name, self.policy, state)

    # Rotations

    def rotation(
        self, target: Target, *, wait: bool = True, take_over: bool = False, soak: float | None = None
    ) -> Rotation:
        """The `Rotation` of a target; its `run` and `recover` take the lock themselves."""
        given = None if target.soak is None else target.soak.total_seconds()
        return Rotation(
            self.server,
            self.journal,
            target.naming,
            scope=target.scope,
            sinks=target.sinks,
            soak=given if soak is None else soak,
            smoke=target.smoke,
            allow=target.allow,
            consumer=None if target.consumer is None else target.consumer.total_seconds(),
            take_over=take_over,
            minter=self.minter,
            minter_id=self.minter_id,
            last=self.last,
            wait=wait,
            progress=self.hooks.progress,
            before=self.hooks.before,
            after=self.hooks.after,
            clock=self.clock,
        )

    def rotate(self, targets: Sequence[Target], *, wait: bool = True, take_over: bool = False) -> list[Result]:
        """Rotate each, as far as it goes; an error of one does not stop the others.

        With `wait` all soak at the same time. Raises Busy and JournalError, which stop all of them.
        """
        for each in targets:
            _check_managed(each.lineage)
        self._be_sure(read_state(self.journal.directory), (each.lineage for each in targets))
        found = [
            self._tried(each.lineage, self.rotation(each, wait=wait and len(targets) == 1, take_over=take_over).run)
            for each in targets
        ]
        if not wait or len(targets) == 1:
            return found
        return [
            self._tried(each.lineage, self.rotation(each).recover)
            if (done := one.outcome) is not None and done.state == "soaking"
            else one
            for each, one in zip(targets, found, strict=True)
        ]

    def recover(
        self,
        *,
        only: Iterable[str] | None = None,
        wait: bool = True,
        smoke: str | None = None,
        allow: tuple[str, ...] = (),
    ) -> list[Result]:
        """Finish or undo whatever is unfinished, each lineage on its own. Raises Busy, JournalError.

        `smoke` is as `Rotation.recover` has it; `allow` names more variables that smoke commands may see.
        """
        with self.journal:
            state = self.journal.state
            names = [name for name, each in state.lineages.items() if each.unfinished or each.watched]
            chosen = names if only is None else [name for name in names if name in set(only)]
            targets = [self._to_recover(name, state, allow) for name in chosen]
        self._be_sure(state, (each.lineage for each in targets))
        return [
            self._tried(each.lineage, partial(self.rotation(each, wait=wait).recover, smoke=smoke)) for each in targets
        ]

    def _to_recover(self, name: str, state: State, allow: tuple[str, ...]) -> Target:
        """Sinks and scope are the journal's; what else the policy says of it is needed for the smoke command."""
        declared = self.policy.lineages.get(name)
        found = Target(lineage=name, naming=self.naming(name, state), allow=allow)
        if declared is None:
            return found
        return replace(found, allow=tuple(dict.fromkeys((*declared.allow, *allow))), consumer=declared.consumer)

    def _tried(self, lineage: str, do: Callable[[], Outcome]) -> Result:
        try:
            return Result(lineage=lineage, outcome=do())
        except JournalError:
            raise
        except Busy as error:
            # Of a lock that another process has, nothing else can be done either.
            if error.key_id is None:
                raise
            return Result(lineage=lineage, error=error)
        except KeysError as error:
            return Result(lineage=lineage, error=error)

    # What is live

    def live(self, scopes: Iterable[Scope]) -> dict[int, LiveKey]:
        """The keys of the lists that these scopes are in."""
        found: dict[int, LiveKey] = {}
        for scope in {each.org_id: each for each in scopes}.values():
            found.update(self.server.list(scope))
        return found

    def scopes(self, state: State) -> list[Scope]:
        """One for every list that a key of ours may be in."""
        known = [each.scope for each in self.policy.lineages.values()]
        known += [each.scope for each in state.lineages.values() if each.scope is not None]
        known += [Scope(kind="organization", org_id=org_id) for org_id in self.policy.org_ids]
        return list({each.org_id: each for each in known}.values())

    def find(self, key_id: int, *, org_id: str | None = None, state: State) -> tuple[LiveKey, Scope]:
        """A live key by its id, and its scope. Raises NeonFailed with status 404 when no list has it."""
        for scope in self._lists_to_search(org_id, state):
            listed = self.server.list(scope)
            if key_id in listed:
                return listed[key_id], scope_of(listed[key_id], scope)
        raise NeonFailed(
            f"there is no live key {key_id} in any list that was looked at",
            status=404,
            hint="`lamp keys list` shows them; for a key of an organization give --org-id",
        )

    def _lists_to_search(self, org_id: str | None, state: State) -> list[Scope]:
        if org_id is not None:
            return [Scope(kind="organization", org_id=org_id)]
        known = self.scopes(state)
        if self.server.identity().kind == "personal":
            known = [Scope(kind="personal"), *known]
        elif not known:
            known = [Scope(kind="organization", org_id=self.server.identity().account_id)]
        return list({each.org_id: each for each in known}.values())

    @property
    def salt(self) -> bytes | None:
        """What fingerprints are made with; needs no lock. None where there is none yet."""
        return self.journal.salt or read_salt(self.journal.directory)

    def _own_mac(self) -> str | None:
        salt = self.salt
        return None if salt is None else self.server.mac(salt)

    def own(self, state: State) -> OwnKey:
        """What is known of the key that we work with."""
        mac = self._own_mac()
        known = self.minter_id if self.minter_id is not None or mac is None else state.id_of(mac)
        return OwnKey(id=known, mac=mac, scope=self.server.identity().kind)

    def know_own(self, state: State) -> int | None:
        """The id of the key that we work with: as it is known, else by its use, which takes some seconds.

        None where that does not tell. Without it a key whose value is not known could be our own, and is not revoked.
        """
        found = self.maybe_own(state)
        return next(iter(found)) if len(found) == 1 else None

    def maybe_own(self, state: State) -> frozenset[int]:
        """Ids of the keys of which one is that which we work with: mostly it alone. Empty where nothing is known."""
        if self.minter_id is None:
            mac = self._own_mac()
            known = None if mac is None else state.id_of(mac)
            found = self._own_by_use() if known is None else frozenset({known})
            if len(found) != 1:
                return found
            self.minter_id = next(iter(found))
        return frozenset({self.minter_id})

    def _own_by_use(self) -> frozenset[int]:
        """The only key of its list, or those whose last use moves whenever we list."""
        who = self.server.identity()
        scope = Scope(kind="personal")
        if who.kind != "personal":
            scope = Scope(kind="organization", org_id=who.account_id)
        listed = self.server.list(scope)
        moving = set(listed)
        for _ in range(_OWN_ROUNDS if len(listed) > 1 else 0):
            # Uses may be noted in whole seconds.
            self.clock.sleep(1.1)
            self.server.list(scope)
            after = self.server.list(scope)
            moving &= {each.id for each in after.values() if each.last_used_at != _last_use(listed, each.id)}
            listed = after
        return frozenset(moving)

    def _be_sure(self, state: State, lineages: Iterable[str]) -> None:
        """Know our own key before one is to be revoked of which only the id is known."""
        known = [state.lineage(each) for each in lineages]
        if self.minter_id is None and any(each.keys[key].mac is None for each in known for key in each.live):
            self.know_own(state)

    # Due

    def due(self, state: State, keys: Mapping[int, LiveKey], *, within: timedelta | None = None) -> list[Due]:
        """Of every lineage whether it is to be rotated now, and why."""
        now = self.clock.now()
        return [due_of(name, self.policy, state, keys, now=now, within=within) for name in self.names(state)]

    # Adopting and revoking

    def adopt(self, key: LiveKey, scope: Scope, *, lineage: str, sinks: Sequence[Sink]) -> Key:
        """Take a key into a lineage, with the sinks that hold it; readable ones are read, so that it is known again.

        Raises NotProven when they hold different values, or one that does not work, PolicyError for a key of another.
        """
        _check_managed(lineage)
        with self.journal, hardened():
            known = self.journal.state.lineage_of(key.id)
            if known is not None and known.name != lineage:
                raise PolicyError(f"key {key.id} is of {known.name} already")
            self.check_account(self.journal.state.lineage(lineage))
            mac = self._mac_in(sinks, key)
            refs = tuple(SinkRef.of(each) for each in sinks)
            self.journal.append(
                rec.Adopted(
                    at=self.clock.now(),
                    lineage=lineage,
                    key_id=key.id,
                    name=key.name,
                    scope=scope,
                    sinks=refs,
                    mac=mac,
                    account=self.server.identity().account_id,
                )
            )
            return self.journal.state.lineage(lineage).keys[key.id]

    def _mac_in(self, sinks: Sequence[Sink], key: LiveKey) -> str | None:
        found: str | None = None
        for sink in sinks:
            value = sink.read_back() if sink.capabilities.readable else None
            if value is None:
                continue
            with value:
                mac = value.mac(self.journal.salt)
                if found is None:
                    self._works(value, sink.describe(), key)
                    self._is_no_other(mac, sink.describe(), key)
            if found is not None and mac != found:
                raise NotProven(
                    "holds another value than the other stores",
                    address=sink.describe(),
                    hint=f"leave out the store that does not hold key {key.id}",
                )
            found = mac
        return found

    def _works(self, value: Any, address: str, key: LiveKey) -> None:
        why = ""
        try:
            self.server.try_key(value)
        except NotProven as error:
            why = error.message
        if why:
            raise NotProven(
                f"does not hold key {key.id}: what it holds is refused",
                address=address,
                hint="leave this store out, or rotate without --id: the new key goes there",
            )

    def _is_no_other(self, mac: str, address: str, key: LiveKey) -> None:
        """A value that works may still be another key's. Then this one would be taken for that ever after."""
        other = self.journal.state.id_of(mac)
        if other is None and self.minter_id is not None and mac == self.server.mac(self.journal.salt):
            other = self.minter_id
        if other not in (None, key.id):
            raise NotProven(
                f"holds key {other}, not key {key.id}",
                address=address,
                hint="leave out the store that does not hold it",
            )

    def check_account(self, lineage: Lineage) -> None:
        """Raises MinterUnfit where the lists that we see cannot have the live keys of a lineage."""
        check_theirs(self.server, lineage)

    def why_not_revoke(self, lineage: Lineage, key: LiveKey, naming: Naming, state: State) -> KeysError | None:
        """What forbids to revoke this key of a lineage now."""
        begun = lineage.revoking.get(key.id)
        # When it is forced nothing is asked of the others, and their lists need not be there any more.
        others = [] if begun is not None and begun.forced else lineage.keys.values()
        scopes = [lineage.keys[key.id].scope, *(each.scope for each in others)]
        now = self.clock.now()
        facts = Facts(
            now=now,
            clock=0.0,
            wanted=False,
            candidate=Candidate(rid="", name="", scope=Scope(kind="personal"), sinks=(), soak=0.0),
            naming=naming,
            listing=Listing(asked=0.0, keys=self.live(scopes)),
            own=self.own(state),
        )
        return why_not_revoke(lineage, facts, key.id)

    def revoke(self, key: LiveKey, scope: Scope, *, reason: str, forced: bool = False, mac: str | None = None) -> bool:
        """Revoke a live key, with its intent on disk before. False: it was gone already.

        One that no lineage has is told of under `unmanaged`, with its `mac` if that is known. Unless it is `forced`, no
        sink may hold it, it may not be its lineage's last, and one that the journal does not know may not have a name
        of a lineage. Raises NotProven, MinterUnfit for the key that we work with, NeonFailed.
        """
        with self.journal:
            taken, begun = self.withdrawal(key, scope, reason=reason, forced=forced, mac=mac, state=self.journal.state)
            for each in (taken, begun):
                if each is not None:
                    self.journal.append(each)
            gone = self.withdraw(scope, key.id)
            self.journal.append(self.withdrawn(begun, ours=gone))
            return gone

    def withdraw(self, scope: Scope, key_id: int) -> bool:
        """Revoke it on the server, and nothing else. False: it was gone already."""
        faults.point("keys.withdraw.before")
        gone = self.server.revoke(scope, key_id)
        faults.point("keys.withdraw.after")
        return gone

    def withdrawal(
        self, key: LiveKey, scope: Scope, *, reason: str, forced: bool, mac: str | None, state: State
    ) -> tuple[rec.Adopted | None, rec.RevokeIntent]:
        """What to write down before a key is revoked; the first where no lineage has it. Raises what forbids it."""
        taken = self._stranger(key, scope, mac, state)
        if taken is not None:
            if not forced:
                self._belongs_nowhere(key, state)
            state = apply(state, taken)
        known = state.lineage_of(key.id)
        assert known is not None
        if known.name == UNMANAGED:
            # These have nothing to do with each other: no store is known of them, and each is as good as the last.
            known, forced = replace(known, keys={key.id: known.keys[key.id]}), True
        self.check_account(known)
        self._be_sure(state, [known.name])
        begun = rec.RevokeIntent(
            at=self.clock.now(),
            lineage=known.name,
            key_id=key.id,
            name=key.name,
            reason=reason,
            rid=known.keys[key.id].rid,
            forced=forced,
        )
        # A forced one is still not that of another key, nor our own.
        asked = replace(known, revoking={**known.revoking, key.id: begun}) if forced else known
        error = self.why_not_revoke(asked, key, self.naming(known.name, state), state)
        if error is not None:
            raise error
        return taken, begun

    def withdrawn(self, begun: rec.RevokeIntent, *, ours: bool) -> rec.Revoked:
        """What to write down when it is revoked."""
        return rec.Revoked(at=self.clock.now(), lineage=begun.lineage, key_id=begun.key_id, rid=begun.rid, ours=ours)

    def _stranger(self, key: LiveKey, scope: Scope, mac: str | None, state: State) -> rec.Adopted | None:
        """Into a lineage of its own: taken into another it would be the present key there."""
        if state.lineage_of(key.id) is not None:
            return None
        return rec.Adopted(
            at=self.clock.now(),
            lineage=UNMANAGED,
            key_id=key.id,
            name=key.name,
            scope=scope,
            sinks=(),
            mac=mac,
        )

    def _belongs_nowhere(self, key: LiveKey, state: State) -> None:
        """A key that another machine made for a lineage of ours may be in its stores."""
        name = next((each for each in self.names(state) if self.naming(each, state).rid_of(key.name)), None)
        if name is not None:
            raise NotProven(
                f"key {key.id} has a name of {name}, and the journal does not know it: a store may hold it",
                hint=f"`lamp keys adopt {key.id}` takes it in, so that a rotation replaces it; --force revokes it now",
            )


# Pure pieces


def _check_managed(lineage: str) -> None:
    if lineage == UNMANAGED:
        raise PolicyError(f"{UNMANAGED} is where the journal tells of keys without a lineage", hint="take another name")


def _last_use(keys: Mapping[int, LiveKey], key_id: int) -> str | None:
    return keys[key_id].last_used_at if key_id in keys else None


def scope_of(key: LiveKey, listed_in: Scope) -> Scope:
    """The scope of a key that was found in the list of this scope. Pure."""
    if listed_in.org_id is None:
        return Scope(kind="personal")
    kind: Any = "project" if key.project_id else "organization"
    return Scope(kind=kind, org_id=listed_in.org_id, project_id=key.project_id or None)


def naming_of(name: str, policy: Policy, state: State) -> Naming:
    """Of the policy, else as the last key of the lineage was named."""
    if name in policy.lineages:
        return policy.naming_of(name)
    known = state.lineages.get(name)
    last = _last_name(known) if known is not None else None
    default = Naming(name, prefix=policy.neon.prefix)
    if last is None or default.rid_of(last) is not None:
        return default
    try:
        return Naming(name, prefix=policy.neon.prefix, pattern=pattern_of(last))
    except PolicyError:
        # A name that somebody else gave, and that cannot be a pattern.
        return default


def _last_name(lineage: Lineage) -> str | None:
    if lineage.attempts:
        return list(lineage.attempts.values())[-1].intent.name
    return list(lineage.keys.values())[-1].name if lineage.keys else None


def target_of(name: str, policy: Policy, state: State) -> Target:
    """What the policy says of a lineage, else what the journal knows. Raises PolicyError where neither does."""
    declared, known = policy.lineages.get(name), state.lineages.get(name)
    naming = naming_of(name, policy, state)
    if declared is not None:
        return Target(
            lineage=name,
            naming=naming,
            scope=declared.scope,
            sinks=tuple(sink_of(each) for each in policy.sinks_of(name)),
            soak=declared.soak,
            smoke=declared.smoke,
            consumer=declared.consumer,
            allow=declared.allow,
            owner=declared.owner,
            declared=True,
        )
    if known is None or known.scope is None:
        there = [*policy.lineages, *(each for each in state.lineages if each not in (*policy.lineages, UNMANAGED))]
        hint = f"there are {', '.join(there)}" if there else "`lamp keys mint` begins one"
        raise PolicyError(f"there is no lineage {name!r}, neither in the policy nor in the journal", hint=hint)
    last = list(known.attempts.values())[-1].intent if known.attempts else None
    held = [ref for address, ref in known.refs.items() if known.may_hold.get(address, frozenset()) & known.live]
    refs = {each.address: each for each in (*(last.sinks if last else ()), *held) if each.address in known.refs}
    return Target(
        lineage=name,
        naming=naming,
        scope=known.scope,
        sinks=tuple(sink_of(each) for each in refs.values()),
        smoke=None if last is None else last.smoke,
    )


def sinks_named(texts: Iterable[str], policy: Policy) -> tuple[Sink, ...]:
    """Sinks by their names in the policy or by their addresses. Raises PolicyError."""
    return tuple(sink_of(policy.sinks[text].ref) if text in policy.sinks else parse_sink(text) for text in texts)


def due_of(
    name: str,
    policy: Policy,
    state: State,
    keys: Mapping[int, LiveKey],
    *,
    now: datetime,
    within: timedelta | None = None,
) -> Due:
    """Whether a lineage is due: without a key, or so close to its greatest age that the policy calls it soon. Pure."""
    known = state.lineage(name)
    present = present_key(known, policy, state, keys)
    if needs_recover(known, now):
        return Due(lineage=name, now=True, reason="a rotation is unfinished", key_id=present.id if present else None)
    if present is None:
        return Due(lineage=name, now=True, reason="it has no live key")
    limits = policy.limits_of(name)
    created = present.created_at or now
    at = created + limits.max_age - (limits.due_soon if within is None else within)
    if known.open is not None:
        return Due(lineage=name, now=False, reason="its old key soaks", at=at, key_id=present.id)
    reason = f"key {present.id} is {(now - created).days} days old"
    return Due(lineage=name, now=now >= at, reason=reason, at=at.astimezone(UTC), key_id=present.id)


def present_key(known: Lineage, policy: Policy, state: State, keys: Mapping[int, LiveKey]) -> LiveKey | None:
    """The live key that its consumers have: as the journal says, else the youngest with a name of the lineage. Pure."""
    opened = known.open
    for key_id in (opened.key_id if opened is not None and opened.verified is not None else None, known.current):
        if key_id is not None and key_id in keys:
            return keys[key_id]
    naming = naming_of(known.name, policy, state)
    found = [each for each in keys.values() if each.id in known.live or naming.rid_of(each.name) is not None]
    return max(found, key=lambda each: each.id) if found else None
