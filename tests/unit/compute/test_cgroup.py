"""Limits of memory and CPU: decided from facts, written as files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute.cgroup import (
    CgroupFacts,
    CgroupHome,
    Cgroups,
    find_home,
    limits_of,
    parse_mount,
    parse_own,
    probe,
)

HYBRID = """\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_the_mount_is_found_and_our_own_cgroup():
    assert parse_mount(HYBRID) == Path("/sys/fs/cgroup/unified")
    assert parse_mount(HYBRID.replace("cgroup2", "cgroup")) is None
    assert parse_own("4:memory:/x\n0::/user.slice/a\n") == "/user.slice/a"
    assert parse_own("4:memory:/x\n") is None


def test_reasons_are_said_when_there_are_no_limits():
    assert "no cgroup v2" in find_home(CgroupFacts(None), "lamp").why
    hybrid = find_home(CgroupFacts(Path("/c"), Path("/c"), (), writable=True), "lamp")
    assert (hybrid.directory, "memory, cpu" in hybrid.why) == (None, True)
    foreign = find_home(CgroupFacts(Path("/c"), Path("/c/a"), ("memory", "cpu"), writable=False), "lamp")
    assert (foreign.directory, "/c/a" in foreign.why) == (None, True)
    ours = find_home(CgroupFacts(Path("/c"), Path("/c/a"), ("cpu", "memory", "io"), writable=True), "lamp")
    assert ours.directory == Path("/c/a/lamp")


@given(st.floats(0.25, 56), st.floats(0.25, 56))
def test_limits_follow_the_size(one, other):
    small, large = limits_of(min(one, other)), limits_of(max(one, other))
    assert int(small.memory_max) <= int(large.memory_max)
    assert int(small.memory_high) < int(small.memory_max)
    assert int(small.cpu_max.split()[0]) <= int(large.cpu_max.split()[0])


def test_one_unit_is_one_cpu_and_four_gigabytes():
    limits = limits_of(1)
    assert (limits.memory_max, limits.cpu_max) == (str(4 * 1024**3), "100000 100000")


def test_files_are_written_and_the_cgroup_removed(tmp_path):
    groups = Cgroups(find_home(CgroupFacts(tmp_path, tmp_path, ("memory", "cpu"), writable=True), "lamp"))
    assert groups.prepare().directory == tmp_path / "lamp"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +cpu"
    assert groups.confine("abc", 17, limits_of(0.5)) is None
    assert (tmp_path / "lamp" / "abc" / "cgroup.procs").read_text() == "17"
    assert (tmp_path / "lamp" / "abc" / "memory.max").read_text() == str(2 * 1024**3)


def test_what_the_kernel_refuses_turns_limits_off_with_the_reason(tmp_path):
    groups = Cgroups(CgroupHome(tmp_path / "missing" / "lamp", "yes"))
    assert groups.prepare().directory is None
    assert "No such file" in groups.home.why
    assert groups.confine("abc", 17, limits_of(1)) is None
    groups.remove("abc")
    broken = Cgroups(CgroupHome(tmp_path / "missing" / "lamp", "yes"))
    assert "no limits for abc" in broken.confine("abc", 17, limits_of(1))


def test_this_host_can_be_probed():
    assert find_home(probe(), "lamp").why
