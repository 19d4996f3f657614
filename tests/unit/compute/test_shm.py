"""What of the host's shared memory is a dead postmaster's, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lamplighter.compute.shm import Segment, left_by, parse_lock_file, parse_segments, remove

HEAD = (
    "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
    "      atime      dtime      ctime                   rss                  swap"
)
PID, UID, SINCE = 4242, 70, 1_700_000_000.6

numbers = st.integers(0, 2**31 - 1)
#: Close to each other, so that much is alike.
segments = st.lists(
    st.builds(
        Segment,
        shmid=numbers,
        creator=st.sampled_from([PID, PID + 1]),
        attached=st.integers(0, 2),
        uid=st.sampled_from([UID, 0]),
        changed_at=st.integers(int(SINCE) - 3, int(SINCE) + 3),
    ),
    unique_by=lambda one: one.shmid,
)


def line(one: Segment) -> str:
    """As the kernel writes it (ipc/shm.c)."""
    return (
        f"{-559038737:10} {one.shmid:10} {600:>4} {56:>21} {one.creator:5} {one.creator:5} {one.attached:5}"
        f" {one.uid:5} {70:5} {one.uid:5} {70:5} {0:10} {0:10} {one.changed_at:10} {4096:21} {0:21}"
    )


@given(segments)
def test_segments_are_read_as_the_kernel_writes_them(found: list[Segment]) -> None:
    assert parse_segments("\n".join([HEAD, *map(line, found)]) + "\n") == found


@given(st.text() | st.text().map(lambda text: f"{HEAD}\n{text}"))
def test_whatever_is_read_is_no_error(text: str) -> None:
    assert all(isinstance(one, Segment) for one in parse_segments(text))
    assert parse_lock_file(text) is None or text.splitlines()[6]


def test_a_kernel_with_fewer_columns_says_nothing() -> None:
    assert parse_segments("key shmid cpid\n 1 2 3\n") == []
    assert parse_segments("") == []


@given(segments)
def test_what_is_in_use_or_of_another_is_left_alone(found: list[Segment]) -> None:
    left = left_by(found, PID, uid=UID, since=SINCE, visible=False)
    assert all(one.attached == 0 and one.creator == PID and one.uid == UID for one in left)
    assert all(one.changed_at > SINCE - 2 for one in left)
    mine = Segment(2**31, PID, 0, UID, int(SINCE))
    assert left_by([*found, mine], PID, uid=UID, since=SINCE, visible=False) == [*left, mine]


@given(segments, st.data())
def test_where_the_data_can_be_seen_its_lock_file_says_which_one(found: list[Segment], data: st.DataObject) -> None:
    """One that names another postmaster, or none at all, says that nothing is left."""
    shmids = st.sampled_from([one.shmid for one in found]) if found else numbers
    lock = data.draw(st.none() | st.tuples(st.sampled_from([PID, PID + 1]), shmids))
    left = left_by(found, PID, uid=UID, since=SINCE, visible=True, lock=lock)
    every = left_by(found, PID, uid=UID, since=SINCE, visible=False)
    assert left == [one for one in every if lock == (PID, one.shmid)]


def test_what_the_kernel_does_not_remove_is_logged() -> None:
    with capture_logs() as logs:
        assert not remove(-1)
    assert logs == [
        {"event": "compute.shared_memory_kept", "log_level": "warning", "shmid": -1, "error": "Invalid argument"}
    ]


def test_a_lock_file_names_pid_and_segment() -> None:
    text = f"{PID}\n/data\n1700000000\n5432\n/run\n127.0.0.1\n  5432001    131076\nready   \n"
    assert parse_lock_file(text) == (PID, 131076)
    # As it is before there is a segment.
    assert parse_lock_file("\n".join(text.splitlines()[:5])) is None
