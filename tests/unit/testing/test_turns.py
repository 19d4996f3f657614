"""Turns: one holder at a time for one file, and no waiting without one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lamplighter.testing.turns import Turns


def test_one_holder_at_a_time(tmp_path):
    """Each worker has its own `Turns` on the same file, as in processes of their own."""
    inside: list[int] = []
    most: list[int] = []
    start = threading.Barrier(6)

    def work(number: int) -> None:
        turns = Turns(tmp_path / "turn")
        start.wait(10)
        for _ in range(20):
            with turns.take():
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))

    assert len(most) == 120
    assert max(most) == 1


def test_an_error_gives_the_turn_back(tmp_path):
    turns = Turns(tmp_path / "turn")
    with pytest.raises(ValueError, match="broken"), turns.take():
        raise ValueError("broken")

    with turns.take():
        assert (tmp_path / "turn").exists()


def test_without_a_file_nobody_waits():
    turns = Turns()
    with turns.take(), turns.take():
        pass
