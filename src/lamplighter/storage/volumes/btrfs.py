"""Volumes that are btrfs subvolumes: a clone is a snapshot, one instant of the source, in milliseconds."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from lamplighter.files import sync_directory
from lamplighter.storage import linux, plan, tree
from lamplighter.storage.ports import Backup, Usage
from lamplighter.storage.volumes.base import BaseVolumes


class BtrfsVolumes(BaseVolumes):
    driver = "btrfs"
    atomic = True

    def _seed(self, new: Path, seed: Path, job: tree.Job) -> None:
        data = new / "data"
        linux.create_subvolume(data)
        tree.clone_tree(seed, data, job, scope=plan.Scope.ASLEEP)
        tree.settle(data)

    async def _clone_asleep(self, source_id: str, new: Path) -> None:
        await self._call(snapshot, self._path(source_id) / "data", new / "data")

    async def _clone_running(self, source_id: str, new: Path, backup: Backup) -> None:
        # pg_wal lies in the same subvolume, so that a snapshot is what a crash would leave, and needs no backup. The
        # checkpoint only shortens the recovery: without it a busy source means seconds of replay at the first start.
        await backup.checkpoint()
        await self._clone_asleep(source_id, new)

    def _measure(self, volume_id: str) -> Usage:
        data = self._path(volume_id) / "data"
        return Usage(tree.exclusive_bytes(data), tree.apparent_bytes(data))

    def _remove(self, entry: Path) -> None:
        remove(entry, self._stop)


def snapshot(source: Path, target: Path) -> None:
    """Clone the data directory `source`, a subvolume; on disk when this returns."""
    tree.check_links(source)
    linux.snapshot_subvolume(source, target)
    for name in plan.PROCESS_FILES:
        (target / name).unlink(missing_ok=True)
    slots = target / plan.SLOTS_DIR
    for slot in list(slots.iterdir()) if slots.is_dir() else []:
        tree.remove_tree(slot, threading.Event())
    # The snapshot itself was committed with these files still in it.
    if slots.is_dir():
        sync_directory(slots)
    sync_directory(target)


def remove(entry: Path, stop: threading.Event) -> None:
    """Remove a volume's directory with the subvolume in it."""
    data = entry / "data"
    if data.is_dir() and linux.is_subvolume(data):
        # Refused to ordinary users unless the mount has user_subvol_rm_allowed; then the files go one by one, and the
        # empty subvolume by rmdir.
        with contextlib.suppress(PermissionError):
            linux.destroy_subvolume(data)
    if os.path.lexists(entry):
        tree.remove_tree(entry, stop)
