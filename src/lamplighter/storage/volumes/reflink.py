"""Clones that share every block with their source until either writes to it (FICLONE: XFS, btrfs and others).

The price is about 0.1 ms a file, whatever its size.
"""

from __future__ import annotations

from pathlib import Path

from lamplighter.storage import linux, tree
from lamplighter.storage.ports import Usage
from lamplighter.storage.volumes.trees import TreeVolumes


class ReflinkVolumes(TreeVolumes):
    driver = "reflink"

    def _copy_file(self, source: int, target: int) -> None:
        tree.reflink(source, target)

    def _settle(self, new: Path) -> None:
        # FICLONE writes out the source's dirty pages first, so only metadata is not on disk yet, and where it is
        # committed in order (XFS) the sync of the directory after the last rename takes it along.
        if not linux.commits_in_order(new):
            linux.sync_filesystem(new)

    def _seed(self, new: Path, seed: Path, job: tree.Job) -> None:
        super()._seed(new, seed, job)
        # It may have been copied, from another file system.
        tree.settle(new)

    def _measure(self, volume_id: str) -> Usage:
        data = self._path(volume_id) / "data"
        return Usage(tree.exclusive_bytes(data), tree.apparent_bytes(data))
