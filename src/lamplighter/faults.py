"""Named points at which a test can kill this process, to prove that what follows a crash is right.

A point does nothing unless the environment arms it: `LAMP_FAULT=branch.create.after_clone` ends the process with
SIGKILL when that point is reached, `LAMP_FAULT=NAME:3` when it is reached for the third time, `LAMP_FAULT=keys.*:3` at
the third point reached of those that begin so. Every point is declared in `POINTS`, so that the tests can visit all.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

POINTS: frozenset[str] = frozenset(
    {
        "project.create.after_commit",
        "project.create.after_volume",
        "project.delete.after_stop",
        "project.delete.after_volumes",
        "branch.create.after_commit",
        "branch.create.after_clone",
        "branch.delete.after_stop",
        "branch.delete.after_volume",
        "endpoint.start.after_open",
        "endpoint.start.after_spawn",
        "endpoint.start.after_ready",
        "endpoint.start.after_apply",
        "endpoint.suspend.after_stop",
        "endpoint.configure.after_stop",
        "endpoint.delete.after_stop",
        "branch.apply.after_start",
        "branch.apply.after_change",
        "keys.journal.before",
        "keys.journal.after",
        "keys.mint.before",
        "keys.mint.after",
        "keys.store.before",
        "keys.store.after",
        "keys.revoke.before",
        "keys.revoke.after",
        "keys.withdraw.before",
        "keys.withdraw.after",
    }
)

_hits: Counter[str] = Counter()


def point(name: str) -> None:
    """Die here if a test asked for it. Raises KeyError for a name that `POINTS` does not declare."""
    if name not in POINTS:
        raise KeyError(name)
    armed = os.environ.get("LAMP_FAULT")
    if not armed:
        return
    wanted, _, count = armed.partition(":")
    if wanted != name and not (wanted.endswith("*") and name.startswith(wanted[:-1])):
        return
    _hits[wanted] += 1
    if _hits[wanted] >= int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
