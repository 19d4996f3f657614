"""Who runs on a data directory, told by real processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamplighter.platform.errors import AlreadyRunning
from lamplighter.platform.state import STATE, clear_running, read_running, sole_platform, write_running

URL = "http://127.0.0.1:7432/api/v2"
#: Holds the directory, announces itself, and ends in order when its input ends.
PLATFORM = """
import sys
from pathlib import Path
from lamplighter.platform.state import clear_running, sole_platform, write_running

data_dir = Path(sys.argv[1])
with sole_platform(data_dir):
    write_running(data_dir, base_url=sys.argv[2], run_dir=data_dir / "run")
    print("up", flush=True)
    sys.stdin.read()
    clear_running(data_dir)
"""


@contextmanager
def platform(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the directory; ended with the block if the test has not done so."""
    process = subprocess.Popen(
        [sys.executable, "-c", PLATFORM, str(data_dir), URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def rewrite(data_dir: Path, **changes: object) -> None:
    path = data_dir / STATE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_platform_that_runs_is_found(tmp_path):
    with platform(tmp_path) as process:
        running = read_running(tmp_path)
    assert running is not None
    assert (running.pid, running.base_url, running.run_dir) == (process.pid, URL, str(tmp_path / "run"))


def test_a_second_platform_is_refused_and_told_which_is_the_first(tmp_path):
    with platform(tmp_path) as process, pytest.raises(AlreadyRunning) as refused, sole_platform(tmp_path):
        pass
    assert refused.value.data_dir == tmp_path
    assert refused.value.running is not None
    assert f"process {process.pid}, {URL}" in str(refused.value)
    assert "lamp down" in str(refused.value)


def test_a_second_platform_is_refused_while_the_first_is_still_starting(tmp_path):
    with sole_platform(tmp_path), pytest.raises(AlreadyRunning) as refused, sole_platform(tmp_path):
        pass
    assert refused.value.running is None


def test_platforms_on_two_directories_do_not_see_each_other(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with platform(tmp_path / "one"), sole_platform(tmp_path / "two"):
        assert read_running(tmp_path / "two") is None


def test_a_platform_that_ended_in_order_leaves_the_directory_free(tmp_path):
    with platform(tmp_path) as process:
        process.communicate()
    assert not (tmp_path / STATE).exists()
    with sole_platform(tmp_path):
        assert read_running(tmp_path) is None


def test_a_platform_that_was_killed_leaves_the_directory_free(tmp_path):
    with platform(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / STATE).exists()
        assert read_running(tmp_path) is None
        with sole_platform(tmp_path):
            pass


def test_a_killed_platform_that_its_parent_has_not_fetched_yet_does_not_run(tmp_path):
    with platform(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert read_running(tmp_path) is None


def test_another_process_with_the_pid_of_a_dead_platform_is_not_taken_for_it(tmp_path):
    with platform(tmp_path):
        rewrite(tmp_path, pid=os.getpid())
        assert read_running(tmp_path) is None


def test_a_process_of_an_earlier_boot_is_not_taken_for_it(tmp_path):
    with platform(tmp_path):
        running = read_running(tmp_path)
        assert running is not None
        _boot, ticks = running.birth.rsplit(":", 1)
        rewrite(tmp_path, birth=f"11111111-2222-4333-8444-555555555555:{ticks}")
        assert read_running(tmp_path) is None


def test_a_platform_is_known_after_the_hosts_clock_was_set(tmp_path):
    with platform(tmp_path) as process:
        # As if it had been written before the clock went forward: the time by which `ps` knows the process moves along.
        rewrite(tmp_path, started_at=json.loads((tmp_path / STATE).read_text())["started_at"] - 3600)
        running = read_running(tmp_path)
    assert running is not None
    assert running.pid == process.pid


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "7",
        "{}",
        '{"pid": 1}',
        '{"pid": 1, "started_at": 0, "base_url": "", "run_dir": "", "birth": "", "more": 1}',
        '{"pid": -1, "started_at": 0, "base_url": "", "run_dir": "", "birth": null}',
        '{"pid": 1e99, "started_at": 0, "base_url": "", "run_dir": "", "birth": null}',
        '{"pid": "x", "started_at": 0, "base_url": "", "run_dir": "", "birth": null}',
        '{"pid": null, "started_at": null, "base_url": null, "run_dir": null, "birth": null}',
        '{"pid": 1, "started_at": 0, "base_url": "", "run_dir": ""}',
    ],
)
def test_a_file_that_says_nothing_of_use_is_no_platform(tmp_path, content):
    (tmp_path / STATE).write_text(content)
    assert read_running(tmp_path) is None


def test_a_directory_that_is_empty_or_not_there_is_no_platform(tmp_path):
    assert read_running(tmp_path) is None
    assert read_running(tmp_path / "missing") is None
    clear_running(tmp_path)


def test_others_may_ask_where_the_api_is(tmp_path):
    before = os.umask(0o077)
    try:
        write_running(tmp_path, base_url=URL, run_dir=tmp_path / "run")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / STATE).stat().st_mode) == 0o644
    running = read_running(tmp_path)
    assert running is not None
    assert running.pid == os.getpid()
