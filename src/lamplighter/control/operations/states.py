"""How an operation goes from one status to the next, and when it is tried again. Pure: time comes in as an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from lamplighter.control.errors import InvalidTransition


class Status(StrEnum):
    """Neon's eight. `cancelling` is part of the contract, but nothing here leads to it: what runs is never cut off."""

    SCHEDULING = "scheduling"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    ERROR = "error"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Event(StrEnum):
    """What befalls an operation."""

    CLAIMED = "claimed"
    FINISHED = "finished"
    SKIPPED = "skipped"
    POSTPONED = "postponed"
    GIVEN_UP = "given up"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


#: `running` does not mean that an engine has it: the first operation of a request is answered as running at once (Neon
#: does so), and a crash leaves it there. Who has it is told by the lease. So `running` may be claimed, and withdrawn.
TRANSITIONS: Mapping[Status, Mapping[Event, Status]] = MappingProxyType(
    {
        Status.SCHEDULING: {
            Event.CLAIMED: Status.RUNNING,
            Event.WITHDRAWN: Status.CANCELLED,
        },
        Status.RUNNING: {
            Event.CLAIMED: Status.RUNNING,
            Event.FINISHED: Status.FINISHED,
            Event.SKIPPED: Status.SKIPPED,
            Event.POSTPONED: Status.SCHEDULING,
            Event.GIVEN_UP: Status.FAILED,
            Event.REFUSED: Status.ERROR,
            Event.WITHDRAWN: Status.CANCELLED,
        },
        Status.CANCELLING: {
            Event.WITHDRAWN: Status.CANCELLED,
        },
        Status.FINISHED: {},
        Status.FAILED: {},
        Status.ERROR: {},
        Status.CANCELLED: {},
        Status.SKIPPED: {},
    }
)

TERMINAL = frozenset(status for status, events in TRANSITIONS.items() if not events)
ACTIVE = frozenset(Status) - TERMINAL
#: How an operation ends well: clients that wait take these for success.
SUCCEEDED = frozenset({Status.FINISHED, Status.SKIPPED})
#: What befalls an operation that another operation of the same request waits for in vain: the rest is withdrawn.
FATAL = frozenset({Event.GIVEN_UP, Event.REFUSED})


def after(status: Status, event: Event) -> Status:
    """The status that follows. Raises InvalidTransition."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise InvalidTransition(status, event) from None


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, not before `at`."""

    at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """That was the last try."""


#: The project is locked while its operation waits, and Neon's CLI is patient with a locked project for 15 seconds:
#: six tries with pauses of 0.5, 1, 2, 4 and 8 seconds.
ATTEMPTS = 6
FIRST_PAUSE = timedelta(seconds=0.5)


def after_failure(failures: int, now: datetime) -> Retry | GiveUp:
    """What to do after the failure number `failures` (from 1 up) of one operation."""
    if failures >= ATTEMPTS:
        return GiveUp()
    return Retry(at=now + _pause(failures))


#: In the background nobody waits: what a full disk or a missing device prevents may take hours to be mended.
LONGEST_PAUSE = timedelta(seconds=60)


def after_background_failure(failures: int, now: datetime) -> Retry:
    """When to try again in the background, after the failure number `failures` in all: there is no last try."""
    return Retry(at=now + min(_pause(failures), LONGEST_PAUSE))


def _pause(failures: int) -> timedelta:
    # The exponent is bounded because a timedelta is.
    return FIRST_PAUSE * (1 << min(max(failures - 1, 0), 16))
