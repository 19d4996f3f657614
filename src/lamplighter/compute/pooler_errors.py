"""What can go wrong with a pooler, as a branch of the tree in `errors.py`.

ComputeError
└── PoolerError
    ├── PoolerMissing            no usable PgBouncer on this host
    └── PoolerFailed             PgBouncer ended, or an answer did not come in time
        └── PoolerPortTaken      somebody else listens there
"""

from __future__ import annotations

from pathlib import Path

from lamplighter.compute.errors import ComputeError


class PoolerError(ComputeError):
    """Pooled connections are not to be had."""


class PoolerMissing(PoolerError):
    """No usable PgBouncer was found. `why` says what is wrong with `path`, or where none is, if that is None."""

    def __init__(self, why: str, path: Path | None = None) -> None:
        self.why = why
        self.path = path
        super().__init__(f"Pooled connections need PgBouncer: {why}. Install it (`apt install pgbouncer`).")


class PoolerFailed(PoolerError):
    """PgBouncer did not start, does not run, or cannot be told of roles.

    `why` says which, as the rest of a sentence that begins with "PgBouncer". `log_tail` holds its last lines.
    """

    def __init__(self, compute_id: str, why: str, log_tail: str = "") -> None:
        self.compute_id = compute_id
        self.why = why
        self.log_tail = log_tail
        said = f" It said:\n{log_tail}" if log_tail else ""
        super().__init__(f"PgBouncer of {compute_id} {why}.{said}")


class PoolerPortTaken(PoolerFailed):
    """Another program listens on the pooler's port."""

    def __init__(self, compute_id: str, port: int, log_tail: str = "") -> None:
        self.port = port
        why = f"did not start: port {port} is taken by another program; end that, or choose another"
        super().__init__(compute_id, why, log_tail)
