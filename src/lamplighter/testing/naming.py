"""Names and marks of the branches that the pytest plugin makes, and which of them a later run may delete. Pure.

A branch is known as the plugin's own by two things together: a name of this form, and an annotation that holds the
random part of the name. A user can give neither by accident.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

PREFIX: Final = "lamp-test-"
MARK: Final = "lamplighter-testing"
TOKEN_LENGTH: Final = 12

LONGEST_TTL: Final = timedelta(hours=24)
DEFAULT_TTL: Final = timedelta(hours=1)

_LABEL_LENGTH: Final = 60
_NAME: Final = re.compile(PREFIX + r"[a-z0-9]+-([a-z0-9]{12})(-[a-z0-9-]*)?")
_TTL: Final = re.compile(r"([0-9]{1,9})\s*([smh]?)")
_BRANCH_ID: Final = re.compile(r"br-[a-z0-9]+-[a-z0-9]+-[a-z0-9]+")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


def branch_name(*, worker: str, token: str, label: str) -> str:
    """Like `lamp-test-gw0-k3v9x0ab12cd-test-insert`: who made it, what makes it the only one, and what for.

    `token` is `TOKEN_LENGTH` random letters and digits; `label` is any text.
    """
    return "-".join(part for part in (PREFIX + (_plain(worker, "") or "main"), token, _label(label)) if part)


def mark(token: str) -> dict[str, str]:
    """The annotation that goes with the name."""
    return {MARK: token}


def token_of(name: str) -> str | None:
    """The random part of a name that `branch_name` made; None for any other name."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a list of branches says of one of them. `annotation` is empty for a branch without one."""

    name: str
    annotation: Mapping[str, str]
    default: bool
    protected: bool
    expires_at: datetime | None


def may_sweep(branch: Seen, *, now: datetime) -> bool:
    """Whether a run that is no more made this branch for itself, and its time is over.

    A branch whose time was taken away was kept by somebody on purpose, as was one that is protected now.
    """
    token = token_of(branch.name)
    ours = token is not None and branch.annotation.get(MARK) == token
    over = branch.expires_at is not None and branch.expires_at <= now
    return ours and over and not branch.default and not branch.protected


def parse_ttl(text: str) -> timedelta:
    """`90s`, `30m`, `2h`, or seconds. Raises ValueError for none and for more than `LONGEST_TTL`."""
    found = _TTL.fullmatch(text.strip().lower())
    ttl = timedelta(seconds=int(found[1]) * _UNITS[found[2]]) if found else timedelta()
    if not timedelta() < ttl <= LONGEST_TTL:
        raise ValueError(f"{text!r} is no time that a branch can live: write 30m, 2h or seconds, up to 24h")
    return ttl


def is_branch_id(text: str) -> bool:
    """Whether a branch is meant by its id, as Neon's own command tells it: any other text is a name."""
    return _BRANCH_ID.fullmatch(text) is not None


def _label(text: str) -> str:
    return _plain(text, "-").strip("-")[:_LABEL_LENGTH].strip("-")


def _plain(text: str, gap: str) -> str:
    return re.sub(r"[^a-z0-9]+", gap, text.lower())
