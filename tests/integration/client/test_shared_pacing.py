"""Pacing that all processes of a user on a machine share."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from lamplighter.api.secret import Secret
from lamplighter.client.errors import ConfigurationError
from lamplighter.client.pacing import WHOLE, Buckets, Pacer
from lamplighter.client.shared_pacing import SharedStore, file_name, own_directory
from support.scripted import Scripted, answer
from support.waiting import wait_for

URL, KEY = "http://localhost/api/v2", Secret("napi_one")


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "own"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def store(directory):
    return lambda key=KEY: SharedStore(URL, key, directory=directory)


def ready(pacer, count, route="list"):
    """Those of so many requests that may go at once; the others are given up."""
    now = time.monotonic()
    turns = [pacer.enter(route, now) for _ in range(count)]
    for turn in turns:
        if not turn.ready:
            pacer.unsent(turn, now)
    return [turn for turn in turns if turn.ready]


def test_clients_count_together(store):
    one, other, stranger = Pacer(store()), Pacer(store()), Pacer(store(Secret("napi_two")))
    assert len(ready(one, 30)) == 30
    # Some may have come in between: 40 a second. But those in flight leave no room for them.
    assert len(ready(other, 30)) == 10
    assert len(ready(stranger, 30)) == 30


def test_what_was_never_sent_is_there_for_others(store):
    one, other = Pacer(store()), Pacer(store())
    turns = ready(one, 40)
    assert ready(other, 1) == []
    for turn in turns:
        one.unsent(turn, time.monotonic())
    assert len(ready(other, 40)) == 40


def test_a_refusal_holds_all(store):
    one, other = Pacer(store()), Pacer(store())
    now = time.monotonic()
    one.refused(one.enter("list", now), now, hold=30.0)
    turn = other.enter("get", now)
    assert not turn.ready
    assert other.wait(turn, now) > 20


WORK = """
import sys
from lamplighter import Neon
with Neon(api_key="napi_shared", base_url=sys.argv[1], pacing="machine", retries=0) as neon:
    for _ in range(int(sys.argv[2])):
        neon.regions.list().page()
"""
REGIONS = {"regions": []}


def test_processes_share_a_limit(tmp_path):
    """Four processes send 120 requests of one route together, and the server, which counts, refuses none."""
    buckets, lock, statuses = Buckets(), threading.Lock(), Counter()

    def step(connection, asked):
        with lock:
            now = time.monotonic()
            levels = [buckets.of(name, now) for name in (WHOLE, asked.target)]
            good = all(level.tokens >= 1 for level in levels)
            for level in levels:
                level.tokens -= good
        statuses[200 if good else 429] += 1
        connection.sendall(answer(200, REGIONS) if good else answer(429, {"code": "", "message": "rate limit"}))

    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    with Scripted(step) as server:
        workers = [
            subprocess.Popen([sys.executable, "-c", WORK, server.url, "30"], env=environ, stderr=subprocess.PIPE)
            for _ in range(4)
        ]
        said = [worker.communicate(timeout=60)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, said
    assert statuses == {200: 120}
    (file,) = (runtime / "lamplighter").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "napi_shared" not in file.read_text() + file.name
    assert json.loads(file.read_text())["owners"] == {}


FLIES = """
import sys, time
from pathlib import Path
from lamplighter.api.secret import Secret
from lamplighter.client.pacing import Pacer
from lamplighter.client.shared_pacing import SharedStore
pacer = Pacer(SharedStore(sys.argv[1], Secret(sys.argv[2]), directory=Path(sys.argv[3])))
for _ in range(40):
    assert pacer.enter("list", time.monotonic()).ready
print("ready", flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_had_in_flight_is_struck_off(store, directory):
    arguments = [sys.executable, "-c", FLIES, URL, KEY.reveal(), str(directory)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        pacer = Pacer(store())
        turn = pacer.enter("list", time.monotonic())
        assert pacer.wait(turn, time.monotonic()) is not None
        process.kill()
        process.wait()
    wait_for(lambda: pacer.wait(turn, time.monotonic()) is None, what="a token")


def test_a_client_that_is_closed_has_nothing_in_flight(store):
    closed, other = Pacer(store()), Pacer(store())
    ready(closed, 40)
    assert ready(other, 1) == []
    turn = other.enter("list", time.monotonic())
    closed.close()
    wait_for(lambda: other.wait(turn, time.monotonic()) is None, what="a token")
    closed.close()


def test_a_file_that_is_broken_is_begun_anew(store, directory):
    (directory / file_name(URL, KEY)).touch(mode=0o600)
    (directory / file_name(URL, KEY)).write_bytes(b'{"boot": "x", "lev')
    assert len(ready(Pacer(store()), 50)) == 40


def test_counts_of_another_boot_are_nothing(store, directory):
    ready(Pacer(store()), 40)
    file = directory / file_name(URL, KEY)
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "before"}))
    assert len(ready(Pacer(store()), 40)) == 40


def test_what_stands_behind_the_state_is_not_read(store, directory):
    """A process was killed between writing and cutting the file off."""
    one = Pacer(store())
    ready(one, 40)
    with (directory / file_name(URL, KEY)).open("ab") as file:
        file.write(b"}}}}")
    assert ready(Pacer(store()), 1) == []


def test_a_file_that_was_cleaned_away_is_made_again(store, directory):
    pacer = Pacer(store())
    ready(pacer, 1)
    (directory / file_name(URL, KEY)).unlink()
    ready(pacer, 1)
    assert (directory / file_name(URL, KEY)).exists()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_counts_for_itself(store, directory):
    """A lock goes along with a fork: with it, parent and child would not keep each other out."""
    shared = store()
    pacer = Pacer(shared)
    ready(pacer, 10)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(ready(pacer, 40)) == 30 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_file_that_others_can_touch_is_refused(store, directory, mode):
    file = directory / file_name(URL, KEY)
    file.touch()
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="others"):
        ready(Pacer(store()), 1)


def test_a_link_is_refused(store, directory, tmp_path):
    (directory / file_name(URL, KEY)).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        ready(Pacer(store()), 1)


def test_a_directory_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "lamplighter").mkdir(mode=0o700)
    assert own_directory({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "lamplighter"
    (tmp_path / "lamplighter").chmod(0o755)
    with pytest.raises(ConfigurationError, match="0700"):
        own_directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_without_a_runtime_directory_it_is_one_of_ours(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = own_directory({"XDG_RUNTIME_DIR": "relative"})
    assert found == tmp_path / f"lamplighter-{os.geteuid()}"
    assert found.stat().st_mode & 0o777 == 0o700


def test_a_name_says_neither_server_nor_key():
    assert len({file_name(url, Secret(key)) for url in ("a", "b") for key in ("c", "d")}) == 4
    assert "napi" not in file_name(URL, KEY)
