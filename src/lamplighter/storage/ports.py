"""What storage promises, and the little that it asks of whoever runs Postgres on a volume.

A volume is one Postgres data directory that can be cloned. Storage knows nothing of branches, projects or computes: the
caller says whether a postmaster runs on the source of a clone, by handing over its `Backup`.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Owner:
    """The user that postmasters run as, and so the owner of every data directory."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Volume:
    """A data directory that is ready for a postmaster.

    `enter` is an argv prefix: a program started as `[*enter, program, ...]` sees the data at `data_dir`, and keeps the
    pid that the start gave it. It is empty when every process of the host sees the data; else every start makes a mount
    namespace of its own, so that only one program at a time may be entered, and to others `data_dir` looks empty (they
    find the data at `/proc/PID/root/<data_dir>`).
    """

    id: str
    data_dir: Path
    enter: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes that are the volume's own, not shared with its parent; None where the file system cannot tell."""

    own_bytes: int | None
    #: Bytes that a reader of the whole data directory would see, shared or not.
    apparent_bytes: int


@dataclass(frozen=True, slots=True)
class BackupEnd:
    """What `pg_backup_stop` leaves: the label for the clone, and the WAL that makes the clone consistent."""

    label_file: bytes
    tablespace_map: bytes
    first_wal_file: str
    last_wal_file: str


class Backup(Protocol):
    """The postmaster that runs on the source of a clone. All calls of one clone use one session of Postgres.

    From `start` on until the session ends the source must keep its WAL, or checkpoints may remove what the clone
    needs: a temporary physical slot that reserves WAL at once, made before `pg_backup_start`, does that.
    """

    #: A directory in which the source's data is visible to this process (`/proc/PID/root/...` for a mount namespace).
    visible_data_dir: Path

    async def checkpoint(self) -> None:
        """Write dirty buffers out, so that an atomic snapshot has little WAL to replay."""
        ...

    async def start(self, label: str) -> None:
        """`pg_backup_start(label, fast => true)`."""
        ...

    async def stop(self) -> BackupEnd:
        """`pg_backup_stop(wait_for_archive => false)` in the session that started it."""
        ...

    async def abort(self) -> None:
        """End the session; a backup that was started is given up. Safe to call at any time, and more than once.

        `clone` calls it in every case when it is done, also after `stop`.
        """
        ...


class Volumes(Protocol):
    """The volumes of one data directory, through one driver.

    Every method is idempotent, so that an operation may run it again after a crash: what is complete is left alone,
    what is half-made is removed and made anew. Different volumes may be worked on at the same time.
    """

    #: `btrfs`, `reflink`, `overlay` or `copy`.
    driver: str
    #: Whether a clone of a running source is one instant of it, so that it needs no backup.
    atomic: bool

    async def import_seed(self, volume_id: str, seed: Path) -> None:
        """Make a volume from a cleanly stopped data directory that lies outside of the pool. `seed` is left alone."""
        ...

    async def clone(self, source_id: str, target_id: str, *, backup: Backup | None) -> None:
        """Make `target_id` from the present content of `source_id`.

        `backup` is None when no postmaster runs on the source. The clone has no `postmaster.pid`, and Postgres opens
        it by ordinary crash recovery or from the `backup_label`. Replication slots are not cloned. Raises
        `VolumeNotFound`, `StorageFull`, `WalMissing`, `ForeignLink` (a tablespace outside), `VolumeBusy` (`backup` is
        None, and yet a process uses the source).
        """
        ...

    async def open(self, volume_id: str) -> Volume:
        """Make the data visible for a postmaster that is about to start. Raises `VolumeNotFound`.

        No error, and no change, when it is open already or its postmaster runs.
        """
        ...

    async def close(self, volume_id: str) -> None:
        """The postmaster has ended: unmount. No error if it is not open. Raises `VolumeBusy` if it still runs."""
        ...

    async def delete(self, volume_id: str) -> None:
        """Move the volume to the trash, which empties in the background. No error if there is no such volume.

        Its postmaster must have ended (`VolumeBusy` where that can be seen). Its clones lose nothing.
        """
        ...

    async def exists(self, volume_id: str) -> bool: ...

    async def list(self) -> builtins.list[str]:
        """Ids of all complete volumes."""
        ...

    async def usage(self, volume_id: str) -> Usage:
        """How much it takes. Raises `VolumeNotFound`."""
        ...

    async def require_space(self) -> None:
        """Raise `StorageFull` when free space is below the reserve, so that a clone must not be made."""
        ...

    async def recover(self) -> builtins.list[str]:
        """Once at start: remove what a crash left half-made, mount pools again, empty the trash.

        Returns a sentence for each thing it mended.
        """
        ...

    async def shutdown(self) -> None:
        """End background work and unmount what no postmaster uses."""
        ...
