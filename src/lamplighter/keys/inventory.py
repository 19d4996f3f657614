"""Finds out what there is: keys, members, projects, the journal and the stores.

Whatever could not be looked at becomes a `Gap`: half an inventory must not pass for a whole one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lamplighter.files import write_atomic
from lamplighter.keys.errors import KeysError, PolicyError
from lamplighter.keys.facts import Gap, Inventory, KeyFact, SinkFact, Source
from lamplighter.keys.fold import State, fold
from lamplighter.keys.harden import hardened
from lamplighter.keys.journal import read_journal
from lamplighter.keys.policy import Policy
from lamplighter.keys.records import Minted, Record, ScopeKind, SinkRef
from lamplighter.keys.sinks.base import Sink
from lamplighter.keys.sinks.registry import sink_of
from lamplighter.keys.wire import redact

if TYPE_CHECKING:
    from lamplighter.client._sync.client import Neon

__all__ = [
    "Gap",
    "Inventory",
    "KeyFact",
    "SinkFact",
    "collect",
    "note_use",
    "parse_sinks",
    "read_uses",
]

#: The longest pages that Neon gives.
_PROJECTS_PAGE: Final = 400
_MEMBERS_PAGE: Final = 500
_USES: Final = "uses"
_MOST_USES: Final = 1000


def parse_sinks(policy: Policy) -> dict[str, Sink]:
    """Every sink of a policy, by its name there. Touches nothing. Raises PolicyError, with the line."""
    found: dict[str, Sink] = {}
    seen: dict[str, str] = {}
    for name, each in policy.sinks.items():
        where = f"line {policy.line('sink', name)}, sink.{name}" if ("sink", name) in policy.lines else name
        try:
            sink = sink_of(each.ref)
        except PolicyError as error:
            raise PolicyError(f"{where}: {error.message}", hint=error.hint) from None
        first = seen.setdefault(sink.describe(), name)
        if first != name:
            raise PolicyError(f"{where}: this is the same place as {first}")
        found[name] = sink
    return found


def collect(
    neon: Neon,
    policy: Policy,
    *,
    journal: Path | None,
    sinks: Mapping[str, Sink],
    read_values: bool = True,
    own: frozenset[int] = frozenset(),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Inventory:
    """Look at everything; what fails is in `gaps`. Waits for no lock, and changes nothing but `note_use`'s file.

    `journal` is the state directory (None: there is none). `sinks` are those of `parse_sinks`; those that only the
    journal knows are looked at as well. With `read_values` readable stores are read: values live in wiped buffers, and
    only their HMACs come out. `own` are ids of keys of which one is that which `neon` asks with: the minter, unless the
    policy names another.
    """
    look = _Look(neon, policy, minter_id=_minter_id(policy, own))
    at = clock()
    look.account()
    look.keys()
    look.journal(journal)
    if journal is not None:
        note_use(journal, at)
    look.sinks(sinks, look.salt(journal) if read_values and journal is not None else None)
    look.minter()
    return Inventory(
        at=at,
        server=neon.server.base_url,
        account_id=look.account_id,
        keys=tuple(sorted(look.found, key=lambda key: key.id)),
        members=look.members,
        projects=look.projects,
        records=look.records,
        state=look.state,
        sinks=look.facts,
        minter_id=look.minter_id,
        maybe_minter=own,
        uses=() if journal is None else read_uses(journal),
        read_values=read_values,
        gaps=tuple(look.gaps),
    )


def _minter_id(policy: Policy, own: frozenset[int]) -> int | None:
    said = policy.neon.minter_id
    return next(iter(own)) if said is None and len(own) == 1 else said


class _Look:
    def __init__(self, neon: Neon, policy: Policy, *, minter_id: int | None) -> None:
        self._neon = neon
        self._policy = policy
        self.minter_id = minter_id
        self.gaps: list[Gap] = []
        self.found: list[KeyFact] = []
        self.account_id: str | None = None
        self.members: dict[str, frozenset[str]] = {}
        self.projects: dict[str, frozenset[str]] = {}
        self.records: tuple[Record, ...] | None = None
        self.state: State | None = None
        self.facts: dict[str, SinkFact] = {}

    @contextmanager
    def _asking(self, source: Source, what: str = "") -> Iterator[None]:
        from lamplighter.client.errors import NeonError  # noqa: PLC0415 - with the SDK

        try:
            yield
        except (NeonError, KeysError) as error:
            self.gaps.append(Gap(source=source, what=what, reason=redact(str(error))))

    def account(self) -> None:
        with self._asking("account"):
            self.account_id = self._neon.users.auth_details().account_id

    def keys(self) -> None:
        if self._policy.neon.personal:
            with self._asking("personal keys"):
                self.found += [_key(each, "personal") for each in self._neon.api_keys.list()]
        for org_id in self._policy.org_ids:
            self._organization(org_id)

    def _organization(self, org_id: str) -> None:
        neon = self._neon.organizations
        with self._asking("organization keys", org_id):
            listed: list[Any] = neon.api_keys(org_id).all()
            self.found += [_key(each, "project" if each.project_id else "organization", org_id) for each in listed]
        with self._asking("members", org_id):
            members = neon.members(org_id, limit=_MEMBERS_PAGE).all()
            self.members[org_id] = frozenset(
                str(each.member.user_id) for each in members if not each.user.deactivated_at
            )
        with self._asking("projects", org_id):
            self.projects[org_id] = frozenset(self._projects(org_id))

    def _projects(self, org_id: str) -> Iterator[str]:
        for page in self._neon.projects.list(org_id=org_id, limit=_PROJECTS_PAGE).pages():
            yield from (each.id for each in page.items)
            # They are there: it was only not in time to read them.
            yield from getattr(page.reply, "unavailable_project_ids", None) or ()

    def journal(self, directory: Path | None) -> None:
        if directory is None:
            return
        with self._asking("journal"):
            records = read_journal(directory)
            try:
                self.state = fold(records)
            except ValueError as error:
                self.gaps.append(Gap(source="journal", reason=f"it cannot be followed: {error}"))
                return
            self.records = records

    def salt(self, directory: Path) -> bytes | None:
        """None where there is none yet: then no key of ours was ever stored."""
        with suppress(OSError):
            return (directory / "salt").read_bytes()
        if any(isinstance(each, Minted) for each in self.records or ()):
            self.gaps.append(Gap(source="journal", reason="its salt cannot be read: no stored key can be told"))
        return None

    def minter(self) -> None:
        """A minter that is in no list was not looked at, whatever the lists say."""
        if self.minter_id is None or any(key.id == self.minter_id for key in self.found):
            return
        if not any(gap.source in ("personal keys", "organization keys") for gap in self.gaps):
            self.gaps.append(Gap(source="minter", reason=f"key {self.minter_id} is in no list that was looked at"))

    # Stores

    def sinks(self, sinks: Mapping[str, Sink], salt: bytes | None) -> None:
        known = {sink.describe() for sink in sinks.values()}
        for name, sink in sinks.items():
            self._sink(name, sink, salt)
        for ref in self._refs():
            if ref.address not in known:
                self._foreign(ref, salt)

    def _refs(self) -> list[SinkRef]:
        """The sinks that may hold a live key, as the journal knows."""
        lineages = self.state.lineages.values() if self.state else ()
        found = {
            address: lineage.refs[address]
            for lineage in lineages
            for address, ids in lineage.may_hold.items()
            if ids & lineage.live and address in lineage.refs
        }
        return [found[address] for address in sorted(found)]

    def _foreign(self, ref: SinkRef, salt: bytes | None) -> None:
        sink: Sink | None = None
        with self._asking("sink", ref.address):
            sink = sink_of(ref)
        if sink is None:
            return
        try:
            self._sink(ref.address, sink, salt)
        finally:
            sink.close()

    def _sink(self, name: str, sink: Sink, salt: bytes | None) -> None:
        try:
            receipt = sink.metadata()
        except Exception as error:  # noqa: BLE001 - stores of others raise what they like, and the rest is to go on
            self.gaps.append(Gap(source="sink", what=name, reason=_why(error)))
            return
        holds, tried = None, False
        if receipt is not None and salt is not None and sink.capabilities.readable:
            tried = True
            try:
                holds = _mac(sink, salt)
            except Exception as error:  # noqa: BLE001 - as above
                self.gaps.append(Gap(source="sink", what=name, reason=f"cannot be read: {_why(error)}"))
                tried = False
        self.facts[name] = SinkFact(name=name, address=sink.describe(), receipt=receipt, holds=holds, was_read=tried)


def _why(error: Exception) -> str:
    """Only of our own errors it is known that they hold nothing secret."""
    return redact(str(error)) if isinstance(error, KeysError) else f"it failed with {type(error).__name__}"


def _mac(sink: Sink, salt: bytes) -> str | None:
    with hardened():
        value = sink.read_back()
        if value is None:
            return None
        with value:
            return value.mac(salt)


def _key(listed: Any, kind: ScopeKind, org_id: str | None = None) -> KeyFact:
    return KeyFact(
        id=listed.id,
        name=listed.name,
        kind=kind,
        created_at=_utc(listed.created_at),
        created_by=str(listed.created_by.id),
        creator=listed.created_by.name,
        org_id=org_id,
        project_id=getattr(listed, "project_id", None),
        last_used_at=None if listed.last_used_at is None else _utc(listed.last_used_at),
        last_used_from=tuple(part.strip() for part in listed.last_used_from_addr.split(",") if part.strip()),
    )


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.utcoffset() is None else at.astimezone(UTC)


# What the manager itself did


def note_use(directory: Path, at: datetime) -> None:
    """Write down that the minter is used now, so that rule K013 can tell it from use by others.

    For whatever uses it outside of a rotation: `list`, `audit`, `status`. Best effort: without it K013 asks a question
    too many. Does nothing where there is no state directory.
    """
    with suppress(OSError, ValueError):
        if not directory.is_dir():
            return
        kept = [*read_uses(directory), at.astimezone(UTC)][-_MOST_USES:]
        write_atomic(directory / _USES, "".join(f"{each.isoformat(timespec='seconds')}\n" for each in kept).encode())


def read_uses(directory: Path) -> tuple[datetime, ...]:
    """What `note_use` wrote; lines that are no times are passed over."""
    try:
        handle = os.open(directory / _USES, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            lines = file.read(1 << 20).decode("ascii", "replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        with suppress(ValueError):
            at = datetime.fromisoformat(line)
            if at.utcoffset() is not None:
                found.append(at)
    return tuple(found)
