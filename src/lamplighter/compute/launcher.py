"""Put a data directory in order and spawn the postmaster on it, detached from this process.

Assumes that nobody else works on the data directory: the supervisor has made sure.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

from lamplighter.compute.places import Places
from lamplighter.compute.ports import ComputeSpec

#: Replication slots of this prefix are the platform's. A clone must not keep those of its parent: they hold back WAL.
SLOT_PREFIX = "lamp_"
#: Names the compute that ran last on a data directory, so that a clone is known at its first start.
MARKER = "lamplighter.compute"

#: The same as `tidy`, for a data directory that only the processes of a mount namespace see.
_TIDY_SCRIPT = f"""
cd "$1" || exit 1
rm -f postmaster.pid standby.signal
if [ "$(cat {MARKER} 2>/dev/null)" != "$2" ]; then
    rm -rf pg_replslot/{SLOT_PREFIX}* && rm -f {MARKER} && printf %s "$2" > {MARKER} || exit 1
fi
if [ "$3" = standby ]; then : > standby.signal || exit 1; fi
shift 3
exec "$@"
"""


def tidy(spec: ComputeSpec, owner: tuple[int, int]) -> None:
    """Make a data directory fit for its next start.

    Removes `postmaster.pid`, whose pid somebody else may have by now, and the slots that a clone got from its parent;
    makes or removes `standby.signal`.
    """
    data = spec.data_dir
    for name in ("postmaster.pid", "standby.signal"):
        (data / name).unlink(missing_ok=True)
    marker = data / MARKER
    if not _holds(marker, spec.id):
        for slot in (data / "pg_replslot").glob(f"{SLOT_PREFIX}*"):
            shutil.rmtree(slot)
        _create(marker, spec.id.encode(), owner)
    if spec.standby:
        _create(data / "standby.signal", b"", owner)


def _holds(marker: Path, compute_id: str) -> bool:
    try:
        return marker.read_bytes() == compute_id.encode()
    except OSError:
        return False


def _create(path: Path, content: bytes, owner: tuple[int, int]) -> None:
    path.unlink(missing_ok=True)
    # Exclusive: as root we write nothing through a link that somebody laid into a directory which is not ours.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), *owner)
        file.write(content)


def tidy_prefix(spec: ComputeSpec) -> tuple[str, ...]:
    """An argv prefix that does what `tidy` does, inside of the mount namespace."""
    kind = "standby" if spec.standby else "primary"
    return ("/bin/sh", "-c", _TIDY_SCRIPT, "sh", str(spec.data_dir), spec.id, kind)


def command(spec: ComputeSpec, places: Places, postgres: Path, drop: Iterable[str]) -> list[str]:
    """The postmaster's argv. Entering a namespace may need the privileges that `drop` gives up, so it comes first."""
    return [
        *spec.enter,
        *drop,
        *(tidy_prefix(spec) if spec.enter else ()),
        str(postgres),
        *("-D", str(spec.data_dir)),
        *("-c", f"config_file={places.conf}"),
        *("-c", f"hba_file={places.hba}"),
        *("-c", f"ident_file={places.ident}"),
    ]


def environment(build_environment: Mapping[str, str]) -> dict[str, str]:
    """The postmaster's whole environment: the build's, and nothing of a home directory that libpq would read."""
    # The kernel may kill a backend when memory runs out, and should spare the postmaster.
    value = "0" if os.geteuid() == 0 else "200"
    return {
        **build_environment,
        "HOME": "/nonexistent",
        "PGSYSCONFDIR": "/nonexistent",
        "PG_OOM_ADJUST_FILE": "/proc/self/oom_score_adj",
        "PG_OOM_ADJUST_VALUE": value,
    }


def spawn(argv: list[str], env: Mapping[str, str], log: Path) -> int:
    """Start a program in a session of its own, with its output appended to `log`. Returns its pid.

    posix_spawn and not subprocess: it forks no page tables, and leaves no object behind that must outlive the child.
    """
    pid = os.posix_spawnp(
        argv[0],
        argv,
        dict(env),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            # Appending, so that the log can be cut to nothing under a running postmaster.
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        # Python ignores these, and ignored signals are inherited.
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP],
    )
    # No dump of shared buffers in somebody's data directory after a crash.
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/oom_score_adj").write_text("-900")
    return pid
