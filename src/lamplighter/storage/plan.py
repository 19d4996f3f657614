"""All that storage decides, apart from doing it: names, what a clone leaves out, WAL ranges, layers, the reserve.

Pure: no I/O, no clock, no randomness. Paths inside a data directory are strings with `/`, relative to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from lamplighter.storage.errors import InvalidVolumeId, StorageError, WalMissing

GIB = 2**30

#: Preference of drivers, best first. Each one's price is in the documentation of `lamp doctor`.
DRIVERS = ("btrfs", "reflink", "overlay", "copy")

_VOLUME_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_WAL_FILE = re.compile(r"[0-9A-F]{24}")


def check_volume_id(volume_id: str) -> str:
    """The id itself. Raises InvalidVolumeId for what could leave its directory or be taken for a half-made volume."""
    if not _VOLUME_ID.fullmatch(volume_id):
        raise InvalidVolumeId(volume_id)
    return volume_id


# --- What a clone leaves out -------------------------------------------------------------------------------------


class Scope(Enum):
    """How the source of a clone is when it is read."""

    #: No postmaster runs: the files are the database, crashed or not.
    ASLEEP = "asleep"
    #: Between pg_backup_start and pg_backup_stop: WAL repairs what is torn, so that more may be left out.
    BACKUP = "backup"


#: Which process runs on the source says nothing about the clone; Postgres refuses to start if that pid is alive.
PROCESS_FILES = frozenset({"postmaster.pid", "postmaster.opts"})

#: As pg_basebackup: a clone gets its own label, and unfinished or host-bound files are of no use to it.
_BACKUP_FILES = frozenset(
    {"backup_label", "tablespace_map", "backup_manifest", "postgresql.auto.conf.tmp", "current_logfiles.tmp"}
)

#: Copied after everything else: its checkpoint must not be older than the data files that the clone took before.
CONTROL_FILE = "global/pg_control"

WAL_DIR = "pg_wal"
SLOTS_DIR = "pg_replslot"

#: Emptied, not left out: Postgres expects these directories to exist.
_BACKUP_EMPTY_DIRS = frozenset(
    {SLOTS_DIR, "pg_dynshmem", "pg_stat_tmp", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"}
)


def is_emptied(directory: str, scope: Scope) -> bool:
    """Whether a clone has this directory without its content.

    Replication slots are never cloned: nobody would read from the clone's, and they would keep its WAL for ever.
    """
    if scope is Scope.ASLEEP:
        return directory == SLOTS_DIR
    return directory in _BACKUP_EMPTY_DIRS or _base(directory).startswith("pgsql_tmp")


def emptied_directories(scope: Scope) -> frozenset[str]:
    """The directories of fixed name that a clone has without their content."""
    return _BACKUP_EMPTY_DIRS if scope is Scope.BACKUP else frozenset({SLOTS_DIR})


def is_left_out(file: str, scope: Scope) -> bool:
    """Whether a clone does not get this file now. `global/pg_control` and WAL come by themselves, later."""
    if file in PROCESS_FILES:
        return True
    if scope is Scope.ASLEEP:
        return False
    if file in _BACKUP_FILES or file == CONTROL_FILE:
        return True
    if file.startswith(f"{WAL_DIR}/"):
        return True
    return _base(file).startswith(("pg_internal.init", "pgsql_tmp"))


def unlogged_files(directory: str, names: Collection[str]) -> frozenset[str]:
    """Files of unlogged tables that recovery makes anew from their init fork, so that copying them is wasted work.

    Only right for a clone that goes through recovery: after a clean stop the content of unlogged tables is kept.
    """
    if not directory.startswith("base/"):
        return frozenset()
    relations = {name.removesuffix("_init") for name in names if name.endswith("_init")}
    if not relations:
        return frozenset()
    return frozenset(name for name in names if not name.endswith("_init") and _relation_of(name) in relations)


def _relation_of(name: str) -> str:
    return name.partition(".")[0].partition("_")[0]


def _base(path: str) -> str:
    return path.rpartition("/")[2]


# --- WAL ----------------------------------------------------------------------------------------------------------


def is_wal_file(name: str) -> bool:
    return _WAL_FILE.fullmatch(name) is not None


def wal_range(first: str, last: str, *, segment_bytes: int) -> list[str]:
    """Names of the WAL files from `first` to `last`, both included, in the order of the log.

    A name is timeline, high and low part of the segment's number; the low part ends where 4 GiB of log end, which
    depends on the size of a segment. Raises StorageError for names that are no range of one timeline.
    """
    if not (is_wal_file(first) and is_wal_file(last)) or first[:8] != last[:8] or first > last:
        message = f"{first} to {last} is no range of WAL files."
        raise StorageError(message)
    per_log = 0x1_0000_0000 // segment_bytes
    low, high = (int(name[8:16], 16) * per_log + int(name[16:], 16) for name in (first, last))
    return [f"{first[:8]}{number // per_log:08X}{number % per_log:08X}" for number in range(low, high + 1)]


def needed_wal(present: Collection[str], first: str, last: str, *, segment_bytes: int) -> list[str]:
    """What of `pg_wal` a clone needs: the range and every timeline history. Raises WalMissing for a gap."""
    wanted = wal_range(first, last, segment_bytes=segment_bytes)
    missing = sorted(set(wanted) - set(present))
    if missing:
        raise WalMissing(missing)
    return wanted + sorted(name for name in present if name.endswith(".history"))


# --- The reserve --------------------------------------------------------------------------------------------------


def default_reserve(total_bytes: int) -> int:
    """Free bytes that no new branch may take: 1 GiB or 2 %, never more than a tenth of a small disk or 32 GiB."""
    return min(max(GIB, total_bytes // 50), total_bytes // 10, 32 * GIB)


# --- Layers of the overlay driver ---------------------------------------------------------------------------------

#: The kernel stops at 500 lower layers; a mount's options must fit a page, which is reached earlier.
HARD_LAYERS = 200
#: Every layer is one more directory to look into for each file that is not found above it.
SOFT_LAYERS = 32
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Stack:
    """A volume's layers: one that is written to, and frozen ones below it, uppermost first."""

    upper: str
    lowers: tuple[str, ...]

    @property
    def layers(self) -> frozenset[str]:
        return frozenset((self.upper, *self.lowers))


def frozen(stack: Stack, new_upper: str) -> Stack:
    """The stack after its upper layer became one that others may share."""
    return Stack(upper=new_upper, lowers=(stack.upper, *stack.lowers))


def mount_options(stack: Stack) -> str:
    """Options for an overlay mounted from the directory of all layers; layer X has its tree at X/t, its work at X/w.

    `userxattr` also for root: then root and an ordinary user can read each other's layers. `index=off` because lower
    layers are shared by many mounts. Raises StorageError when the options do not fit the kernel's page.
    """
    lowers = ":".join(f"{layer}/t" for layer in stack.lowers)
    options = f"lowerdir={lowers},upperdir={stack.upper}/t,workdir={stack.upper}/w,userxattr,index=off"
    if len(options) >= _PAGE_BYTES:
        message = f"{len(stack.lowers)} layers are more than one mount can have."
        raise StorageError(message)
    return options


def run_to_merge(lowers: Sequence[str], *, limit: int) -> tuple[str, ...] | None:
    """The layers to merge into one when there are more than `limit`, or None.

    The lowest stays: it is the big one (a template or an imported cluster) that most volumes share.
    """
    if len(lowers) <= max(limit, 2):
        return None
    return tuple(lowers[:-1])


def with_merged(stack: Stack, run: Sequence[str], merged: str) -> Stack | None:
    """The stack with `merged` in the place of the layers `run`; None when it does not have them in this order."""
    if not run:
        return None
    length = len(run)
    for start in range(len(stack.lowers) - length + 1):
        if stack.lowers[start : start + length] == tuple(run):
            return Stack(stack.upper, (*stack.lowers[:start], merged, *stack.lowers[start + length :]))
    return None


def unused_layers(layers: Iterable[str], stacks: Iterable[Stack], *, pending: Collection[str]) -> list[str]:
    """Layers that neither a volume nor unfinished work needs."""
    needed = set(pending).union(*(stack.layers for stack in stacks))
    return sorted(set(layers) - needed)


def only_used_by(volume_id: str, stacks: Mapping[str, Stack]) -> list[str]:
    """The layers that would go with this volume, its upper first."""
    mine = stacks[volume_id]
    others = frozenset[str]().union(*(stack.layers for name, stack in stacks.items() if name != volume_id))
    return [layer for layer in (mine.upper, *mine.lowers) if layer not in others]


# --- Choice of a driver -------------------------------------------------------------------------------------------


def choose_driver(usable: Collection[str]) -> str:
    """The best of those that work; `copy` always does."""
    return next((driver for driver in DRIVERS if driver in usable), "copy")
