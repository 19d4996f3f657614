"""Names of keys. Neon has no other handle for finding a key whose answer was lost, so each name ends in a random id.

The name is `<prefix>.<lineage>.<rid>`, or what the user's pattern makes, such as `ci-{year}-Q{quarter}`; where the
pattern has no `{rid}`, `.{rid}` is put at its end. Pure: dates and random bytes come in as arguments.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

from lamplighter.keys.errors import PolicyError

#: Neon's limit.
MAX_NAME: Final = 64
RID_LENGTH: Final = 10
#: Random bytes that `rid` needs: 50 bits are used.
RID_BYTES: Final = 7
DEFAULT_PREFIX: Final = "lamp"
DEFAULT_PATTERN: Final = "{prefix}.{lineage}.{rid}"

_LINEAGE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_PREFIX: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,18}[A-Za-z0-9])?")
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
#: What each place may hold, and an example of the greatest length.
_PLACES: Final = {
    "year": r"[0-9]{4}",
    "quarter": r"[1-4]",
    "month": r"(?:0[1-9]|1[0-2])",
    "day": r"(?:0[1-9]|[12][0-9]|3[01])",
    "rid": r"(?P<rid>[a-z2-7]{10})",
}


def make_rid(random: bytes) -> str:
    """Ten base32 characters. `random` are RID_BYTES or more."""
    return base64.b32encode(random).decode().lower()[:RID_LENGTH]


def check_lineage(name: str) -> str:
    """The name, if a lineage may have it. Raises PolicyError."""
    if not _LINEAGE.fullmatch(name):
        raise PolicyError(
            f"{name!r} is no name for a lineage: use up to 40 lower-case letters, digits and dashes", hint="such as ci"
        )
    return name


@dataclass(frozen=True)
class Naming:
    """How the keys of one lineage are named, and told from others. Raises PolicyError for what cannot be meant."""

    lineage: str
    prefix: str = DEFAULT_PREFIX
    pattern: str = DEFAULT_PATTERN

    def __post_init__(self) -> None:
        check_lineage(self.lineage)
        if not _PREFIX.fullmatch(self.prefix):
            raise PolicyError(f"{self.prefix!r} is no prefix: use up to 20 letters, digits, dashes and underscores")
        for place in _PLACE.findall(self.pattern):
            if place not in _PLACES and place not in ("prefix", "lineage"):
                raise PolicyError(
                    f"{{{place}}} in {self.pattern!r} means nothing: there are {{prefix}}, {{lineage}}, "
                    + ", ".join(f"{{{known}}}" for known in _PLACES)
                )
        literal = _PLACE.sub("", self.pattern)
        if re.search(r"[{}]", literal) or not literal.isprintable():
            raise PolicyError(f"{self.pattern!r} is no pattern: braces come in pairs, and every character must print")
        if self.pattern.count("{rid}") > 1:
            raise PolicyError(f"{self.pattern!r} holds {{rid}} twice")
        # Every place is as long for one date as for another.
        longest = len(self.name(rid="a" * RID_LENGTH, at=datetime(2000, 1, 1)))  # noqa: DTZ001 - a length, not a time
        if longest > MAX_NAME:
            raise PolicyError(f"names after {self.pattern!r} have {longest} characters; Neon takes {MAX_NAME}")

    @cached_property
    def _whole(self) -> str:
        pattern = self.pattern if "{rid}" in self.pattern else self.pattern + ".{rid}"
        return pattern.replace("{prefix}", self.prefix).replace("{lineage}", self.lineage)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        parts = _PLACE.split(self._whole)
        # split() puts what the group matched at the odd places.
        return re.compile("".join(_PLACES[part] if at % 2 else re.escape(part) for at, part in enumerate(parts)))

    def name(self, *, rid: str, at: datetime) -> str:
        """The name of the key that rotation `rid` mints at this time."""
        values = {
            "year": f"{at.year:04}",
            "quarter": f"{(at.month + 2) // 3}",
            "month": f"{at.month:02}",
            "day": f"{at.day:02}",
            "rid": rid,
        }
        return _PLACE.sub(lambda place: values[place[1]], self._whole)

    def rid_of(self, name: str) -> str | None:
        """The rotation id in a name of this lineage; None for any other name."""
        found = self._expression.fullmatch(name)
        return found["rid"] if found else None
