"""Where the files of one compute lie in the run directory.

`<run_dir>/<hash of the id>/` holds the configuration and the record, and in `s/` the Unix socket; the hash keeps the
socket's path below the 107 bytes that Unix allows. As root the directory is root's and the user that Postgres runs as
may only read it: what breaks out of a backend cannot rewrite who gets in. Whoever could rename a directory on the way
could do so too: the run directory and the one that it lies in must be ours, for no one else to write.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.config import SOCKET_PORT
from lamplighter.compute.errors import RunDirUnfit

#: sizeof(sun_path) less the closing NUL.
SOCKET_PATH_LIMIT = 107
_HASH = 10
_LONGEST_SOCKET = len("/0123456789/s/.s.PGSQL.65535")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_ADVICE = "remove it, or have its owner do so, or set XDG_RUNTIME_DIR to a directory that only you may write to"


@dataclass(frozen=True, slots=True)
class Places:
    """Paths of one compute. `log` may lie elsewhere, because run directories are often kept in memory."""

    home: Path
    log: Path

    @property
    def unique_name(self) -> str:
        """A name that no other compute of this host has, of whichever run directory."""
        return f"{self.home.parent.name}-{self.home.name}"

    @property
    def record(self) -> Path:
        return self.home / "record.json"

    @property
    def conf(self) -> Path:
        return self.home / "postgresql.conf"

    @property
    def hba(self) -> Path:
        return self.home / "pg_hba.conf"

    @property
    def ident(self) -> Path:
        return self.home / "pg_ident.conf"

    @property
    def sockets(self) -> Path:
        return self.home / "s"

    @property
    def old_log(self) -> Path:
        return self.log.with_name(self.log.name + ".1")

    @property
    def socket(self) -> Path:
        """What clients connect to, whatever port Postgres itself has in the socket's name."""
        return self.sockets / f".s.PGSQL.{SOCKET_PORT}"


def places_of(run_dir: Path, compute_id: str, log_dir: Path | None = None) -> Places:
    """The places of a compute; nothing is made. In `log_dir` its log bears the compute's id, for people to find it."""
    digest = hashlib.sha256(compute_id.encode()).hexdigest()[:_HASH]
    home = run_dir / digest
    if log_dir is None:
        return Places(home, home / "postgres.log")
    return Places(home, log_dir / f"{compute_id if _FILE_NAME.fullmatch(compute_id) else digest}.log")


def check_run_dir(run_dir: Path) -> None:
    """Raise `RunDirUnfit` if a socket below would have too long a path, or if others may change what lies there."""
    if len(os.fsencode(run_dir)) + _LONGEST_SOCKET > SOCKET_PATH_LIMIT:
        raise RunDirUnfit(run_dir, f"Unix sockets below would have paths of more than {SOCKET_PATH_LIMIT} bytes")
    for path in (run_dir.parent, run_dir):
        if os.path.lexists(path):
            _check_ours(path)


def make_run_dir(run_dir: Path, owner: tuple[int, int]) -> None:
    """Make the directory of all computes: ours, and for root to be entered by the user that Postgres runs as.

    It and its parent may be names that others know beforehand in a directory where everybody may write: what is there
    already is taken only if it is ours or root's. Raises `RunDirUnfit`.
    """
    for path in reversed(run_dir.parent.parents):
        if not path.exists():
            path.mkdir(exist_ok=True)
            # Whatever our umask is: Postgres's user must get through.
            path.chmod(0o755)
    for path in (run_dir.parent, run_dir):
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
        except OSError as error:
            raise RunDirUnfit(path, f"it cannot be made ({error.strerror})") from error
        _check_ours(path)
    if os.geteuid() == 0:
        passable = stat.S_IMODE(run_dir.parent.stat().st_mode) | 0o011
        run_dir.parent.chmod(passable)
    _give(run_dir, owner, mode=0o710 if os.geteuid() == 0 else 0o700)


def _check_ours(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise RunDirUnfit(path, f"it is no directory; {_ADVICE}")
    if found.st_uid not in {0, os.geteuid()}:
        raise RunDirUnfit(path, f"it belongs to user {found.st_uid}; {_ADVICE}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RunDirUnfit(path, f"others may write to it; {_ADVICE}")


def make_home(places: Places, owner: tuple[int, int], port: int | None) -> None:
    """Make a compute's directories, and take away sockets that an earlier postmaster left: it must be dead.

    Postgres names its socket after its TCP port. A link gives it the name that everybody expects, so that a standby
    finds a primary whose port it does not know, asleep or awake.
    """
    places.home.mkdir(exist_ok=True, mode=0o750)
    _give(places.home, owner, mode=0o750)
    places.sockets.mkdir(exist_ok=True, mode=0o700)
    if os.geteuid() == 0:
        os.chown(places.sockets, *owner)
    # A lock file that names a pid which somebody else has by now would keep Postgres from starting.
    for leftover in places.sockets.iterdir():
        leftover.unlink()
    if port is not None and port != SOCKET_PORT:
        places.socket.symlink_to(f".s.PGSQL.{port}")


def remove_home(places: Places) -> None:
    """Remove all that a compute has in the run directory. No error if it is not there."""
    if places.sockets.is_dir():
        for leftover in places.sockets.iterdir():
            leftover.unlink(missing_ok=True)
        places.sockets.rmdir()
    for path in _files(places.home):
        path.unlink(missing_ok=True)
    if places.home.is_dir():
        places.home.rmdir()


def remove_logs(places: Places) -> None:
    """Remove the log and its predecessor: messages of Postgres may hold what users wrote. No error without any."""
    for path in (places.log, places.old_log):
        path.unlink(missing_ok=True)


def _files(home: Path) -> list[Path]:
    return list(home.iterdir()) if home.is_dir() else []


def replace_file(path: Path, content: str, owner: tuple[int, int] | None = None) -> None:
    """Replace a file whole, without a sync: what lies here means nothing after the host has crashed.

    With an `owner`, its group may read.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if owner is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), 0, owner[1])
                os.fchmod(file.fileno(), 0o640)
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _give(path: Path, owner: tuple[int, int], *, mode: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, 0, owner[1])
    path.chmod(mode)
