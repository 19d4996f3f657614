"""The probe finds out by doing what each driver needs, and leaves nothing behind."""

from __future__ import annotations

import subprocess

import pytest

from lamplighter.storage import init_pool, open_volumes
from lamplighter.storage.errors import DriverUnavailable
from lamplighter.storage.probe import probe


def test_plain_copies_always_work_and_what_does_not_work_has_a_reason(root, data_owner):
    report = probe(root, data_owner, files=20)
    assert [result.driver for result in report.drivers] == ["btrfs", "reflink", "overlay", "copy"]
    assert report["copy"].usable
    for result in report.drivers:
        assert result.usable == (result.clone_ms is not None)
        assert result.usable == (result.why == "")
    assert report[report.chosen].usable
    assert list(root.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("fs", "works"), [("xfs", {"reflink", "overlay", "copy"}), ("btrfs", {"btrfs", "reflink", "overlay", "copy"})]
)
def test_on_a_file_system_that_shares_blocks_it_chooses_the_best_driver(root, data_owner, fs, works):
    place = init_pool(root, 400 * 2**20, fs).mount_point
    report = probe(place, data_owner, files=20)
    assert {result.driver for result in report.drivers if result.usable} == works
    assert report.filesystem == fs
    assert report.chosen == {"xfs": "reflink", "btrfs": "btrfs"}[fs]
    assert not list(place.glob(".probe*"))


def test_a_driver_that_does_not_work_here_is_refused_with_the_reason(root, data_owner):
    unusable = next(result for result in probe(root, data_owner, files=4).drivers if not result.usable)
    with pytest.raises(DriverUnavailable) as told:
        open_volumes(root, driver=unusable.driver, owner=data_owner)
    assert unusable.why in str(told.value)
    with pytest.raises(DriverUnavailable, match="there are btrfs, reflink, overlay, copy"):
        open_volumes(root, driver="floppy", owner=data_owner)


@pytest.mark.root
def test_a_file_system_without_a_place_for_a_driver_is_told_apart(root, data_owner):
    """A memory file system can neither snapshot nor share blocks."""
    (root / "memory").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(root / "memory")], check=True)
    try:
        report = probe(root / "memory", data_owner, files=4)
        assert report.filesystem == "tmpfs"
        assert report["btrfs"].why == "the file system is tmpfs"
        assert report["reflink"].why == "not supported on tmpfs"
    finally:
        subprocess.run(["umount", str(root / "memory")], check=True)
