"""Connecting to a compute that may be on its way up: what is worth another attempt, and when. Pure.

libpq gives no SQLSTATE for a connection that failed, so it is its text that tells. What a server says is in English:
both Neon and we run Postgres with `lc_messages = C`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import unquote, urlsplit

from lamplighter.api.secret import SHOWN, Secret

#: Seconds of the first pause, and of the longest. A compute of ours is up after 0.1 s, one of Neon's after about 0.5 s.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
_GROWTH: Final = 1.5
#: libpq's least (it takes 1 for 2), and a most: a lost packet must not cost the whole time there is.
_LEAST_ATTEMPT: Final = 2
_LONGEST_ATTEMPT: Final = 15

#: Said by a server, or by Neon's proxy, while a compute comes up or goes down.
_PASSING: Final = (
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "the database system is not accepting connections",
    "terminating connection due to administrator command",
    "terminating connection because of crash of another server process",
    "couldn't connect to compute node",
    "control plane request failed",
    "console request failed",
    "too many database connection attempts are currently ongoing",
)
#: Said by Postgres of a role or database that is not there, or not as it will be while a change is under way: a compute
#: takes connections before the roles of its branch have their passwords.
_UNSETTLED: Final = (
    "password authentication failed",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
)
#: Said by libpq of a server that is there, and that the same attempt will find as it is.
_LASTING: Final = (
    "certificate",
    "does not support ssl",
    "channel binding",
    "authentication method",
    "no password supplied",
    "scram",
    "sslmode",
)
#: libpq's own "SSL SYSCALL error: ..." is no answer of a server.
_SAID: Final = re.compile(r"(^|failed: )(fatal|error): ")


class Outlook(Enum):
    """Whether the next attempt may end otherwise."""

    PASSING = "the compute comes up, or cannot be reached for now"
    #: If operations of the project are under way.
    UNSETTLED = "a change may be under way that makes it work"
    LASTING = "it will be refused again"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A connection that was not made: what was said, and what is to be expected."""

    said: str
    outlook: Outlook


def refusal(said: str, *, uri: Secret, readable: bool = True) -> Refusal:
    """What libpq's text means. `readable` is False when it could not even read its address, which it then repeats."""
    if not readable:
        return Refusal("the server's answer holds a connection string that libpq cannot read", Outlook.LASTING)
    text = " ".join(_without_password(said, uri).split())
    return Refusal(text, outlook_of(text))


def outlook_of(said: str) -> Outlook:
    """Whether another attempt may succeed.

    What a server says is lasting unless it is known to pass. Else libpq could not reach it: refused, reset, timed out,
    not resolved; all of these end, but not a certificate that does not fit.
    """
    lower = said.lower()
    if _SAID.search(lower):
        if any(each in lower for each in _PASSING):
            return Outlook.PASSING
        return Outlook.UNSETTLED if any(each in lower for each in _UNSETTLED) else Outlook.LASTING
    return Outlook.LASTING if any(each in lower for each in _LASTING) else Outlook.PASSING


def _without_password(said: str, uri: Secret) -> str:
    """The text, should libpq ever repeat a password, without it."""
    password = urlsplit(uri.reveal()).password
    for form in {password, unquote(password)} if password else ():
        said = said.replace(form, SHOWN)
    return said


def pauses() -> Iterator[float]:
    """Seconds between attempts, without end."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(_LONGEST_PAUSE, pause * _GROWTH)


def attempt_seconds(left: float) -> int:
    """How long one attempt may take when so many seconds are left: whole seconds, as libpq has them."""
    return min(_LONGEST_ATTEMPT, max(_LEAST_ATTEMPT, math.ceil(left)))


def unmoved(uri: Secret) -> dict[str, str]:
    """Parameters that keep libpq at the server of the URI.

    PGHOSTADDR would lead it to another, and PGPORT to another port where the URI names none.
    """
    try:
        port = urlsplit(uri.reveal()).port
    except ValueError:
        # psycopg says that it cannot be read.
        return {}
    return {"hostaddr": ""} if port else {"hostaddr": "", "port": "5432"}
