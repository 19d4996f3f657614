"""A program that takes the value on its stdin."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contract.keys.sink_contract import MARKER, SinkContract, content, fresh
from lamplighter.keys.errors import (
    KeysError,
    PolicyError,
    SinkError,
    SinkNotFound,
    SinkRefused,
    SinkUnreachable,
)
from lamplighter.keys.sinks.command import CommandSink
from lamplighter.keys.value import KeyBuffer
from support.stores.leaks import leaks, logged, shown
from support.waiting import wait_for


def command(*words: object, **options: str) -> CommandSink:
    return CommandSink.parse(f"command:{shlex.join(str(each) for each in words)}", options)


def shell(script: str, **options: str) -> CommandSink:
    return command("sh", "-c", script, **options)


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


class TestContract(SinkContract):
    awkward = (*SinkContract.awkward, b"two\nlines", b"\xff\x00", b"y" * 65_536)

    @pytest.fixture
    def sink(self, tmp_path: Path) -> CommandSink:
        (tmp_path / "other").write_text("another")
        file = shlex.quote(str(tmp_path / "kept"))
        read = shlex.join(["sh", "-c", f"if test -e {file}; then exec cat {file}; fi"])
        return shell(f"exec cat >{file}", read=read, delete=f"rm -f {file}")

    @pytest.fixture
    def held(self, tmp_path: Path) -> Callable[[], bytes | None]:
        return lambda: (tmp_path / "kept").read_bytes() if (tmp_path / "kept").exists() else None

    @pytest.fixture
    def neighbours(self, tmp_path: Path) -> Callable[[], Any]:
        return (tmp_path / "other").read_text


def fails(action: Callable[[], Any], *hidden: bytes) -> KeysError:
    with logged() as log, pytest.raises(SinkError) as caught:
        action()
    leaked = leaks(shown(caught.value) + log.getvalue(), *hidden)
    assert not leaked
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def failed(sink: CommandSink) -> KeysError:
    value = fresh()
    return fails(partial(sink.write, key(value), MARKER), value)


def test_without_a_reading_command_it_says_that_it_cannot_read(tmp_path: Path):
    sink = command("tee", tmp_path / "kept")
    sink.write(key(), MARKER)
    assert not sink.capabilities.readable
    assert sink.read_back() is None
    assert sink.metadata() is not None
    with pytest.raises(SinkError) as caught:
        sink.delete()
    assert "option delete" in (caught.value.hint or "")
    assert (tmp_path / "kept").read_bytes() == b"napi_0123456789"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(1, SinkError), (66, SinkNotFound), (69, SinkUnreachable), (75, SinkUnreachable), (77, SinkRefused)],
)
def test_exit_codes_of_sysexits_are_understood(status: int, expected: type[SinkError]):
    sink = shell(f"cat >/dev/null; echo the reason >&2; exit {status}")
    error = failed(sink)
    assert type(error) is expected
    assert f"status {status}: the reason" in str(error)


def test_a_program_that_is_not_there(tmp_path: Path):
    for sink in (command("no-such-program"), command(tmp_path / "none"), command("true", read="no-such-program")):
        with pytest.raises(SinkNotFound, match="no program"):
            sink.check()
    assert isinstance(failed(command("no-such-program")), SinkNotFound)
    (tmp_path / "odd").write_bytes(b"\x7fELF-not")
    (tmp_path / "odd").chmod(0o700)
    assert isinstance(failed(command(tmp_path / "odd")), SinkRefused)


def test_a_program_that_does_not_read_the_value_has_not_stored_it():
    for times in (1, 900):
        value = fresh()
        error = fails(lambda whole=value * times: command("true").write(key(whole), MARKER), value)
        assert "did not read" in str(error)


def test_what_a_program_says_of_the_value_is_not_shown():
    for script in ("cat >&2", "cut -c 20-30 >&2", "fold -w 7 >&2", "base64 -w 0 >&2", "tr -d '\\n' | rev >&2"):
        error = failed(shell(f"{script}; exit 3"))
        assert "status 3" in str(error)


def test_what_a_program_says_is_cut_short_and_printable():
    error = str(failed(shell("cat >/dev/null; head -c 1000000 /dev/zero >&2; printf 'a\\033[31mb' >&2; exit 1")))
    assert len(error) < 600
    assert error.isprintable()


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path: Path):
    file = tmp_path / "pid"
    sink = shell(f"sleep 1000 & echo $! >{file}; cat >/dev/null; wait", timeout="1")
    error = failed(sink)
    assert isinstance(error, SinkUnreachable)
    assert "1 s" in str(error)
    pid = int(file.read_text())
    wait_for(lambda: not alive(pid), what="the end of what it started")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_a_program_that_leaves_something_running_is_done(tmp_path: Path):
    file = tmp_path / "pid"
    shell(f"cat >/dev/null; sleep 1000 >&2 & echo $! >{file}", timeout="30").write(key(), MARKER)
    os.kill(int(file.read_text()), signal.SIGKILL)


def test_a_signal_is_named():
    assert "signal 9" in str(failed(shell("kill -9 $$")))


@pytest.mark.parametrize(
    ("printed", "found"),
    [(b"", None), (b"\n", None), (b"a\n", b"a"), (b"a\r\n", b"a"), (b"a\n\n", b"a\n"), (b" a ", b" a ")],
)
def test_one_line_end_is_no_part_of_a_value(tmp_path: Path, printed: bytes, found: bytes | None):
    (tmp_path / "kept").write_bytes(printed)
    sink = command("tee", "/dev/null", read=f"cat {tmp_path / 'kept'}")
    assert content(sink.read_back()) == found
    assert (sink.metadata() is None) is (found is None)


def test_nothing_that_a_reading_command_says_is_shown(tmp_path: Path):
    value = fresh()
    (tmp_path / "kept").write_bytes(value)
    read = shlex.join(["sh", "-c", f"cat {tmp_path / 'kept'}; cat {tmp_path / 'kept'} >&2; exit 77"])
    sink = command("tee", "/dev/null", read=read)
    for action in (sink.read_back, sink.metadata):
        assert isinstance(fails(action, value), SinkRefused)
    sink = command("tee", "/dev/null", read="head -c 70000 /dev/zero")
    with pytest.raises(SinkError, match="too long"):
        sink.read_back()


SPY = """
import json, os, sys
kept = {"argv": sys.argv, "environ": dict(os.environ), "fds": sorted(os.listdir("/proc/self/fd")), "sid": os.getsid(0)}
kept["stdin"] = sys.stdin.buffer.read().decode()
json.dump(kept, open(sys.argv[1], "w"))
"""


def test_the_value_is_on_stdin_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not in argv, nor in the environment, which has no tokens but those that were asked for."""
    monkeypatch.setenv("NEON_API_KEY", "napi_of_the_minter")
    monkeypatch.setenv("VAULT_TOKEN", "hvs.of-another-store")
    monkeypatch.setenv("GH_TOKEN", "ghp_of_this_one")
    monkeypatch.setenv("GH_DEBUG", "api")
    value = fresh()
    held, other = os.pipe()
    os.set_inheritable(held, True)
    try:
        command(sys.executable, "-c", SPY, tmp_path / "seen", env="GH_TOKEN").write(key(value), MARKER)
    finally:
        os.close(held)
        os.close(other)
    seen = json.loads((tmp_path / "seen").read_text())
    same = seen.pop("stdin") == value.decode()
    assert same
    assert not leaks(json.dumps(seen), value)
    assert seen["environ"]["GH_TOKEN"] == "ghp_of_this_one"
    assert not {"NEON_API_KEY", "VAULT_TOKEN", "GH_DEBUG"} & seen["environ"].keys()
    assert str(held) not in seen["fds"]
    assert seen["sid"] != os.getsid(0)


def test_nobody_sees_the_value_in_proc_meanwhile(tmp_path: Path):
    """Every process of this machine, for as long as the program runs."""
    value, over, seen = fresh(), threading.Event(), set()
    looks = 0

    def look() -> None:
        nonlocal looks
        while not over.is_set():
            for process in Path("/proc").iterdir():
                for name in ("cmdline", "environ") if process.name.isdigit() else ():
                    with contextlib.suppress(OSError):
                        if value[5:25] in (process / name).read_bytes():
                            seen.add(f"{process} {name}")
            looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        sink = shell(f"cat >/dev/null; cat {gate} >/dev/null", timeout="60")
        writer = threading.Thread(target=lambda: sink.write(key(value), MARKER))
        writer.start()
        with gate.open("w"):
            start = looks
            wait_for(lambda: looks > start + 2, what="looks at /proc")
        writer.join(60)
    finally:
        over.set()
        thread.join(60)
    assert not writer.is_alive()
    assert seen == set()


@pytest.mark.parametrize(
    "text",
    [
        "gh secret set NAME --body {value}",
        "gh secret set NAME --body {{ key }}",
        "gh secret set NAME --body <token>",
        "gh secret set NAME --body={}",
        "gh secret set NAME --body '%s'",
        "gh secret set NAME --body @SECRET@",
        "sh -c 'gh secret set NAME --body \"$NEON_API_KEY\"'",
        "sh -c 'gh secret set NAME --body ${KEY}'",
        "sh -c 'gh secret set NAME --body \"$(cat)\"'",
        "sh -c 'gh secret set NAME --body \"$(< /dev/stdin)\"'",
        "sh -c 'gh secret set NAME --body `cat`'",
        "sh -c 'xargs -I_ gh secret set NAME --body _'",
    ],
)
def test_a_command_with_a_place_for_the_value_is_refused(text: str):
    with pytest.raises(PolicyError, match="among its arguments") as caught:
        CommandSink.parse(f"command:{text}", {})
    assert "stdin" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        "gh secret set NEON_API_KEY --repo o/r",
        "wrangler secret put NEON_API_KEY",
        "kv set key -",
        "jq '{key: .x}'",
        "awk '{print $1}'",
        "date +%s-x",
        "sh -c 'curl -H \"Authorization: Bearer $TOKEN\" --data-binary @- https://x.example'",
    ],
)
def test_other_commands_are_not(text: str):
    sink = CommandSink.parse(f"command:{text}", {})
    assert CommandSink.parse(sink.describe(), sink.options) == sink


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("'unbalanced", {}),
        ("''", {}),
        ("tee x", {"colour": "red"}),
        ("tee x", {"timeout": "soon"}),
        ("tee x", {"timeout": "0"}),
        ("tee x", {"timeout": "nan"}),
        ("tee x", {"read": "'"}),
        ("tee x\0", {}),
        ("tee x ?colour=red", {}),
        ("tee x ?timeout=soon", {}),
        ("tee x ?timeout=3&timeout=4", {}),
        ("tee x ?timeout=3", {"timeout": "3"}),
    ],
)
def test_commands_that_cannot_be_meant(text: str, options: dict[str, str]):
    with pytest.raises(PolicyError):
        CommandSink.parse(f"command:{text}", options)


def test_options_at_the_end_of_the_address(tmp_path: Path):
    """For a command line, which has no other place for them; an argument that looks the same is written in quotes."""
    sink = CommandSink.parse(f"command:tee {tmp_path}/x ?read=cat%20{tmp_path}/x&timeout=5&env=A,B", {})
    assert sink.describe() == f"command:tee {tmp_path}/x"
    assert sink.options == {"read": f"cat {tmp_path}/x", "timeout": "5", "env": "A,B"}
    sink.write(key(), MARKER)
    assert CommandSink.parse(sink.describe(), sink.options).read_back() is not None
    quoted = CommandSink.parse("command:tee '?timeout=5'", {})
    assert (quoted.command, quoted.options) == (("tee", "?timeout=5"), {})
    assert CommandSink.parse(quoted.describe(), {}).command == quoted.command


def test_a_key_that_was_put_into_the_command_is_not_shown():
    for value in (fresh().decode(), "abcdefgh" * 8):
        for options in ({}, {"read": f"echo {value}"}):
            with pytest.raises(PolicyError) as caught:
                CommandSink.parse("command:tee x" if options else f"command:echo {value}", options)
            said = f"{caught.value} {caught.value.hint} {caught.value!r}"
            assert not leaks(said, value.encode())


def test_a_program_beside_us_stays_that_program_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store.sh").write_text("#!/bin/sh\nexec cat >/dev/null\n")
    (tmp_path / "store.sh").chmod(0o700)
    sink = command("./store.sh")
    monkeypatch.chdir("/")
    CommandSink.parse(sink.describe(), sink.options).write(key(), MARKER)
    assert str(tmp_path) in sink.describe()
