"""What can go wrong with a pooler, as a branch of the tree in `errors.py`.

ComputeError
└── PoolerError
    ├── PoolerMissing            no usable PgBouncer on this host
    └── PoolerFailed             PgBouncer ended, or did not answer in time
        └── PoolerPortTaken      somebody else listens there
"""

from __future__ import annotations

from lamplighter.compute.errors import ComputeError

_INSTALL = "Install it (`apt install pgbouncer`), or name its program."


class PoolerError(ComputeError):
    """Pooled connections are not to be had."""


class PoolerMissing(PoolerError):
    """No usable PgBouncer was found. `why` says what was wrong with those that were looked at."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"Pooled connections need PgBouncer: {why}. {_INSTALL}")


class PoolerFailed(PoolerError):
    """PgBouncer did not start. `log_tail` holds its last lines."""

    def __init__(self, compute_id: str, why: str, log_tail: str = "") -> None:
        self.compute_id = compute_id
        self.why = why
        self.log_tail = log_tail
        said = f" It said:\n{log_tail}" if log_tail else ""
        super().__init__(f"PgBouncer of {compute_id} did not start: {why}.{said}")


class PoolerPortTaken(PoolerFailed):
    """Another program listens on the pooler's port."""

    def __init__(self, compute_id: str, port: int, log_tail: str = "") -> None:
        self.port = port
        super().__init__(compute_id, f"port {port} is taken by another program; end that, or choose another", log_tail)
