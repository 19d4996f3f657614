"""Volumes whose clone is a walk over the files: what `reflink` and `copy` have in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from lamplighter.storage import plan, tree
from lamplighter.storage.ports import Backup
from lamplighter.storage.volumes.base import BaseVolumes


class TreeVolumes(BaseVolumes):
    """One plain directory a volume. A walk is no instant, so a running source is cloned under the backup API."""

    @abstractmethod
    def _settle(self, new: Path) -> None:
        """Put what was cloned on disk; blocking."""

    def _seed(self, new: Path, seed: Path, job: tree.Job) -> None:
        # A seed may lie on another file system, where bytes cannot be shared.
        copying = tree.Job(tree.reflink_or_copy, job.owner, job.stop)
        tree.clone_tree(seed, new / "data", copying, scope=plan.Scope.ASLEEP)
        self._settle(new)

    async def _clone_asleep(self, source_id: str, new: Path) -> None:
        source = self._path(source_id) / "data"

        def work(job: tree.Job) -> None:
            tree.clone_tree(source, new / "data", job, scope=plan.Scope.ASLEEP)
            self._settle(new)

        await self._run(lambda stop: work(self._job(stop)))

    async def _clone_running(self, source_id: str, new: Path, backup: Backup) -> None:
        source, data = self._path(source_id) / "data", new / "data"
        end = await self._under_backup(
            new,
            backup,
            lambda stop: tree.clone_tree(source, data, self._job(stop), scope=plan.Scope.BACKUP),
        )

        def finish(job: tree.Job) -> None:
            self._finish_backup(source, data, end, job)
            self._settle(new)

        await self._run(lambda stop: finish(self._job(stop)))
