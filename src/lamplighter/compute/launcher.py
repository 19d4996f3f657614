"""Put a data directory in order and spawn the postmaster on it, detached from this process.

Assumes that nobody else works on the data directory: the supervisor has made sure. A clone must not go on with what
its parent does with other servers: it loses its replication slots, and its subscriptions before they run.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from lamplighter.compute.places import Places
from lamplighter.compute.ports import ComputeSpec

#: Replication slots of this prefix are the platform's.
SLOT_PREFIX = "lamp_"
#: Names the place of a data directory at its last start, so that a clone is known at its first.
MARKER = "lamplighter.place"
#: The file of pg_subscription, a shared catalog. Only a superuser could give it another. Empty until the first row.
_SUBSCRIPTIONS = "global/6100"
_CONTROL = "global/pg_control"
#: The field `state` of pg_control, and its values after a clean end, of a primary and of a standby.
_STATE_AT = 16
_CLEAN = (1, 2)

#: Added to the argv of a first start, where anybody can see it who finds the postmaster.
#: There are subscriptions: nobody gets in, and nothing is applied, until they are silenced; then a start as usual.
#: Another way than a start more is not to be had: the setting needs one, and with the workers off for good, or for as
#: long as a project has no logical replication, users' own subscriptions would do nothing.
QUIET = ("-c", "max_logical_replication_workers=0", "-c", "listen_addresses=")
#: There are none in the file, but WAL to be replayed may bring some. The parent ran until it was cloned, or the host
#: crashed; to start a second time for that is too dear, so they are silenced as soon as Postgres answers.
CHECK = ("-c", "lamplighter.first_start=on")
#: What a worker would do is left as it is: without a slot, it can be enabled again only by who gives it another.
SILENCE = (
    "UPDATE pg_catalog.pg_subscription SET subenabled = false, subslotname = NULL"
    " WHERE subenabled OR subslotname IS NOT NULL"
)

#: The same as `tidy`, for a data directory that only the processes of a mount namespace see.
_TIDY_SCRIPT = f"""
cd "$1" || exit 1
place=$2 kind=$3 silenced=$4
shift 4
rm -f postmaster.pid standby.signal
if [ "$(cat {MARKER} 2>/dev/null)" != "$place" ]; then
    for slot in pg_replslot/*; do rm -rf "$slot" || exit 1; done
    if [ "$kind" = primary ] && [ "$silenced" = no ]; then
        if [ ! -f {_SUBSCRIPTIONS} ] || [ -s {_SUBSCRIPTIONS} ]; then
            exec "$@" {" ".join(QUIET)}
        fi
        case $(od -An -tu4 -j{_STATE_AT} -N4 {_CONTROL} | tr -d ' ') in
            {"|".join(map(str, _CLEAN))}) ;;
            *) set -- "$@" {" ".join(CHECK)} ;;
        esac
    fi
    rm -f {MARKER} && printf %s "$place" > {MARKER} || exit 1
fi
if [ "$kind" = standby ]; then : > standby.signal || exit 1; fi
exec "$@"
"""


def tidy(spec: ComputeSpec, owner: tuple[int, int], *, silenced: bool = False) -> tuple[str, ...]:
    """Make a data directory fit for its next start; returns what that needs in its argv: nothing, `QUIET` or `CHECK`.

    Removes `postmaster.pid`, whose pid somebody else may have by now, and all replication slots that a clone got from
    its parent: nobody reads from them, and they hold back WAL. Makes or removes `standby.signal`. `silenced` says that
    a quiet start has done its work.
    """
    data = spec.data_dir
    for name in ("postmaster.pid", "standby.signal"):
        (data / name).unlink(missing_ok=True)
    extra: tuple[str, ...] = ()
    if not _holds(data / MARKER, place_of(data)):
        for slot in (data / "pg_replslot").glob("*"):
            _remove(slot)
        # In recovery nothing is applied, and a standby stays in it.
        if not silenced and spec.standby is None:
            extra = _first_start(data)
        if extra != QUIET:
            _create(data / MARKER, place_of(data).encode(), owner)
    if spec.standby:
        _create(data / "standby.signal", b"", owner)
    return extra


def place_of(data_dir: Path) -> str:
    """What tells a data directory from its clones, and stays when all of them are moved.

    Not a compute's id: several computes work on one directory in turn, and a first start takes slots away.
    """
    return f"{data_dir.parent.name}/{data_dir.name}"


def _first_start(data: Path) -> tuple[str, ...]:
    try:
        if (data / _SUBSCRIPTIONS).stat().st_size:
            return QUIET
    except FileNotFoundError:
        return QUIET
    try:
        with (data / _CONTROL).open("rb") as file:
            state = int.from_bytes(file.read(_STATE_AT + 4)[_STATE_AT:], sys.byteorder)
    except OSError:
        # Postgres will say what is wrong with it.
        return CHECK
    return () if state in _CLEAN else CHECK


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _holds(marker: Path, place: str) -> bool:
    try:
        return marker.read_bytes() == place.encode()
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


def tidy_prefix(spec: ComputeSpec, *, silenced: bool = False) -> tuple[str, ...]:
    """An argv prefix that does what `tidy` does, inside of the mount namespace."""
    kind = "standby" if spec.standby else "primary"
    data = spec.data_dir
    return ("/bin/sh", "-c", _TIDY_SCRIPT, "sh", str(data), place_of(data), kind, "yes" if silenced else "no")


def command(
    spec: ComputeSpec, places: Places, postgres: Path, drop: Iterable[str], *, silenced: bool = False
) -> list[str]:
    """The postmaster's argv. Entering a namespace may need the privileges that `drop` gives up, so it comes first."""
    return [
        *spec.enter,
        *drop,
        *(tidy_prefix(spec, silenced=silenced) if spec.enter else ()),
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
