"""Data that only the processes of a mount namespace see, as with overlays of an ordinary user."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import pytest

from lamplighter.compute import process
from lamplighter.compute.launcher import MARKER, place_of

pytestmark = pytest.mark.root


def hide(house, name="hidden"):
    """A data directory, an empty directory to see it at, and the argv prefix that shows it there."""
    real = house.data(name)
    view = house.place / f"view-{name}"
    view.mkdir()
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return real, view, (shutil.which("unshare"), "--mount", "/bin/sh", "-c", script, "sh", str(real), str(view))


async def test_it_starts_is_seen_and_stops(house):
    supervisor = house.supervisor()
    real, view, enter = hide(house)
    spec = house.spec(data_dir=view, enter=enter)
    status = await supervisor.start(spec)
    assert list(view.iterdir()) == []
    assert (await supervisor.start(replace(spec, enter=(*enter[:2], *enter[2:])))).pid == status.pid
    backup = await supervisor.backup(spec.id)
    assert (backup.visible_data_dir / "PG_VERSION").read_text() == "17\n"
    assert (real / MARKER).read_text() == place_of(view)
    await supervisor.stop(spec.id)
    assert process.start_ticks(status.pid) is None
    assert not (real / "postmaster.pid").exists()


async def test_after_a_crash_survivors_are_ended_and_the_stale_lock_goes(house, until):
    supervisor = house.supervisor()
    real, view, enter = hide(house)
    spec = house.spec(data_dir=view, enter=enter)
    stranger = await supervisor.start(house.spec("ep-other"))
    status = await supervisor.start(spec)
    child = process.children(status.pid)[0]
    os.kill(child, signal.SIGSTOP)
    os.kill(status.pid, signal.SIGKILL)
    await until(lambda: house.crashes)
    assert process.start_ticks(child) is None
    lock = real / "postmaster.pid"
    lock.write_text(lock.read_text().replace(str(status.pid), str(stranger.pid), 1))
    assert (await supervisor.start(spec)).state == "running"


async def test_it_is_adopted_and_its_directory_is_not_given_to_another(house):
    first = house.supervisor()
    _, view, enter = hide(house)
    spec = house.spec(data_dir=view, enter=enter)
    status = await first.start(spec)
    await first.close()
    second = house.supervisor()
    assert [each.pid for each in await second.adopt()] == [status.pid]
    await second.stop(spec.id)
    assert (await second.start(spec)).state == "running"
