"""Decisions of storage: names, what a clone leaves out, WAL ranges, the reserve, layers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.storage import plan
from lamplighter.storage.errors import InvalidVolumeId, StorageError, WalMissing
from lamplighter.storage.plan import Scope, Stack

IDS = st.text("0123456789abcdef", min_size=8, max_size=8)
LAYERS = st.lists(IDS, min_size=1, max_size=60, unique=True)
SEGMENT_BYTES = st.sampled_from([2**20 * 2**power for power in range(11)])


# --- names


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True))
def test_an_id_is_kept_as_it_is(volume_id):
    assert plan.check_volume_id(volume_id) == volume_id


@given(st.text(max_size=140))
def test_what_passes_as_an_id_is_one_plain_name(text):
    try:
        plan.check_volume_id(text)
    except InvalidVolumeId:
        return
    assert text.isascii()
    assert not text.startswith((".", "-"))
    assert "/" not in text
    assert 0 < len(text) <= 128


# --- what a clone leaves out

RELATION = ["16384", "16384.1", "16384_fsm", "16384_vm", "16384_vm.1"]


@pytest.mark.parametrize(
    ("file", "asleep", "backup"),
    [
        ("PG_VERSION", False, False),
        ("base/5/1259", False, False),
        ("postmaster.pid", True, True),
        ("postmaster.opts", True, True),
        ("base/postmaster.pid", False, False),
        ("global/pg_control", False, True),
        ("pg_wal/000000010000000000000001", False, True),
        ("backup_label", False, True),
        ("tablespace_map", False, True),
        ("base/5/pg_internal.init", False, True),
        ("base/5/pg_internal.init.1234", False, True),
        ("base/pgsql_tmp/pgsql_tmp1.0", False, True),
        ("postgresql.auto.conf", False, False),
    ],
)
def test_a_sleeping_source_is_cloned_whole_and_a_running_one_without_what_recovery_makes(file, asleep, backup):
    assert plan.is_left_out(file, Scope.ASLEEP) is asleep
    assert plan.is_left_out(file, Scope.BACKUP) is backup


def test_slots_are_never_cloned_and_run_time_state_not_from_a_running_source():
    assert plan.is_emptied("pg_replslot", Scope.ASLEEP)
    assert not plan.is_emptied("pg_notify", Scope.ASLEEP)
    for name in ("pg_replslot", "pg_notify", "pg_dynshmem", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"):
        assert plan.is_emptied(name, Scope.BACKUP)
        assert name in plan.emptied_directories(Scope.BACKUP)
    assert not plan.is_emptied("base", Scope.BACKUP)
    assert not plan.is_emptied("pg_wal", Scope.BACKUP)


def test_of_an_unlogged_relation_only_the_init_fork_is_kept():
    names = [*RELATION, "16384_init", "16385", "163840", "PG_VERSION"]
    assert plan.unlogged_files("base/5", names) == frozenset(RELATION)
    assert plan.unlogged_files("global", names) == frozenset()


@given(st.lists(st.sampled_from([*RELATION, "1", "1_fsm", "t3_1", "PG_VERSION"]), unique=True))
def test_without_an_init_fork_nothing_is_unlogged(names):
    assert plan.unlogged_files("base/5", names) == frozenset()


# --- WAL


def name_of(timeline: int, number: int, segment_bytes: int) -> str:
    per_log = 2**32 // segment_bytes
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"


@given(
    segment_bytes=SEGMENT_BYTES,
    timeline=st.integers(1, 2**31),
    start=st.integers(0, 2**20),
    count=st.integers(1, 300),
)
def test_a_range_has_every_segment_once_and_in_order(segment_bytes, timeline, start, count):
    wanted = [name_of(timeline, number, segment_bytes) for number in range(start, start + count)]
    assert plan.wal_range(wanted[0], wanted[-1], segment_bytes=segment_bytes) == wanted
    assert wanted == sorted(wanted)


def test_after_the_last_segment_of_a_log_comes_the_first_of_the_next():
    names = plan.wal_range("0000000100000001000000FE", "000000010000000200000000", segment_bytes=2**24)
    assert [name[8:] for name in names] == ["00000001000000FE", "00000001000000FF", "0000000200000000"]


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("000000010000000000000002", "000000010000000000000001"),
        ("000000010000000000000001", "000000020000000000000002"),
        ("00000001.history", "000000010000000000000002"),
        ("", ""),
    ],
)
def test_what_is_no_range_of_one_timeline_is_refused(first, last):
    with pytest.raises(StorageError, match="no range"):
        plan.wal_range(first, last, segment_bytes=2**24)


@given(st.data())
def test_a_gap_is_always_noticed(data):
    wanted = [name_of(1, number, 2**24) for number in range(250, 260)]
    present = data.draw(st.sets(st.sampled_from([*wanted, name_of(1, 249, 2**24), "00000001.history", "summaries"])))
    missing = sorted(set(wanted) - present)
    if missing:
        with pytest.raises(WalMissing) as told:
            plan.needed_wal(present, wanted[0], wanted[-1], segment_bytes=2**24)
        assert told.value.files == tuple(missing)
    else:
        found = plan.needed_wal(present, wanted[0], wanted[-1], segment_bytes=2**24)
        assert found == [*wanted, *(name for name in present if name.endswith(".history"))]


# --- the reserve


@given(st.integers(0, 2**55))
def test_the_reserve_leaves_most_of_a_disk_and_is_never_beyond_32_gib(total):
    reserve = plan.default_reserve(total)
    assert 0 <= reserve <= total // 10
    assert reserve <= 32 * 2**30


def test_the_reserve_of_an_ordinary_disk_is_two_per_cent():
    assert plan.default_reserve(500 * 2**30) == 10 * 2**30
    assert plan.default_reserve(20 * 2**30) == 2**30


# --- layers


@given(upper=IDS, lowers=LAYERS)
def test_options_name_every_layer_in_order_and_fit_the_kernels_page(upper, lowers):
    options = plan.mount_options(Stack(upper, tuple(lowers)))
    given_options = dict(option.partition("=")[::2] for option in options.split(","))
    assert given_options["lowerdir"].split(":") == [f"{layer}/t" for layer in lowers]
    assert (given_options["upperdir"], given_options["workdir"]) == (f"{upper}/t", f"{upper}/w")
    assert "userxattr" in given_options
    assert len(options) < 4096


def test_the_most_layers_that_a_volume_may_have_fit_a_mount_and_many_more_are_refused():
    plan.mount_options(Stack("0" * 8, ("0" * 8,) * (plan.HARD_LAYERS + 1)))
    with pytest.raises(StorageError, match="500 layers"):
        plan.mount_options(Stack("0" * 8, ("0" * 8,) * 500))


@given(upper=IDS, lowers=LAYERS, new=IDS)
def test_freezing_only_puts_the_old_upper_on_top_of_the_lowers(upper, lowers, new):
    after = plan.frozen(Stack(upper, tuple(lowers)), new)
    assert after == Stack(new, (upper, *lowers))


@given(lowers=LAYERS, limit=st.integers(1, 40))
def test_merging_keeps_the_lowest_layer_and_shortens_the_stack(lowers, limit):
    run = plan.run_to_merge(lowers, limit=limit)
    if run is None:
        assert len(lowers) <= max(limit, 2)
        return
    assert (*run, lowers[-1]) == tuple(lowers)
    assert plan.with_merged(Stack("upper", tuple(lowers)), run, "merged") == Stack("upper", ("merged", lowers[-1]))


@given(lowers=LAYERS, data=st.data())
def test_a_merged_layer_takes_the_place_of_exactly_its_run(lowers, data):
    start = data.draw(st.integers(0, len(lowers) - 1))
    end = data.draw(st.integers(start + 1, len(lowers)))
    after = plan.with_merged(Stack("u", tuple(lowers)), lowers[start:end], "merged")
    assert after == Stack("u", (*lowers[:start], "merged", *lowers[end:]))


@given(lowers=LAYERS, run=st.lists(IDS, max_size=3))
def test_a_run_that_is_not_there_is_not_replaced(lowers, run):
    joined = " ".join(lowers)
    if run and " ".join(run) in joined:
        return
    assert plan.with_merged(Stack("u", tuple(lowers)), run, "merged") is None


STACKS = st.lists(
    st.builds(
        Stack, upper=IDS, lowers=st.lists(st.sampled_from([f"{n:08x}" for n in range(9)]), max_size=5).map(tuple)
    ),
    max_size=6,
)


@given(stacks=STACKS, pending=st.sets(st.sampled_from([f"{n:08x}" for n in range(9)])))
def test_a_layer_is_unused_when_and_only_when_nobody_needs_it(stacks, pending):
    everything = {f"{n:08x}" for n in range(12)}.union(*(stack.layers for stack in stacks))
    unused = set(plan.unused_layers(everything, stacks, pending=pending))
    needed = pending.union(*(stack.layers for stack in stacks))
    assert unused | needed >= everything
    assert not unused & needed


@given(stacks=STACKS.filter(bool))
def test_the_layers_of_one_volume_alone_are_what_deleting_it_frees(stacks):
    volumes = {str(number): stack for number, stack in enumerate(stacks)}
    everything = frozenset[str]().union(*(stack.layers for stack in stacks))
    freed = plan.unused_layers(everything, [s for name, s in volumes.items() if name != "0"], pending=())
    assert sorted(set(plan.only_used_by("0", volumes))) == freed


# --- drivers


@given(st.sets(st.sampled_from(plan.DRIVERS)))
def test_the_best_driver_that_works_is_chosen(usable):
    chosen = plan.choose_driver(usable)
    assert chosen in usable | {"copy"}
    assert all(plan.DRIVERS.index(chosen) <= plan.DRIVERS.index(driver) for driver in usable)
