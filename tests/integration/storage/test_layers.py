"""Layers read and merged without a mount are what the kernel shows; long stacks are shortened unseen."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from pathlib import Path

import pytest

from lamplighter.storage import layers, linux, open_volumes, plan, tree
from lamplighter.storage.errors import StorageError
from lamplighter.storage.plan import Stack
from lamplighter.storage.volumes import overlay

NAMES = "abc"


def change_something(top: Path, choice: random.Random, step: int) -> None:
    """One random step among few names, so that they meet: make, remove or replace a file or a directory."""
    parts = [choice.choice(NAMES) for _ in range(choice.randint(1, 3))]
    path = top.joinpath(*parts)
    if not path.parent.is_dir():
        return
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    match choice.choice(["nothing", "file", "directory", "directory"]):
        case "file":
            path.write_text(str(step))
        case "directory":
            path.mkdir()


def listing(top: Path) -> dict[str, str]:
    return {str(path.relative_to(top)): "" if path.is_dir() else path.read_text() for path in sorted(top.rglob("*"))}


def read_stack(trees: list[Path], relative: str = "") -> dict[str, str]:
    """As `listing`, through the functions under test."""
    found = {}
    for name in layers.names(trees, relative):
        path = f"{relative}/{name}".lstrip("/")
        place = layers.visible(trees, path)
        assert place is not None
        found[path] = "" if place.is_dir() else place.read_text()
        if place.is_dir():
            found |= read_stack(trees, path)
    return found


@pytest.mark.root
@pytest.mark.parametrize("number", range(8))
def test_a_stack_reads_as_the_kernel_mounts_it_also_after_merging_any_part_of_it(root, number):
    choice = random.Random(number)
    lowers: list[str] = []
    merged_top = root / "m"
    merged_top.mkdir()

    def layer(name: str) -> str:
        for directory in (root / name, root / name / "t", root / name / "w"):
            directory.mkdir()
        return name

    def mounted(stack: Stack) -> dict[str, str]:
        overlay.mount(root, stack, merged_top)
        try:
            return listing(merged_top)
        finally:
            overlay.unmount(merged_top, seconds=5)

    lowers.append(layer("base"))
    for index in range(6):
        upper = layer(f"u{index}")
        overlay.mount(root, Stack(upper, tuple(lowers)), merged_top)
        for step in range(12):
            change_something(merged_top, choice, index * 100 + step)
        seen = listing(merged_top)
        overlay.unmount(merged_top, seconds=5)
        lowers.insert(0, upper)
        trees = [root / name / "t" for name in lowers]
        assert read_stack(trees) == seen
        assert layers.apparent_bytes(trees) == sum(len(text) for text in seen.values())

    start = choice.randint(0, 2)
    end = choice.randint(start + 2, len(lowers))
    job = tree.Job(tree.copy, None, threading.Event())
    (root / "merged" / "w").mkdir(parents=True)
    layers.merge([root / name / "t" for name in lowers[start:end]], root / "merged" / "t", job)
    shorter = Stack(layer("top"), (*lowers[:start], "merged", *lowers[end:]))
    assert mounted(shorter) == seen


@pytest.mark.anyio
@pytest.mark.root
async def test_many_generations_are_merged_in_the_background_and_lose_nothing(root, seed, data_owner):
    volumes = open_volumes(root, driver="overlay", owner=data_owner, reserve_bytes=0)
    await volumes.import_seed("main", seed)
    longest = 0
    for number in range(2 * plan.SOFT_LAYERS):
        data = (await volumes.open("main")).data_dir
        (data / "base" / f"f{number}").write_text(str(number))
        (data / "base" / "last").write_text(str(number))
        (data / "base" / f"f{number - 3}").unlink(missing_ok=True)
        await volumes.clone("main", "dev", backup=None)
        longest = max(longest, len(overlay.read_stack(root / "volumes/main").lowers))
        assert (await volumes.open("dev")).data_dir.joinpath("base/last").read_text() == str(number)
        await volumes.delete("dev")
        await settled(volumes)
    left = overlay.read_stack(root / "volumes/main").lowers
    assert longest <= plan.SOFT_LAYERS + 3
    assert len(left) <= plan.SOFT_LAYERS + 3
    base = (await volumes.open("main")).data_dir / "base"
    last = 2 * plan.SOFT_LAYERS - 1
    assert sorted(path.name for path in base.glob("f*")) == sorted(f"f{last - back}" for back in range(3))
    await volumes.close("main")
    await volumes.delete("main")
    await settled(volumes)
    assert list((root / "layers").iterdir()) == []
    await volumes.shutdown()
    assert not linux.is_mounted(base.parent)


@pytest.mark.anyio
async def test_a_crash_in_the_middle_of_a_freeze_is_mended_from_the_stack(root, seed, data_owner):
    """`layers.json` decides; options that do not fit it would let a postmaster write to a frozen layer."""
    volumes = open_volumes(root, driver="overlay", owner=data_owner, reserve_bytes=0)
    await volumes.import_seed("main", seed)
    options = root / "volumes/main/options"
    right = await asyncio.to_thread(options.read_text)
    await asyncio.to_thread(options.write_text, "lowerdir=old")
    assert await volumes.recover() == ["Wrote the mount options of volume main again."]
    assert await asyncio.to_thread(options.read_text) == right
    await asyncio.to_thread((root / "volumes/main/layers.json").write_text, "{")
    with pytest.raises(StorageError, match=r"layers\.json"):
        await volumes.recover()
    await volumes.shutdown()


async def settled(volumes):
    """Wait for what goes on in the background, so that the next step finds it done."""
    while volumes._background:
        await asyncio.wait(set(volumes._background))
