"""A rotation is killed at every point, and killed again while it recovers: no sink is ever without a working key, and
no key is left that nobody knows.

Every single kill is always tried. Of kills in the recovery, and at moments of chance, there is a sample, another one
every day: LAMP_KILL_SEED=2026-01-31 is that of a day, LAMP_KILL_MATRIX=full tries all.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

import pytest

from faults.keys.observer import Observer, observing
from faults.keys.scenes import KILLED, LINEAGE, Scene, Worker, worker
from lamplighter.keys.journal import Journal

pytestmark = pytest.mark.timeout(900)

#: One to three sinks that can be read (R) or cannot (W).
KINDS = ("R", "W", "RR", "RW", "WW", "RRW", "RWW", "WWW")
#: Answers that the server keeps back, after it did what was asked.
DROPS = ((), ("POST",), ("DELETE",), ("POST", "DELETE"))
POOL = 2
#: More than any rotation has; reaching it is a failure.
MOST_POINTS = 200
FULL = os.environ.get("LAMP_KILL_MATRIX") == "full"
SEED = os.environ.get("LAMP_KILL_SEED") or f"{datetime.now(UTC):%Y-%m-%d}"

#: What a scenario found wrong, None where the process ended before its point was reached.
Found = list[str] | None


class Matrix:
    """Runs scenarios side by side, each in a directory of its own."""

    def __init__(self, directory: Path, observer: Observer, workers: list[Worker]) -> None:
        self._directory = directory
        self._observer = observer
        self._workers: SimpleQueue[Worker] = SimpleQueue()
        for each in workers:
            self._workers.put(each)
        self._numbers = itertools.count()

    def scene(self, one: Worker, *, kinds: str, drops: tuple[str, ...] = ()) -> Scene:
        return Scene(self._directory / str(next(self._numbers)), self._observer, one, kinds=kinds, drops=drops)

    def run(self, jobs: list[Callable[[Worker], Iterator[Found]]]) -> tuple[int, list[str]]:
        """How many scenarios there were, and everything that was wrong."""

        def run(job: Callable[[Worker], Iterator[Found]]) -> list[list[str]]:
            one = self._workers.get()
            try:
                return [each for each in job(one) if each is not None]
            finally:
                self._workers.put(one)

        with ThreadPoolExecutor(POOL) as pool:
            found = [each for part in pool.map(run, jobs) for each in part]
        return len(found), [problem for each in found for problem in each]


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    # In memory, where there is such a place: what a killed process wrote stays there as on a disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="lamp-keys-", dir=memory) as directory,
        observing() as observer,
        worker() as first,
        worker() as second,
    ):
        matrix = Matrix(Path(directory), observer, [first, second])
        for one in (first, second):
            assert matrix.scene(one, kinds="R").go("run") == 0
        yield matrix


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Tells how many scenarios there were, in every run of the tests."""

    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return say


def settle(scene: Scene, what: str) -> list[str]:
    """Recover without being killed; everything that is wrong then, with what happened."""
    status = scene.go("recover")
    problems = scene.problems() if status == 0 else [f"recover ended with {status}", *scene.problems()]
    return [f"{what}: {problem}\n{scene.log()}" for problem in problems]


def once(matrix: Matrix, one: Worker, kinds: str, drops: tuple[str, ...]) -> Iterator[Found]:
    """Killed at the first point, at the second, and so on, until a run has no such point any more."""
    for point in range(1, MOST_POINTS):
        scene = matrix.scene(one, kinds=kinds, drops=drops)
        status = scene.go("run", fault=f"keys.*:{point}")
        what = f"{kinds} {drops} killed at {point}"
        if status != KILLED:
            ended = [] if status == 0 else [f"{what}: ended with {status}\n{scene.log()}"]
            yield ended + settle(scene, what)
            return
        yield settle(scene, what)
    yield [f"{kinds} {drops} has no end"]


def twice(matrix: Matrix, one: Worker, pair: Pair, first: int, seconds: Iterable[int]) -> Iterator[Found]:
    """Killed at point `first`, then in its recovery at each of `seconds`, which go up."""
    kinds, drops = pair
    for second in seconds:
        scene = matrix.scene(one, kinds=kinds, drops=drops)
        if scene.go("run", fault=f"keys.*:{first}") != KILLED:
            return
        what = f"{kinds} {drops} killed at {first}, then at {second}"
        if scene.go("recover", fault=f"keys.*:{second}") != KILLED:
            # Recovered without reaching it: as after one kill.
            return
        yield settle(scene, what)
    yield [f"{kinds} killed at {first} has no end"]


def test_killed_once_at_every_point(matrix: Matrix, say: Callable[[str], None]) -> None:
    """Whatever the sinks, and whichever answers are lost: recovery finishes the rotation or undoes it."""
    jobs = [lambda one, kinds=kinds, drops=drops: once(matrix, one, kinds, drops) for kinds in KINDS for drops in DROPS]
    count, problems = matrix.run(jobs)
    say(f"{count} rotations killed once")
    assert problems == []
    assert count >= 900


#: Sinks, and answers that are lost.
Pair = tuple[str, tuple[str, ...]]
PAIRS: tuple[Pair, ...] = (("WW", ()), ("RW", ()), ("RR", ()), ("WW", ("POST",)), ("RW", ("DELETE",)))
FIRST_POINTS = range(1, 45)
#: Of a sample: with how many first points for each pair, and of how many second points one.
SAMPLE, STRIDE = 16, 8


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join((pair[0], *pair[1])))
def test_killed_again_in_the_recovery(matrix: Matrix, say: Callable[[str], None], pair: Pair) -> None:
    """A second kill at any point of the recovery leaves no more behind than the first."""
    chance = random.Random(f"twice {pair} {SEED}")
    firsts = FIRST_POINTS if FULL else chance.sample(FIRST_POINTS, SAMPLE)
    stride = 1 if FULL else STRIDE
    begun = [(first, range(chance.randint(1, stride), MOST_POINTS, stride)) for first in firsts]
    jobs = [lambda one, each=each: twice(matrix, one, pair, *each) for each in begun]
    count, problems = matrix.run(jobs)
    say(f"{count} rotations to {pair} killed twice, {'all that there are' if FULL else f'the sample {SEED}'}")
    assert problems == []
    assert count >= (200 if FULL else 4)


def test_killed_at_any_moment(matrix: Matrix, say: Callable[[str], None]) -> None:
    """Points are where we thought of a crash; these come whenever they come, three in a row."""
    chance = random.Random(f"moments {SEED}")

    def job(one: Worker, kinds: str, moments: list[float]) -> Iterator[Found]:
        scene = matrix.scene(one, kinds=kinds)
        for moment, mode in zip(moments, ("run", "recover", "recover"), strict=True):
            # The server may still be at work on what the killed process asked for.
            scene.go(mode, kill_after=moment, settle=0.5)
        yield settle(scene, f"{kinds} killed after {moments}")

    times = 10 if FULL else 2
    moments = [(kinds, [chance.uniform(0.005, 0.08) for _ in range(3)]) for kinds in KINDS for _ in range(times)]
    jobs = [lambda one, kinds=kinds, times=times: job(one, kinds, times) for kinds, times in moments]
    count, problems = matrix.run(jobs)
    say(f"{count} rotations killed at any moment, the sample {SEED}")
    assert problems == []
    assert count == times * len(KINDS)


def test_answers_that_never_come_do_not_stop_a_rotation(matrix: Matrix) -> None:
    """A lost answer to POST costs another key, one to DELETE another look: the old key is replaced all the same."""

    def job(one: Worker, kinds: str, drops: tuple[str, ...]) -> Iterator[Found]:
        scene = matrix.scene(one, kinds=kinds, drops=drops)
        assert scene.go("run") == 0, scene.log()
        replaced = [] if not scene.old.value or scene.old.id not in scene.world.live else ["the old key is live"]
        yield replaced + scene.problems()

    drops = [*DROPS, ("DELETE", "DELETE")]
    jobs = [lambda one, kinds=kinds, lost=lost: job(one, kinds, lost) for kinds in ("R", "WW") for lost in drops]
    assert matrix.run(jobs) == (10, [])


def test_a_rotation_that_gets_no_answer_at_all_leaves_no_key(matrix: Matrix) -> None:
    """Neon takes every POST and answers none: a clear end, the old key in place, no other alive."""

    def job(one: Worker) -> Iterator[Found]:
        scene = matrix.scene(one, kinds="RW", drops=("POST",) * 9)
        assert scene.go("run") == 3, scene.log()
        assert "MintUnknown" in scene.log()
        yield scene.problems()

    assert matrix.run([job]) == (1, [])


def test_one_rotation_at_a_time_on_a_machine(matrix: Matrix) -> None:
    """Whoever comes second is told so, and does nothing."""

    def job(one: Worker) -> Iterator[Found]:
        scene = matrix.scene(one, kinds="RW")
        with Journal(scene.world.state_dir):
            assert scene.go("run") == 3
        assert "Busy" in scene.log()
        assert not scene.world.names
        yield scene.problems()

    assert matrix.run([job]) == (1, [])


def test_a_key_of_another_machine_stops_the_rotation(matrix: Matrix) -> None:
    """A live key of this lineage that the journal does not know belongs to somebody: nothing is minted."""

    def job(one: Worker) -> Iterator[Found]:
        scene = matrix.scene(one, kinds="RW")
        scene.world.make(f"lamp.{LINEAGE}.aaaaaaaaaa")
        assert scene.go("run") == 3
        assert "Busy" in scene.log()
        yield [] if not scene.world.names else ["a key was minted"]

    assert matrix.run([job]) == (1, [])
