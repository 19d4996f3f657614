"""`lamp up`: what stops it from starting, and what signals and closed streams do to it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.lamp import Lamp, temporary_lamp, wait_for

from .conftest import Cli

PORTS = ("--endpoint-ports", "19000", "19099")


@pytest.fixture
def lamp_down() -> Iterator[Lamp]:
    """A platform that is not started yet, in a place of its own."""
    with temporary_lamp(start=False) as platform:
        yield platform


def nothing_left(lamp: Lamp) -> None:
    """No postmaster, and nothing mounted."""
    assert lamp.postmasters() == []
    assert str(lamp.data_dir) not in Path("/proc/self/mountinfo").read_text()


class TestBadInput:
    def test_a_port_that_is_taken(self, cli: Cli, lamp_down: Lamp) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ran = cli("up", "--data-dir", lamp_down.data_dir, "--port", str(port))
        assert ran.status == 1
        assert f"Error: cannot listen on 127.0.0.1:{port}" in ran.err
        nothing_left(lamp_down)

    def test_a_domain_port_that_is_taken(self, cli: Cli, lamp_down: Lamp) -> None:
        """By whoever clients of the domain would reach instead."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            domain = ("--domain", "db.example.test", "--domain-port", port)
            ran = cli("up", "--data-dir", lamp_down.data_dir, "--port", "0", *domain)
        assert ran.status == 1
        assert f"Error: cannot listen on 127.0.0.1:{port}" in ran.err
        assert "choose another port with --domain-port" in ran.err
        nothing_left(lamp_down)

    def test_programs_that_are_none(self, cli: Cli, lamp_down: Lamp) -> None:
        ran = cli("up", "--data-dir", lamp_down.data_dir, "--port", "0", "--postgres-bin", lamp_down.data_dir.parent)
        assert ran.status == 1
        assert "there is no `postgres` in it" in ran.err
        nothing_left(lamp_down)

    def test_a_catalog_that_does_not_answer(self, cli: Cli, lamp_down: Lamp) -> None:
        """And its password is not told."""
        url = "postgresql://me:sekret@127.0.0.1:1/x"
        ran = cli("up", "--data-dir", lamp_down.data_dir, "--port", "0", "--catalog-url", url)
        assert ran.status == 1
        assert "Error: the catalog cannot be used" in ran.err
        assert "sekret" not in ran.err + ran.out
        nothing_left(lamp_down)

    def test_a_data_directory_that_is_a_file(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        ran = cli("up", "--data-dir", tmp_path / "file", "--port", "0")
        assert ran.status == 1
        assert ran.err.splitlines() == [
            f"Error: {tmp_path / 'file'} is no directory",
            "Hint: name another directory with --data-dir",
        ]

    def test_a_data_directory_that_cannot_be_made(self, cli: Cli) -> None:
        ran = cli("up", "--data-dir", "/proc/lamplighter", "--port", "0")
        assert ran.status == 1
        assert ran.err.startswith("Error: the data directory /proc/lamplighter cannot be made")

    def test_a_wrong_variable(self, cli: Cli, lamp_down: Lamp) -> None:
        ran = cli("up", "--data-dir", lamp_down.data_dir, env={"LAMP_PORT": "abc"})
        assert ran.status == 2
        assert "Error: LAMP_PORT=abc: " in ran.err
        assert not lamp_down.data_dir.exists()

    def test_a_driver_that_does_not_work_here(self, cli: Cli, tmp_path: Path) -> None:
        ran = cli("up", "--data-dir", "/dev/shm/lamp-no-such/../lamp-x", "--port", "99999")
        assert ran.status == 2
        assert "--port" in ran.err


class TestTwo:
    def test_a_second_platform_on_the_directory_is_refused(self, cli: Cli, lamp: Lamp) -> None:
        """It says who is there, and leaves that one alone."""
        assert lamp.process is not None
        ran = cli("up", "--data-dir", lamp.data_dir, "--port", "0")
        assert ran.status == 1
        assert f"process {lamp.process.pid}" in ran.err
        assert "lamp down" in ran.err
        assert lamp.call("GET", "/users/me")

    def test_a_pool_is_refused_while_a_platform_runs(self, cli: Cli, lamp: Lamp) -> None:
        ran = cli("storage", "init", "--size", "400M", "--data-dir", lamp.data_dir)
        assert ran.status == 1
        assert not (lamp.data_dir / "storage" / "pool.img").exists()


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_stops_everything(self, lamp_down: Lamp, number: signal.Signals) -> None:
        lamp_down.start()
        assert lamp_down.process is not None
        lamp_down.process.send_signal(number)
        assert lamp_down._ended(60) == 0
        assert lamp_down.log.read_text().splitlines()[-1] == "Stopped."
        nothing_left(lamp_down)

    def test_a_start_can_be_stopped_at_any_time(self, lamp_down: Lamp) -> None:
        """At every step: nothing is left running, and the next start makes what is missing."""
        for word in ("", "Opening the storage", "Starting the catalog", "engine.started", "Making the first project"):
            lamp_down.log.write_text("")
            lamp_down.start(wait=False, env={"LAMP_LOG_LEVEL": "info"})
            process = lamp_down.process
            assert process is not None
            # It may have said so the last time, and be ready now.
            reached(lamp_down, word)
            process.send_signal(signal.SIGINT)
            assert lamp_down._ended(60) == 0
            assert "Traceback" not in lamp_down.log.read_text()
            nothing_left(lamp_down)
        lamp_down.start()
        assert lamp_down.stop() == 0

    def test_a_second_signal_is_answered_and_changes_nothing(self, lamp_down: Lamp) -> None:
        lamp_down.start()
        process = lamp_down.process
        assert process is not None
        process.send_signal(signal.SIGINT)
        wait_for(lambda: "Stopping" in lamp_down.log.read_text(), what="the stop")
        process.send_signal(signal.SIGINT)
        assert lamp_down._ended(60) == 0
        nothing_left(lamp_down)

    def test_a_third_signal_leaves_and_loses_nothing(self, cli: Cli, lamp_down: Lamp) -> None:
        """What it leaves running is ended by `lamp down`."""
        lamp_down.start()
        process = lamp_down.process
        assert process is not None
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            os.sched_yield()
            if process.poll() is not None:
                break
            pause_for_handler(process)
        assert lamp_down._ended(60) in (0, 130)
        assert cli("down", "--data-dir", lamp_down.data_dir).status == 0
        nothing_left(lamp_down)
        lamp_down.start()
        assert lamp_down.call("GET", "/projects")["projects"]
        assert lamp_down.stop() == 0


def reached(lamp: Lamp, word: str) -> None:
    """Until it takes signals and has come to that step, or farther."""

    def there() -> bool:
        log = lamp.log.read_text()
        return bool(log) and (word in log or (lamp.data_dir / "platform.json").exists())

    wait_for(there, what=word or "the start")


def pause_for_handler(process: subprocess.Popen[str]) -> None:
    """Until no signal is pending: two of a kind that come together are one."""

    def taken() -> bool:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return True
        pending = re.findall(r"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$", status, re.MULTILINE)
        return all(int(mask, 16) == 0 for mask in pending)

    wait_for(taken, seconds=10, what="the signal's arrival")


class TestStreams:
    def test_it_outlives_the_readers_of_its_output(self, cli: Cli, lamp_down: Lamp) -> None:
        """`lamp up 2>&1 | head -1` goes on serving."""
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "lamplighter", "up", "--data-dir", str(lamp_down.data_dir), "--port", "0"]
        process = subprocess.Popen([*command, *PORTS], stdout=writer, stderr=writer, start_new_session=True)
        os.close(writer)
        os.close(reader)
        self.check_serves(cli, lamp_down, process)

    def test_it_runs_without_standard_streams(self, cli: Cli, lamp_down: Lamp) -> None:
        """And no file of the platform's gets their numbers."""
        words = " ".join([sys.executable, "-m", "lamplighter", "up", "--port", "0", *PORTS])
        command = f"exec {words} --data-dir {lamp_down.data_dir} <&- >&- 2>&-"
        process = subprocess.Popen(["sh", "-c", command], start_new_session=True)
        wait_for((lamp_down.data_dir / "platform.json").exists, seconds=90, what="the start")
        assert {str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)} == {os.devnull}
        self.check_serves(cli, lamp_down, process)

    @staticmethod
    def check_serves(cli: Cli, lamp: Lamp, process: subprocess.Popen[bytes]) -> None:
        try:
            wait_for(lambda: cli("status", "--data-dir", lamp.data_dir).status == 0, seconds=60, what="the start")
            assert process.poll() is None
            assert cli("down", "--data-dir", lamp.data_dir).status == 0
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        nothing_left(lamp)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command: str, env: dict[str, str]) -> None:
        master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env={**os.environ, **env}
        )
        os.close(slave)
        self._master = master
        self.shown = ""

    def read_until(self, word: str, *, seconds: float = 60) -> str:
        deadline = time.monotonic() + seconds
        while word not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if not self._read():
                break
        assert word in self.shown, self.shown
        return self.shown

    def read_all(self) -> str:
        while self._read():
            pass
        return self.shown

    def _read(self) -> bool:
        try:
            if select.select([self._master], [], [], 1)[0]:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
        except OSError:
            return False
        return True

    def close(self) -> None:
        os.close(self._master)


@contextmanager
def on_terminal(lamp: Lamp, **env: str) -> Iterator[Terminal]:
    command = (sys.executable, "-m", "lamplighter", "up", "--data-dir", str(lamp.data_dir), "--port", "0", *PORTS)
    terminal = Terminal(*command, env={"TERM": "xterm", "COLUMNS": "100", **env})
    try:
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.process.terminate()
            terminal.process.wait(60)


class TestTerminal:
    def test_progress_turns_and_is_taken_away(self, lamp_down: Lamp) -> None:
        """What stays on the screen is what it has to say; secrets are among it, once."""
        with on_terminal(lamp_down) as terminal:
            terminal.read_until("Ready. Ctrl-C stops the platform.")
            terminal.process.send_signal(signal.SIGINT)
            shown = terminal.read_all()
            assert terminal.process.wait(60) == 0
        terminal.close()
        # Which of the sentences is drawn depends on how long each step takes; one of them always is.
        assert re.search("Starting|Opening the storage|Making the first project|Stopping", shown)
        # The line that turns is cleared, never printed as a line of its own.
        assert not re.search(r"Opening the storage \.\.\.", shown)
        assert "\x1b[2K" in shown
        screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
        assert len(re.findall("napi_", screen)) == 1
        assert screen.rstrip().endswith("Stopped.")

    def test_a_simple_terminal_gets_lines(self, lamp_down: Lamp) -> None:
        with on_terminal(lamp_down, TERM="dumb") as terminal:
            shown = terminal.read_until("Ready. Ctrl-C stops the platform.")
            terminal.process.send_signal(signal.SIGINT)
            terminal.read_all()
            assert terminal.process.wait(60) == 0
        terminal.close()
        assert "Opening the storage ..." in shown
        assert "\x1b[2K" not in shown

    def test_the_end_of_the_terminal_stops_it(self, lamp_down: Lamp) -> None:
        """Cleanly: what it says then is said to nobody."""
        with on_terminal(lamp_down) as terminal:
            terminal.read_until("Ready. Ctrl-C stops the platform.")
            terminal.close()
            # A terminal of a session leader that is closed sends it SIGHUP; ours was not made its controlling one.
            terminal.process.send_signal(signal.SIGHUP)
            assert terminal.process.wait(60) == 0
        nothing_left(lamp_down)
