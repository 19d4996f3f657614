"""When a request is sent again, and how long to wait before. Pure: chance and time come in as arguments."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from lamplighter.client.errors import RETRYABLE

_SECONDS: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)
#: Some thirty years: what is longer may be no number that a clock can be added to.
_LONGEST_SAID: Final = 1e9

#: Answers of a proxy that could not get one from the server: whether the request took effect is not known.
_OF_PROXIES: Final = frozenset({502, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently.

    `retries` is how often a request is sent again, `connects` how often of these where there was no connection: a
    server that is not there is rarely there half a minute later. Without a word of the server the wait is `first`
    seconds, doubled each time up to `most`, less a random part of up to a half. A `Retry-After` above `longest` is not
    waited for.
    """

    retries: int = 6
    connects: int = 3
    first: float = 0.5
    most: float = 20.0
    longest: float = 120.0

    def delay(
        self, attempt: int, *, chance: float, after: float | None = None, connecting: bool = False
    ) -> float | None:
        """Seconds to wait after the attempt (1 is the first); None when there shall be no other.

        `chance` is in [0, 1). `after` is what the server asked for.
        """
        if attempt > (min(self.retries, self.connects) if connecting else self.retries):
            return None
        if after is not None and after > self.longest:
            return None
        backoff = min(self.most, self.first * 2.0 ** min(attempt - 1, 30))
        if after:
            # Never before the server's time; a little after it, so that many clients do not come back as one.
            return after + chance * min(self.first, backoff)
        return backoff * (1 - chance / 2)


def may_repeat(*, safe: bool, status: int | None = None, sent: bool = True) -> bool:
    """Whether a request that ended so may be sent again: only where it surely did nothing, or cannot do harm twice.

    `status` is None when no answer came; `sent` then tells whether the request may have reached the server.
    """
    if status is None:
        return safe or not sent
    return status in RETRYABLE or (safe and status in _OF_PROXIES)


def retry_after(value: str | None, *, date: str | None, wall: Callable[[], float]) -> float | None:
    """Seconds that a `Retry-After` asks for, in either of its forms; None where there is none that can be read.

    `date` is the answer's own `Date`: a time is counted from that, so that it does not matter whether our clock and the
    server's agree. `wall` gives seconds since 1970, for an answer without a date.
    """
    if not value:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_SAID)
    until = _moment(text)
    if until is None:
        return None
    since = _moment(date) if date else None
    return max(0.0, until - (wall() if since is None else since))


def _moment(text: str) -> float | None:
    try:
        when: datetime = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
