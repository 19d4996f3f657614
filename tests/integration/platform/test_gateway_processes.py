"""Gateways and relays that no socket leads to any more are found, and ended with their platform."""

from __future__ import annotations

import array
import asyncio
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
from lamplighter.platform.gateway_processes import Gateways
from lamplighter.platform.halt import Orphans, halt
from lamplighter.platform.leftovers import find_leftovers
from lamplighter.platform.settings import run_dir_of
from lamplighter.storage.factory import open_volumes
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
        assert Path(f"/proc/{relay}").stat().st_uid != 0, "it was to become the user that Postgres runs as"
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


#: Arguments of what looks like a front: it ends by SIGTERM, and with its input.
FRONT = ("/bin/sh", "-c", "echo ready; read line", gateway_processes.FRONT)
RELAY = ("/bin/sh", "-c", "echo ready; exec sleep 60")


@contextlib.contextmanager
def running(*command: str, of: Path | None = None, user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has said `ready`, with the mark of a run directory. `user`: another one's."""
    env = gateway_processes.environment(of, os.environ) if of is not None else {"PATH": os.environ["PATH"]}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, user=user, group=user, cwd="/") as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == b"ready\n"
            yield started
        finally:
            started.kill()


def test_a_gateway_keeps_nothing_of_ours_but_what_it_needs(tmp_path: Path) -> None:
    env = gateway_processes.environment(tmp_path, {"PATH": "/bin", "PGPASSWORD": "secret", "LAMP_RELAY": "python"})
    assert set(env) - {"LAMP_RELAY_USER"} == {"PATH", "LAMP_RELAY", gateway_processes.MARK}


@pytest.mark.root
def test_a_relay_stays_roots_where_root_could_not_find_it_again(tmp_path: Path) -> None:
    """In a container root has no right to look into processes of other users."""
    told = (
        "from pathlib import Path; from lamplighter.platform.gateway_processes import environment;"
        "print('LAMP_RELAY_USER' in environment(Path.cwd(), {}))"
    )
    for rights, drops in (((), "True"), (("setpriv", "--bounding-set=-sys_ptrace"), "False")):
        done = subprocess.run([*rights, sys.executable, "-c", told], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == drops


def test_a_process_of_another_run_directory_is_not_taken_for_a_gateway(tmp_path: Path) -> None:
    """Its own is known by its name, whether or not it is there."""
    mine, other = tmp_path / "a", tmp_path / "ab"
    with running(*FRONT, of=mine) as front, running(*RELAY, of=mine) as relay:
        for change in (mine.mkdir, mine.rmdir, lambda: None):
            assert gateway_processes.find(mine) == Gateways((front.pid,), (relay.pid,))
            assert not gateway_processes.find(other)
            change()
    assert not gateway_processes.find(mine)


@pytest.mark.root
def test_a_process_of_another_user_is_not_taken_for_a_gateway(tmp_path: Path) -> None:
    """Whatever it has in its environment and its arguments."""
    with running(*FRONT, of=tmp_path, user=65534) as stranger:
        assert not gateway_processes.find(tmp_path)
        assert asyncio.run(gateway_processes.end(tmp_path, also=[stranger.pid])) == ()
        assert stranger.poll() is None


@pytest.mark.root
@pytest.mark.parametrize("named", ["real", "link"])
def test_a_gateway_in_a_container_that_has_the_same_path_is_not_ours(place: Path, named: str) -> None:
    """Nor where a link there has the path of a directory here; nor, when ours is gone, one that may have another."""
    real, run_dir = place / "real", place / named
    real.mkdir()
    (place / "link").symlink_to(real)
    hidden = 'mount -t tmpfs none "$1" && echo ready && exec sleep 60'
    with running("unshare", "--mount", "/bin/sh", "-c", hidden, "sh", str(real), of=run_dir):
        assert not gateway_processes.find(run_dir)
        real.rmdir()
        assert not gateway_processes.find(run_dir)


@pytest.mark.root
def test_a_gateway_that_sees_our_directory_is_ours_whatever_else_it_sees(place: Path) -> None:
    """As that of a service to which the service manager gives mounts of its own."""
    with running("unshare", "--mount", *RELAY, of=place) as relay:
        assert gateway_processes.find(place) == Gateways(relays=(relay.pid,))


def test_a_front_that_is_known_by_its_pid_alone_is_looked_at_before_it_is_ended(tmp_path: Path) -> None:
    """By then the pid may be another process's."""
    with running(*FRONT) as front, running(*RELAY) as stranger:
        assert asyncio.run(gateway_processes.end(tmp_path, also=[front.pid, stranger.pid])) == (front.pid,)
        assert front.wait(30) == -signal.SIGTERM
        assert stranger.poll() is None


def test_only_a_front_of_this_run_directory_is_ended_because_it_hangs(tmp_path: Path) -> None:
    """By a signal that it cannot leave for later."""
    mine, other = tmp_path / "a", tmp_path / "b"
    deaf = ("/bin/sh", "-c", "trap '' TERM; echo ready; read line", gateway_processes.FRONT)
    with running(*deaf, of=mine) as front, running(*deaf, of=other) as another, running(*RELAY, of=mine) as relay:
        every = (front, another, relay)
        assert [asyncio.run(gateway_processes.end_hung(mine, one.pid)) for one in every] == [True, False, False]
        assert front.wait(30) == -signal.SIGKILL
        assert another.poll() is None
        assert relay.poll() is None


def test_a_failure_to_stop_the_computes_is_told_when_the_gateway_has_ended(tmp_path: Path) -> None:
    async def fail() -> None:
        raise OSError("the computes do not stop")

    with running(*FRONT, of=tmp_path) as front:
        with pytest.raises(OSError, match="do not stop"):
            asyncio.run(gateway_processes.end(tmp_path, after=fail()))
        assert front.poll() == -signal.SIGTERM


def test_lamp_down_ends_a_gateway_whose_run_directory_is_gone(place: Path) -> None:
    """Somebody may have swept the directory of temporary files."""
    open_volumes(place / "storage", driver="copy")
    run_dir = run_dir_of(place)
    assert not run_dir.exists()
    with running(*FRONT, of=run_dir) as front:
        halted = halt(place, seconds=30, tick=lambda _passed, _left: None)
        assert halted.left == Orphans(gateways=(front.pid,))
        assert front.wait(30) == -signal.SIGTERM
    assert not run_dir.exists()
