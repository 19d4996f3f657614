"""Neon's request limits as token buckets.

700 a minute for an account, 40 a second for a route of it, 10 a second for making organization keys (contract section
3.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lamplighter.api.errors import TooManyRequests

IDLE_AFTER = 120.0
ORGANIZATION_KEYS = "createOrgApiKey"


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests at once, refilled at `per_second`."""

    per_second: float
    burst: float


ACCOUNT = Rate(700 / 60, 700)
ROUTE = Rate(40, 40)
ORGANIZATION_KEY = Rate(10, 10)


@dataclass(slots=True)
class Bucket:
    """Tokens at a moment (seconds of any monotonic clock)."""

    rate: Rate
    tokens: float
    at: float

    def wait(self, now: float) -> float:
        """Seconds until a token is there; 0.0 when there is one."""
        self.tokens = min(self.rate.burst, self.tokens + (now - self.at) * self.rate.per_second)
        self.at = now
        return 0.0 if self.tokens >= 1 else (1 - self.tokens) / self.rate.per_second


@dataclass(slots=True)
class Limiter:
    """Counts the requests of every account. A refused request costs nothing."""

    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    _swept: float = 0.0

    def take(self, account: str, operation_id: str, *, now: float) -> None:
        """Count one request. Raises TooManyRequests with the whole seconds to wait."""
        self._sweep(now)
        route = ORGANIZATION_KEY if operation_id == ORGANIZATION_KEYS else ROUTE
        buckets = [self._bucket(account, "", ACCOUNT, now), self._bucket(account, operation_id, route, now)]
        wait = max(bucket.wait(now) for bucket in buckets)
        if wait > 0:
            raise TooManyRequests("rate limit exceeded: too many requests", retry_after=math.ceil(wait))
        for bucket in buckets:
            bucket.tokens -= 1

    def _bucket(self, account: str, route: str, rate: Rate, now: float) -> Bucket:
        return self._buckets.setdefault((account, route), Bucket(rate, rate.burst, now))

    def _sweep(self, now: float) -> None:
        """Forget who has not asked for a while: their buckets are full again."""
        if now - self._swept < IDLE_AFTER:
            return
        self._swept = now
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if now - bucket.at < IDLE_AFTER}
