"""Trees of overlay layers, read and written without a mount: what a stack shows, and several layers made one.

A layer holds only what differs from the layers below it: a whiteout hides a name, an opaque directory hides all that
lies below it. A stack is a sequence of trees, uppermost first. Blocking.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from lamplighter.storage import tree
from lamplighter.storage.tree import Job


def visible(stack: Sequence[Path], relative: str) -> Path | None:
    """Where the file or directory that a mount of `stack` shows at `relative` lies, or None if it shows nothing.

    Of a merged directory this is the uppermost part.
    """
    place = _find(list(stack), Path(relative).parts)
    return place[0] if place else None


def names(stack: Sequence[Path], relative: str) -> list[str]:
    """The names that a mount of `stack` shows in the directory `relative`; none if it is no directory."""
    parts = _find(list(stack), Path(relative).parts)
    if not parts or not parts[0].is_dir():
        return []
    return sorted(name for name, places in _children(parts) if not _hides(places[0]))


def apparent_bytes(stack: Sequence[Path]) -> int:
    """Sum of the lengths of all files that a mount of `stack` shows."""
    total = 0
    for _, places in _children(list(stack)):
        found = places[0].lstat()
        if stat.S_ISDIR(found.st_mode):
            total += apparent_bytes(_directories(places)[0])
        elif stat.S_ISREG(found.st_mode):
            total += found.st_size
    return total


def merge(stack: Sequence[Path], target: Path, job: Job) -> None:
    """Make `target` one layer that shows the same as the layers of `stack`, whatever lies below them."""
    _merge(list(stack), target, job, closed=False)


def _merge(parts: list[Path], target: Path, job: Job, *, closed: bool) -> None:
    job.check()
    tree.make_directory(target, job.owner, mode=stat.S_IMODE(parts[0].lstat().st_mode))
    if closed or any(tree.is_opaque(part) for part in parts):
        tree.set_opaque(target)
    for name, places in _children(parts):
        mode = places[0].lstat().st_mode
        if stat.S_ISDIR(mode):
            below, below_closed = _directories(places)
            _merge(below, target / name, job, closed=below_closed)
        elif stat.S_ISREG(mode):
            tree.clone_one(places[0], target / name, job)
        elif _hides(places[0]):
            tree.make_whiteout(target / name)


def _children(parts: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Each name in a merged directory, with the places where it is, uppermost first."""
    found: dict[str, list[Path]] = {}
    for part in parts:
        for place in part.iterdir():
            found.setdefault(place.name, []).append(place)
        if tree.is_opaque(part):
            break
    yield from found.items()


def _directories(places: Sequence[Path]) -> tuple[list[Path], bool]:
    """The leading directories among `places`, and whether what is below them is hidden by something else."""
    leading: list[Path] = []
    for place in places:
        if not place.is_dir() or place.is_symlink():
            return leading, True
        leading.append(place)
        if tree.is_opaque(place):
            return leading, False
    return leading, False


def _find(parts: list[Path], steps: Sequence[str]) -> list[Path]:
    for step in steps:
        places = next((places for name, places in _children(parts) if name == step), [])
        if not places or _hides(places[0]):
            return []
        parts = _directories(places)[0] or [places[0]]
        if not parts[0].is_dir():
            return parts[:1] if step == steps[-1] else []
    return parts


def _hides(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
