"""Plain copies: they work everywhere, and take the time and the space of all the data."""

from __future__ import annotations

from pathlib import Path

from lamplighter.storage import tree
from lamplighter.storage.ports import Usage
from lamplighter.storage.volumes.trees import TreeVolumes


class CopyVolumes(TreeVolumes):
    driver = "copy"
    copies = True

    def _copy_file(self, source: int, target: int) -> None:
        tree.copy(source, target)

    def _settle(self, new: Path) -> None:
        tree.settle(new)

    def _measure(self, volume_id: str) -> Usage:
        data = self._path(volume_id) / "data"
        return Usage(tree.allocated_bytes(data), tree.apparent_bytes(data))
