"""A disk without room for the journal: found out before anything is done, or what was begun is still written down."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from faults.keys.observer import observing
from faults.keys.scenes import Scene, worker
from lamplighter.keys import records as rec
from lamplighter.keys.errors import JournalFull
from lamplighter.keys.journal import FILE, RESERVE_BYTES, Journal, read_journal
from lamplighter.keys.records import Scope, write_record

AT = datetime(2026, 1, 1, tzinfo=UTC)


def intent(rid: str) -> rec.MintIntent:
    scope = Scope(kind="personal")
    return rec.MintIntent(at=AT, lineage="ci", rid=rid, name=f"lamp.ci.{rid}", scope=scope, sinks=(), soak=0, timeout=1)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The kernel's own limit: a write beyond it fails, or is cut short, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_for_the_reserve_no_intent_is_written(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        with no_file_longer_than(RESERVE_BYTES - 1), pytest.raises(JournalFull):
            journal.append(intent("a"))
        assert read_journal(tmp_path) == ()
        journal.append(intent("a"))
    assert read_journal(tmp_path) == (intent("a"),)


@pytest.mark.parametrize("room", range(0, len(write_record(intent("b"))), 20))
def test_a_line_that_does_not_fit_leaves_no_part_of_itself(tmp_path: Path, room: int) -> None:
    with Journal(tmp_path) as journal:
        journal.append(intent("a"))
        size = (tmp_path / FILE).stat().st_size
        # The reserve is there already: only the journal has to grow.
        with no_file_longer_than(size + room), pytest.raises(JournalFull):
            journal.append(intent("b"))
        assert (tmp_path / FILE).stat().st_size == size
        journal.append(intent("c"))
    assert read_journal(tmp_path) == (intent("a"), intent("c"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> None:
    """Not one block is left."""

    def cram(size: int) -> None:
        while file.write(b"x" * size):
            pass

    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with pytest.raises(OSError, match="No space"):
                cram(size)


@pytest.mark.root
def test_on_a_full_disk_nothing_is_minted(small_disk: Path) -> None:
    """The journal is found to have no room before Neon hears of anything; with room the rotation runs."""
    with observing() as observer, worker() as one:
        # What this worker does first, it does itself.
        assert Scene(small_disk / "warm", observer, one, kinds="R").go("run") == 0
        scene = Scene(small_disk / "scene", observer, one, kinds="R")
        (scene.world.state_dir / "reserve").unlink(missing_ok=True)
        fill(small_disk)
        assert scene.go("run", log=os.devnull) == 3
        assert not scene.world.names
        (small_disk / "filler").unlink()
        assert scene.go("run") == 0, scene.log()
        assert scene.problems() == []


@pytest.mark.root
def test_a_disk_that_fills_up_meanwhile_still_takes_what_was_done(small_disk: Path) -> None:
    """Results go into the room that was kept for them; the next intent finds none, and nothing more is done."""
    with Journal(small_disk / "state") as journal:
        journal.append(intent("a"))
        # A block that is begun has room for more lines.
        fill(small_disk)
        for number in range(1, 100):
            journal.append(rec.Minted(at=AT, lineage="ci", rid="a", key_id=number, mac="m" * 64))
        with pytest.raises(JournalFull):
            journal.append(intent("b"))
    assert len(read_journal(small_disk / "state")) == 100
