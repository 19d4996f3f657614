"""Which postmasters run from which build of Postgres: a build in use must not be removed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.process import PROC, postgres_processes, postmasters


@dataclass(frozen=True, slots=True)
class BuildUser:
    """A postmaster. `data_dir` is what it was started with."""

    pid: int
    data_dir: str


def users_of(directories: Iterable[Path]) -> list[BuildUser]:
    """The postmasters whose program lies below one of the directories, as far as we may see."""
    wanted = [directory.resolve() for directory in directories]
    found = []
    for one in postmasters(postgres_processes()):
        try:
            program = (PROC / str(one.pid) / "exe").readlink()
        except OSError:
            continue
        if any(program.is_relative_to(directory) for directory in wanted):
            data_dir = one.arguments[one.arguments.index("-D") + 1 :][:1]
            found.append(BuildUser(one.pid, data_dir[0] if data_dir else one.cwd_path))
    return found
