"""What a postmaster that was killed leaves in the host's shared memory."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from lamplighter.compute import process, shm


def segment_of(spec):
    """The one that the postmaster has noted, as (pid, shmid)."""
    found = shm.parse_lock_file((spec.data_dir / "postmaster.pid").read_text())
    assert found is not None
    return found


def find(shmid):
    """It as it is now; None when it is gone."""
    every = shm.parse_segments(Path("/proc/sysvipc/shm").read_text())
    return next((one for one in every if one.shmid == shmid), None)


def kill_whole(pid, data_dir):
    """Kill a postmaster and its children, none of which can clean up; the event loop hears of nothing meanwhile."""
    everybody = [each.pid for each in process.on_directory(process.postgres_processes(), data_dir)]
    assert pid in everybody
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for each in everybody:
            # A worker may have ended by itself meanwhile.
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process.kill_all(each for each in everybody if each != pid) == []


async def killed(house):
    """A supervisor whose compute was killed a moment ago, that compute, its pid and the segment that it has left."""
    supervisor = house.supervisor()
    spec = house.spec()
    await supervisor.start(spec)
    pid, shmid = segment_of(spec)
    kill_whole(pid, spec.data_dir)
    assert find(shmid).attached == 0
    return supervisor, spec, pid, shmid


async def test_a_postmaster_that_was_killed_with_its_children_leaves_no_segment(house, until):
    supervisor, spec, _pid, shmid = await killed(house)
    await until(lambda: house.crashes)
    assert supervisor.status(spec.id).state == "crashed"
    assert find(shmid) is None


async def test_a_stop_that_finds_it_killed_leaves_no_segment(house):
    supervisor, spec, _pid, shmid = await killed(house)
    await supervisor.stop(spec.id)
    assert find(shmid) is None


async def test_one_that_was_killed_while_nobody_watched_leaves_no_segment(house):
    first, spec, _pid, shmid = await killed(house)
    await first.close()
    second = house.supervisor()
    (status,) = await second.adopt()
    assert (status.id, status.state) == (spec.id, "crashed")
    assert find(shmid) is None


async def test_segments_that_are_in_use_or_another_ones_stay(house):
    supervisor, one, other = house.supervisor(), house.spec("ep-one"), house.spec("ep-other")
    for spec in (one, other):
        await supervisor.start(spec)
    found = [segment_of(spec) for spec in (one, other)]
    for (pid, _), spec in zip(found, (one, other), strict=True):
        since = supervisor.status(spec.id).started_at
        assert shm.remove_left_by(pid, uid=house.owner.uid, since=since, data_dir=spec.data_dir) == []
    kill_whole(found[0][0], one.data_dir)
    await supervisor.stop(one.id)
    assert [find(shmid) is None for _, shmid in found] == [True, False]


@pytest.mark.parametrize("visible", [True, False])
async def test_the_segment_is_known_by_the_lock_file_or_by_its_maker(house, visible):
    """Where nobody but the namespace sees the directory, the pid and the time have to do."""
    supervisor, spec, pid, shmid = await killed(house)
    data_dir = spec.data_dir if visible else house.place / "nowhere"
    since = supervisor.status(spec.id).started_at
    uid = house.owner.uid
    assert shm.remove_left_by(pid, uid=uid, since=since + 60, data_dir=data_dir) == []
    assert shm.remove_left_by(pid, uid=uid + 1, since=since, data_dir=data_dir) == []
    assert shm.remove_left_by(pid, uid=uid, since=since, data_dir=data_dir) == [shmid]
    assert find(shmid) is None


async def test_where_the_lock_file_is_of_another_postmaster_nothing_is_removed(house):
    """By then the pid may be that of a stranger who has made a segment too."""
    supervisor, spec, pid, shmid = await killed(house)
    since, lock = supervisor.status(spec.id).started_at, spec.data_dir / "postmaster.pid"
    words = lock.read_text()

    def left():
        return shm.remove_left_by(pid, uid=house.owner.uid, since=since, data_dir=spec.data_dir)

    lock.write_text(words.replace(str(pid), str(pid + 1), 1))
    assert left() == []
    lock.unlink()
    assert left() == []
    lock.write_text(words)
    assert left() == [shmid]
