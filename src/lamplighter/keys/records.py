"""What a journal says, one dataclass for each kind of line, and these as JSON. Pure.

Nothing here ever holds a value, or a part of one: a key is known by id, name and HMAC.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Final, Literal

from lamplighter.keys.sinks.base import Receipt, Sink

VERSION: Final = 1

ScopeKind = Literal["personal", "organization", "project"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a key reaches: all that its user does, an organization, or one project of it."""

    kind: ScopeKind
    org_id: str | None = None
    project_id: str | None = None

    def __post_init__(self) -> None:
        needs = {"personal": (False, False), "organization": (True, False), "project": (True, True)}[self.kind]
        if (self.org_id is not None, self.project_id is not None) != needs:
            raise ValueError("a personal scope has no ids, an organization's has org_id, a project's both")

    def __str__(self) -> str:
        return {
            "personal": "personal",
            "organization": f"organization {self.org_id}",
            "project": f"project {self.project_id}",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class SinkRef:
    """What makes a sink again in another process."""

    address: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, sink: Sink) -> SinkRef:
        return cls(sink.describe(), tuple(sorted(sink.options.items())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line. The order is that of the lines: `at` is for people, and may step back."""

    kind: ClassVar[str]
    at: datetime
    lineage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted(Record):
    """A key that somebody else made, and the sinks that hold it. `mac` is known where one of them can be read.

    `account` is whose it is, where that is a user.
    """

    kind: ClassVar[str] = "adopt"
    key_id: int
    name: str
    scope: Scope
    sinks: tuple[SinkRef, ...]
    mac: str | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MintIntent(Record):
    """A key of this name is about to be asked for. `sinks` are in the order in which they will get it.

    `soak` is in seconds. `timeout` is how long the request may take: only after that does a missing name mean no key.
    `account` is the user who asks.
    """

    kind: ClassVar[str] = "mint_intent"
    rid: str
    name: str
    scope: Scope
    sinks: tuple[SinkRef, ...]
    soak: float
    timeout: float
    minter: str = ""
    smoke: str | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted(Record):
    kind: ClassVar[str] = "minted"
    rid: str
    key_id: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Record):
    """A live key has the name of this intent, but its value was never seen: it will be revoked."""

    kind: ClassVar[str] = "found"
    rid: str
    key_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(Record):
    """The new key works, belongs to this account and reaches what was asked, and no more. No sink has it yet."""

    kind: ClassVar[str] = "checked"
    rid: str
    key_id: int
    account_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIntent(Record):
    """From here on the sink may hold the key. `before` is what the store said of the secret until now."""

    kind: ClassVar[str] = "store_intent"
    rid: str
    key_id: int
    sink: str
    before: Receipt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Record):
    kind: ClassVar[str] = "stored"
    rid: str
    key_id: int
    sink: str
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed(Record):
    """A sink that took the key does not give it back. `key_id` is the key of the lineage that it holds instead."""

    kind: ClassVar[str] = "observed"
    rid: str
    sink: str
    key_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified(Record):
    """`levels` says for each sink how far it was proven: accepted, metadata, value. `smoke` is what ended with 0."""

    kind: ClassVar[str] = "verified"
    rid: str
    key_id: int
    levels: Mapping[str, str]
    consumer: str | None = None
    smoke: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaking(Record):
    """The old keys stay until then. `seen` is when each was last used, as Neon says; None is never."""

    kind: ClassVar[str] = "soaking"
    rid: str
    until: datetime
    seen: Mapping[int, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack(Record):
    """`key_id` was used during the soak, from these addresses; a new soak begins."""

    kind: ClassVar[str] = "held"
    rid: str
    key_id: int
    addresses: tuple[str, ...]
    until: datetime
    seen: Mapping[int, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeIntent(Record):
    """`forced`: somebody decided it although sinks may hold the key, as in an emergency."""

    kind: ClassVar[str] = "revoke_intent"
    key_id: int
    name: str
    reason: str = ""
    rid: str | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked(Record):
    """The key is no more. `ours` is False when it was gone without our doing."""

    kind: ClassVar[str] = "revoked"
    key_id: int
    rid: str | None = None
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted(Record):
    """Undone: no sink was told. The name stays on the watch list, where no key of it was ever seen."""

    kind: ClassVar[str] = "aborted"
    rid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded(Record):
    """Given up half-way: sinks may hold its key, so another is minted and put over it before it is revoked."""

    kind: ClassVar[str] = "superseded"
    rid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Record):
    kind: ClassVar[str] = "done"
    rid: str
    key_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten(Record):
    """Somebody says that this sink holds none of our keys any more."""

    kind: ClassVar[str] = "forgotten"
    sink: str


_KINDS: Final[Mapping[str, type[Record]]] = {
    each.kind: each
    for each in (
        Adopted,
        MintIntent,
        Minted,
        Found,
        Checked,
        StoreIntent,
        Stored,
        Observed,
        Verified,
        Soaking,
        HeldBack,
        RevokeIntent,
        Revoked,
        Aborted,
        Superseded,
        Done,
        Forgotten,
    )
}


@dataclass(frozen=True, slots=True)
class _Form:
    """How a field is written and read, where JSON has no such type. None stays null."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any] = field(default=lambda value: value)


def _write_scope(scope: Scope) -> dict[str, str]:
    known = {"kind": scope.kind, "org_id": scope.org_id, "project_id": scope.project_id}
    return {name: value for name, value in known.items() if value is not None}


def _write_sinks(sinks: tuple[SinkRef, ...]) -> list[dict[str, Any]]:
    return [{"address": each.address, **({"options": dict(each.options)} if each.options else {})} for each in sinks]


def _read_sinks(sinks: list[dict[str, Any]]) -> tuple[SinkRef, ...]:
    return tuple(SinkRef(each["address"], tuple(sorted(each.get("options", {}).items()))) for each in sinks)


_TIME: Final = _Form(datetime.isoformat, datetime.fromisoformat)
_RECEIPT: Final = _Form(Receipt.as_json, Receipt.from_json)
_FORMS: Final[Mapping[str, _Form]] = {
    "at": _TIME,
    "until": _TIME,
    "key_id": _Form(int, int),
    "scope": _Form(_write_scope, lambda known: Scope(**known)),
    "sinks": _Form(_write_sinks, _read_sinks),
    "receipt": _RECEIPT,
    "before": _RECEIPT,
    "levels": _Form(dict),
    "seen": _Form(
        lambda seen: {str(key): at for key, at in seen.items()},
        lambda seen: {int(key): at for key, at in seen.items()},
    ),
    "addresses": _Form(list, tuple),
}


def write_record(record: Record) -> bytes:
    """One line of JSON, with its newline."""
    known: dict[str, Any] = {"v": VERSION, "kind": record.kind}
    for each in fields(record):
        value = getattr(record, each.name)
        if value is None:
            continue
        form = _FORMS.get(each.name)
        known[each.name] = form.write(value) if form else value
    return json.dumps(known, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def read_record(line: bytes) -> Record:
    """The reverse. What a newer version may have added to a record is passed over; raises ValueError for what it means.

    Not to be shown: the text of the ValueError holds no part of the line.
    """
    known = _object(line)
    kind = str(known.get("kind"))
    if known.get("v") != VERSION or kind not in _KINDS:
        raise ValueError("made by a newer version, or by something else")
    try:
        values = {each.name: _read_field(each.name, known[each.name]) for each in _wanted(_KINDS[kind], known)}
        return _KINDS[kind](**values)
    except (TypeError, ValueError, KeyError, AttributeError):
        pass
    raise ValueError(f"a {kind} record that lacks something")


def _object(line: bytes) -> dict[str, Any]:
    try:
        known = json.loads(line)
    except ValueError:
        known = None
    if not isinstance(known, dict):
        # Out of the except block: a JSONDecodeError would carry the line along.
        raise ValueError("no JSON object")  # noqa: TRY004 - it is what the line holds, not its type in Python
    return known


def _wanted(kind: type[Record], known: Mapping[str, Any]) -> list[Any]:
    return [each for each in fields(kind) if each.name in known]


def _read_field(name: str, value: Any) -> Any:
    form = _FORMS.get(name)
    return form.read(value) if form and value is not None else value
