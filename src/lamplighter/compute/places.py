"""Where the files of one compute lie in the run directory.

`<run_dir>/<hash of the id>/` holds the configuration and the record, and in `s/` the Unix socket; the hash keeps the
socket's path below the 107 bytes that Unix allows. As root the directory is root's and the user that Postgres runs as
may only read it: what breaks out of a backend cannot rewrite who gets in.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.config import SOCKET_PORT
from lamplighter.compute.errors import RunDirUnfit

#: sizeof(sun_path) less the closing NUL.
SOCKET_PATH_LIMIT = 107
_HASH = 10
_LONGEST_SOCKET = len("/0123456789/s/.s.PGSQL.65535")


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
    """The places of a compute; nothing is made."""
    digest = hashlib.sha256(compute_id.encode()).hexdigest()[:_HASH]
    home = run_dir / digest
    return Places(home, (log_dir or home) / ("postgres.log" if log_dir is None else f"{digest}.log"))


def check_run_dir(run_dir: Path) -> None:
    """Raise `RunDirUnfit` if a socket below would have too long a path."""
    if len(os.fsencode(run_dir)) + _LONGEST_SOCKET > SOCKET_PATH_LIMIT:
        raise RunDirUnfit(run_dir, SOCKET_PATH_LIMIT)


def make_run_dir(run_dir: Path, owner: tuple[int, int]) -> None:
    """Make the directory of all computes: ours, and to be entered by the group that Postgres runs as."""
    for path in (*reversed(run_dir.parents), run_dir):
        if not path.exists():
            path.mkdir(exist_ok=True)
            # Whatever our umask is: Postgres's user must get through.
            path.chmod(0o755)
    _give(run_dir, owner, mode=0o750)


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
