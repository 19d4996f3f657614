"""Gateways and relays that no socket leads to any more are found, and ended with their platform."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from lamplighter.compute import process
from lamplighter.gateway import link
from lamplighter.gateway.ports import Drain, Hello, Listening
from lamplighter.platform import gateway_processes
from lamplighter.platform.leftovers import find_leftovers
from lamplighter.platform.settings import run_dir_of
from support.lamp import Lamp, temporary_lamp, wait_for


@pytest.fixture
def lamp() -> Iterator[Lamp]:
    with temporary_lamp(driver="copy") as made:
        yield made
        for pid in all_of(made):
            os.kill(pid, signal.SIGKILL)


def all_of(lamp: Lamp) -> list[int]:
    found = gateway_processes.find(run_dir_of(lamp.data_dir))
    return [*found.fronts, *found.relays]


@contextlib.contextmanager
def stuck(lamp: Lamp) -> Iterator[None]:
    """A client that does not read what it has asked for: a relay is patient with it, even when its compute is gone."""
    with contextlib.closing(psycopg.connect(lamp.connection_uri, autocommit=True)) as connection:
        connection.pgconn.send_query(b"select repeat('x', 50000000)")
        connection.pgconn.flush()
        waiting = array.array("i", [0])

        def full() -> bool:
            before = waiting[0]
            fcntl.ioctl(connection.fileno(), termios.FIONREAD, waiting)
            return 0 < before == waiting[0]

        wait_for(full, every=0.1, what="an answer that nobody reads")
        yield


def drain(lamp: Lamp) -> None:
    """As a platform of a later release has it."""
    (path,) = run_dir_of(lamp.data_dir).glob(gateway_processes.SOCKETS)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        line.sendall(link.to_gateway(Hello("0.0.0", Listening())) + link.to_gateway(Drain()))
        wait_for(lambda: not path.exists(), what="a gateway that drains")


def down(lamp: Lamp) -> str:
    command = [sys.executable, "-m", "lamplighter", "down", "--data-dir", str(lamp.data_dir)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_lamp_down_ends_a_gateway_that_drains_and_its_relay(lamp: Lamp) -> None:
    with stuck(lamp):
        (front,) = lamp.gateways()
        (relay,) = process.children(front)
        lamp.kill()
        drain(lamp)
        assert sorted(all_of(lamp)) == sorted([front, relay])
        assert {f"process {pid} passes connections on without a platform" for pid in (front, relay)} <= {
            one.what for one in find_leftovers(lamp.data_dir)
        }
        told = down(lamp)
        assert f"2 processes ({front}, {relay})" in told
        assert process.start_ticks(front) is None
        assert process.start_ticks(relay) is None
    assert not run_dir_of(lamp.data_dir).exists()


def test_a_stop_ends_what_former_gateways_have_left(lamp: Lamp) -> None:
    """A relay whose front was killed, and one that serves nobody any more."""
    with stuck(lamp):
        (front,) = lamp.gateways()
        (relay,) = process.children(front)
        os.kill(front, signal.SIGKILL)
        wait_for(lambda: lamp.gateways() not in ([], [front]), what="another gateway")
        assert relay in all_of(lamp)
        assert lamp.stop() == 0
        assert all_of(lamp) == []
        assert process.start_ticks(relay) is None
    assert not run_dir_of(lamp.data_dir).exists()


def test_a_process_of_another_run_directory_or_user_is_not_taken_for_a_gateway(tmp_path: Path) -> None:
    mine, other = tmp_path / "a", tmp_path / "ab"
    env = gateway_processes.environment(mine, {"PATH": "/bin", "PGPASSWORD": "secret", "LAMP_RELAY": "python"})
    assert set(env) == {"PATH", "LAMP_RELAY", gateway_processes.MARK}
    with subprocess.Popen(["/bin/sleep", "60"], env=env) as sleeper:
        try:
            wait_for(lambda: gateway_processes.find(mine).relays == (sleeper.pid,), what="a process with the mark")
            assert not gateway_processes.find(other)
        finally:
            sleeper.kill()
    assert not gateway_processes.find(mine)
