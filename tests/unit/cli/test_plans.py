"""What is decided apart from doing it: signals, leftovers, drivers, locks, ports, mounts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.serving import SIGNALLED, Act, Phase
from lamplighter.platform.checkup import HostFacts, choice, host_problems, overlap
from lamplighter.platform.inspect import ComputeFacts, Known, flock_holders
from lamplighter.platform.leftovers import Found, Postmaster, judge, mounts_below
from lamplighter.storage.probe import DriverProbe, ProbeReport


class TestSignals:
    def test_every_phase_knows_what_to_do(self) -> None:
        assert set(SIGNALLED) == set(Phase)

    @given(st.sampled_from([Phase.STARTING, Phase.RUNNING]), st.integers(1, 20))
    def test_the_start_is_cancelled_once_and_leaving_takes_three(self, begin: Phase, times: int) -> None:
        """However often it is pressed: a second cancellation would cut off the clean-up after the first."""
        phase, acts = begin, []
        for _ in range(times):
            act, phase = SIGNALLED[phase]
            acts.append(act)
        assert sum(act in (Act.CANCEL, Act.STOP) for act in acts) == 1
        assert acts[1:2] in ([], [Act.EXPLAIN])
        assert all(act is Act.LEAVE for act in acts[2:])


def compute(name: str, *, alive: bool = True, pid: int = 7) -> ComputeFacts:
    return ComputeFacts(name, alive, pid if alive else None, None, 17, f"/d/storage/volumes/{name}/data")


def kinds(found: Found) -> list[tuple[str, str]]:
    return [(one.kind, one.what.split()[0]) for one in judge(found)]


KNOWN = Known({"ep-on": True, "ep-off": False}, frozenset({"br-a"}))


class TestLeftovers:
    def test_a_platform_in_order_has_none(self) -> None:
        found = Found(
            running=True,
            computes=(compute("catalog"), compute("ep-on", pid=8), compute("br-a", pid=9)),
            postmasters=(Postmaster(7, "/d"), Postmaster(8, "/d"), Postmaster(9, "/d")),
            volumes=("br-a", "ep-off"),
            half_made=("br-b",),
            trash=3,
            mounts=("/d/storage/volumes/br-a/data", "/d/storage/pool"),
            pool_mount="/d/storage/pool",
            loops=(("/dev/loop0", "/d/storage/pool.img"),),
            known=KNOWN,
        )
        assert judge(found) == []

    def test_a_stopped_platform_in_order_has_none(self) -> None:
        assert judge(Found(running=False, volumes=("br-a",))) == []

    def test_computes_that_nobody_asked_for(self) -> None:
        found = Found(running=True, computes=(compute("ep-off"), compute("ep-gone", pid=8)), known=KNOWN)
        assert kinds(found) == [("compute", "ep-off"), ("compute", "ep-gone")]

    def test_without_the_catalog_nobody_is_accused(self) -> None:
        assert judge(Found(running=True, computes=(compute("ep-gone"),), volumes=("br-x",), known=None)) == []

    def test_volumes_of_no_branch(self) -> None:
        assert kinds(Found(running=True, volumes=("br-a", "br-x"), known=KNOWN)) == [("volume", "br-x")]

    def test_a_postmaster_without_a_record(self) -> None:
        found = Found(running=True, computes=(compute("ep-on"),), postmasters=(Postmaster(99, "/d/x"),), known=KNOWN)
        assert kinds(found) == [("process", "process")]

    def test_what_a_crash_left(self) -> None:
        found = Found(
            running=False,
            computes=(compute("ep-on"), compute("ep-off", alive=False)),
            half_made=("br-b",),
            trash=2,
            mounts=("/d/storage/volumes/br-a/data",),
        )
        assert kinds(found) == [("compute", "ep-on"), ("compute", "ep-off"), ("volume", "br-b"), ("trash", "2")]

    def test_gateways_without_a_platform(self) -> None:
        assert kinds(Found(running=False, gateways=(5, 6))) == [("gateway", "process"), ("gateway", "process")]
        # One that drains belongs to a platform that runs.
        assert judge(Found(running=True, gateways=(5, 6))) == []

    def test_mounts_on_which_nothing_runs(self) -> None:
        found = Found(running=False, mounts=("/d/storage/pool", "/d/x"), pool_mount="/d/storage/pool")
        assert kinds(found) == [("mount", "/d/x")]

    def test_a_loop_device_whose_pool_is_not_mounted(self) -> None:
        found = Found(running=False, pool_mount="/d/storage/pool", loops=(("/dev/loop3", "/d/storage/pool.img"),))
        assert kinds(found) == [("loop device", "/dev/loop3")]

    def test_a_run_directory_whose_data_is_gone(self) -> None:
        (one,) = judge(Found(running=False, gone=(("/run/lamplighter/x", (5, 6)),)))
        assert "processes [5, 6] still run" in one.what
        assert "kill -INT 5 6" in one.do


def report(*usable: str) -> ProbeReport:
    drivers = tuple(DriverProbe(name, name in usable) for name in ("btrfs", "reflink", "overlay", "copy"))
    return ProbeReport(Path("/d"), "ext4", 4, drivers, next(one.driver for one in drivers if one.usable))


class TestDriver:
    def test_the_best_that_works(self) -> None:
        assert choice(report("overlay", "copy"), recorded=None, asked=None)[0] == "overlay"

    def test_what_was_asked_for(self) -> None:
        assert choice(report("overlay", "copy"), recorded=None, asked="copy") == ("copy", "it was asked for")

    def test_what_made_the_volumes_stays(self) -> None:
        chosen, why = choice(report("btrfs", "overlay", "copy"), recorded="overlay", asked="copy")
        assert chosen == "overlay"
        assert "btrfs would work too" in why


class TestHost:
    HOST = HostFacts("x", "6.1", "3.12", 2, 1, "root", "lamplighter", {"setpriv": "/x", "useradd": None}, "")

    def test_root_with_a_user_to_run_as(self) -> None:
        assert host_problems(self.HOST, root=True) == []

    def test_root_without_setpriv(self) -> None:
        (problem,) = host_problems(replace(self.HOST, programs={"setpriv": None, "useradd": "/x"}), root=True)
        assert "util-linux" in problem.do

    def test_root_that_cannot_make_the_user(self) -> None:
        (problem,) = host_problems(replace(self.HOST, run_as="lamplighter (the first ...)"), root=True)
        assert "useradd" in problem.what

    def test_a_user_without_a_name(self) -> None:
        (problem,) = host_problems(replace(self.HOST, user="1234"), root=False)
        assert "1234" in problem.what


def test_locks_of_one_file_alone() -> None:
    """Also when another kind of lock lies on it, or a waiter is listed below the holder."""
    locks = (
        "1: FLOCK  ADVISORY  WRITE 4711 fd:01:123 0 EOF\n"
        "1: -> FLOCK  ADVISORY  WRITE 4712 fd:01:123 0 EOF\n"
        "2: POSIX  ADVISORY  WRITE 99 fd:01:123 0 EOF\n"
        "3: FLOCK  ADVISORY  WRITE 98 fd:01:1234 0 EOF\n"
        "4: FLOCK  ADVISORY  WRITE -1 fd:01:123 0 EOF\n"
    )
    assert flock_holders(locks, 123) == [4711]


def test_mounts_below_a_directory() -> None:
    """Names with blanks are read as they are; a directory of which ours is a beginning is not meant."""
    info = (
        "36 35 98:0 / /d/a rw - ext4 /dev/x rw\n"
        "37 35 98:0 / /d/with\\040blank rw - overlay overlay rw\n"
        "38 35 98:0 / /dd/a rw - ext4 /dev/x rw\n"
        "39 35 98:0 / /d rw - ext4 /dev/x rw\n"
    )
    assert mounts_below(info, Path("/d")) == ["/d/a", "/d/with blank"]


@pytest.mark.parametrize(
    ("ports", "outgoing", "said"),
    [
        ((20000, 29999), (32768, 60999), ""),
        ((20000, 40000), (32768, 60999), "32768 to 40000"),
        ((20000, 29999), (1024, 65535), "20000 to 29999"),
    ],
)
def test_overlapping_ports(ports: tuple[int, int], outgoing: tuple[int, int], said: str) -> None:
    assert overlap(ports, outgoing).startswith(said)
    assert bool(overlap(ports, outgoing)) == bool(said)
