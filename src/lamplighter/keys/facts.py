"""What an audit goes by: keys, members, projects, the journal and the stores, as dataclasses. Pure.

`inventory.collect` finds them out, `audit` judges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from lamplighter.keys.fold import State
from lamplighter.keys.records import Record, ScopeKind
from lamplighter.keys.sinks.base import Receipt

Source = Literal["account", "personal keys", "organization keys", "members", "projects", "journal", "minter", "sink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that should have been looked at, and why it could not. `what` says which, where there are several."""

    source: Source
    reason: str
    what: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFact:
    """A live key as Neon lists it. `created_by` is the id of a user."""

    id: int
    name: str
    kind: ScopeKind
    created_at: datetime
    created_by: str = ""
    creator: str = ""
    org_id: str | None = None
    project_id: str | None = None
    last_used_at: datetime | None = None
    last_used_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkFact:
    """A store that answered. `receipt` None: it has no such secret.

    `holds` is the HMAC of what it holds, where it could be read. `was_read` says that it was tried.
    """

    name: str
    address: str
    receipt: Receipt | None = None
    holds: str | None = None
    was_read: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything that an audit goes by. None where nobody asked, or a gap says why not.

    `members` and `projects` are ids by organization. `sinks` are by their names in the policy, or by address. `uses`
    are times at which the minter was used by the manager, besides those in the journal.
    `maybe_minter` are keys of which one is the minter, where it is not known which.
    """

    at: datetime
    server: str = ""
    account_id: str | None = None
    keys: tuple[KeyFact, ...] = ()
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    projects: Mapping[str, frozenset[str]] = field(default_factory=dict)
    records: tuple[Record, ...] | None = None
    state: State | None = None
    sinks: Mapping[str, SinkFact] = field(default_factory=dict)
    minter_id: int | None = None
    maybe_minter: frozenset[int] = frozenset()
    uses: tuple[datetime, ...] = ()
    read_values: bool = True
    gaps: tuple[Gap, ...] = ()
