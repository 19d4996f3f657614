"""The error tree: facts as attributes, messages that say what to do."""

from __future__ import annotations

import inspect
from pathlib import Path

from lamplighter.storage import errors


def test_the_drawn_tree_has_every_class_below_its_parent():
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "--" in line]
    parents: dict[int, str] = {-1: "StorageError"}
    for line in drawn:
        name = line.split("--")[1].split()[0]
        depth = line.index("--") // 4
        parents[depth] = name
        assert getattr(errors, name).__base__.__name__ == parents[depth - 1]
    classes = {name for name, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, Exception)}
    assert classes == {line.split("--")[1].split()[0] for line in drawn} | {"StorageError"}


def test_messages_have_the_figures_and_what_to_do():
    full = errors.StorageFull(path=Path("/data"), free_bytes=2**20, reserve_bytes=2**30, needed_bytes=2**21)
    assert (full.free_bytes, full.reserve_bytes) == (2**20, 2**30)
    assert str(full) == (
        "/data has 1 MiB free; 1,024 MiB are kept in reserve for running branches and 2 MiB for the new data. "
        "Delete branches or add disk space."
    )
    assert "apt-get install xfsprogs" in str(errors.ToolMissing("mkfs.xfs", package="xfsprogs"))
    assert str(errors.StorageError()) == "The storage could not do what was asked."
