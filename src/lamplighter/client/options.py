"""How a client talks: timeouts, the overall deadline, how often it tries. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from lamplighter.client.retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds for one attempt: to connect, and for the server to send (or take) the next bytes. None: no limit."""

    connect: float | None = 10.0
    read: float | None = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `with_options` changes. `deadline` is in seconds, for a call with its retries and waits for its turn."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    deadline: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)


def timeouts_of(given: Timeouts | float | None) -> Timeouts:
    """`timeout=` as users give it: a number is for connecting and for reading alike; None keeps what is usual."""
    if isinstance(given, Timeouts):
        return given
    return Timeouts() if given is None else Timeouts(connect=float(given), read=float(given))
