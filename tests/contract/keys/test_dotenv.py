"""A line of a dotenv file."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.keys.sink_contract import SinkContract, content, fresh, write
from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkUnsafe
from lamplighter.keys.sinks.dotenv import DotenvSink
from lamplighter.keys.sinks.registry import parse_sink

OTHERS = b"# settings\nexport DEBUG=1\nNEON_API_KEY_2=other\nXNEON_API_KEY=other\nLAST='x y' # why\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_bytes(OTHERS)
    path.chmod(0o600)
    return path


@pytest.fixture
def sink(file: Path) -> DotenvSink:
    return DotenvSink(file, "NEON_API_KEY")


class TestContract(SinkContract):
    @pytest.fixture
    def sink(self, file: Path) -> DotenvSink:
        return DotenvSink(file, "NEON_API_KEY")

    @pytest.fixture
    def held(self, file: Path) -> Callable[[], bytes | None]:
        """As a shell reads it, if the value is one that a shell can hold."""

        def held() -> bytes | None:
            script = f'unset NEON_API_KEY; . {file}; printf %s "${{NEON_API_KEY-none}}"'
            shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True, env={"HOME": "/"})
            return None if shell.stdout == b"none" else shell.stdout

        return held

    @pytest.fixture
    def neighbours(self, file: Path) -> Callable[[], list[bytes]]:
        return lambda: [line for line in file.read_bytes().splitlines() if not line.startswith(b"NEON_API_KEY=")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"NEON_API_KEY=new\n"),
        (b"A=1", b"A=1\nNEON_API_KEY=new\n"),
        (b"A=1\r\nNEON_API_KEY=old\r\nB=2\r\n", b"A=1\r\nNEON_API_KEY=new\r\nB=2\r\n"),
        (b"export NEON_API_KEY = 'old'\n#x", b"export NEON_API_KEY = new\n#x"),
        (b"NEON_API_KEY=\n", b"NEON_API_KEY=new\n"),
        (b"NEON_API_KEY=1\nA=\nNEON_API_KEY=2\n", b"NEON_API_KEY=1\nA=\nNEON_API_KEY=new\n"),
        (b"#NEON_API_KEY=old\n", b"#NEON_API_KEY=old\nNEON_API_KEY=new\n"),
    ],
)
def test_only_the_value_of_the_last_line_of_that_name_changes(sink: DotenvSink, before: bytes, after: bytes):
    sink.path.write_bytes(before)
    write(sink, b"new")
    assert sink.path.read_bytes() == after
    assert content(sink.read_back()) == b"new"


def test_a_file_that_is_not_there_is_made_for_us_alone(tmp_path: Path):
    sink = DotenvSink(tmp_path / "new.env", "NEON_API_KEY")
    assert "will be made" in sink.check()
    old = os.umask(0)
    try:
        write(sink, b"new")
    finally:
        os.umask(old)
    assert stat.S_IMODE(sink.path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["new.env"]


def test_behind_a_link_the_file_is_replaced_and_the_link_stays(sink: DotenvSink, tmp_path: Path):
    link = tmp_path / "link.env"
    link.symlink_to(sink.path)
    write(DotenvSink(link, "NEON_API_KEY"), b"new")
    assert link.is_symlink()
    assert content(sink.read_back()) == b"new"


def test_the_mode_stays(sink: DotenvSink):
    sink.path.chmod(0o400)
    write(sink, b"new")
    assert stat.S_IMODE(sink.path.stat().st_mode) == 0o400


@pytest.mark.root
def test_the_owner_stays(sink: DotenvSink):
    os.chown(sink.path, 12345, 23456)
    write(sink, b"new")
    assert (sink.path.stat().st_uid, sink.path.stat().st_gid) == (12345, 23456)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_refused(sink: DotenvSink, mode: int):
    sink.path.chmod(mode)
    for action in (sink.check, sink.read_back, lambda: write(sink, b"new")):
        with pytest.raises(SinkUnsafe, match="others may read"):
            action()
    assert sink.path.read_bytes() == OTHERS


def test_a_file_that_git_would_take_in_is_refused(sink: DotenvSink):
    git = ["git", "-C", str(sink.path.parent)]
    subprocess.run([*git, "init", "--quiet"], check=True, env={"PATH": os.environ["PATH"], "HOME": "/"})
    with pytest.raises(SinkUnsafe, match="git"):
        sink.check()
    with pytest.raises(SinkUnsafe, match="git"):
        write(sink, b"new")
    (sink.path.parent / ".gitignore").write_text(".env\n")
    write(sink, b"new")
    assert content(sink.read_back()) == b"new"


def test_a_directory_that_is_not_there(tmp_path: Path):
    sink = DotenvSink(tmp_path / "none" / ".env", "NEON_API_KEY")
    with pytest.raises(SinkNotFound):
        sink.check()
    with pytest.raises(SinkError):
        write(sink, fresh())


def test_what_is_no_file_is_refused(tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "loop")
    (tmp_path / "loop").symlink_to(tmp_path / "dangling")
    for name in ("there", "loop"):
        with pytest.raises(SinkUnsafe):
            DotenvSink(tmp_path / name, "NEON_API_KEY").check()


@pytest.mark.parametrize("value", [b"a\nb", b"a\rb", b"a\0b", b"'\"", b"'\\"])
def test_a_value_that_such_a_file_cannot_hold_is_refused(sink: DotenvSink, value: bytes):
    with pytest.raises(SinkError, match="cannot hold"):
        write(sink, value)
    assert sink.path.read_bytes() == OTHERS


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"NEON_API_KEY=abc # why", b"abc"),
        (b"NEON_API_KEY='a b'", b"a b"),
        (b'NEON_API_KEY="a#b"', b"a#b"),
        (b"NEON_API_KEY=", None),
    ],
)
def test_values_that_people_wrote_are_read(sink: DotenvSink, line: bytes, value: bytes | None):
    sink.path.write_bytes(line + b"\n")
    assert content(sink.read_back()) == value


def test_a_value_with_escapes_is_not_guessed_at(sink: DotenvSink):
    sink.path.write_bytes(b'NEON_API_KEY="a\\nb"\n')
    with pytest.raises(SinkError, match="escapes"):
        sink.read_back()


@pytest.mark.parametrize(
    "address", ["dotenv:", "dotenv:.env", "dotenv:#A", "dotenv:.env#1A", "dotenv:.env#A B", "dotenv:.env#"]
)
def test_an_address_that_cannot_be_meant_shows_the_right_form(address: str):
    with pytest.raises(PolicyError, match="dotenv"):
        parse_sink(address)


def test_a_relative_path_means_the_same_file_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    sink = parse_sink("dotenv:app/.env#NEON_API_KEY")
    monkeypatch.chdir("/")
    assert sink.describe() == f"dotenv:{tmp_path}/app/.env#NEON_API_KEY"
    assert parse_sink(sink.describe()) == sink


WRITER = """
import sys
from pathlib import Path
from lamplighter.keys.sinks.dotenv import DotenvSink
from lamplighter.keys.value import KeyBuffer

sink = DotenvSink(Path(sys.argv[1]), "NEON_API_KEY")
print("ready", flush=True)
while True:
    for letter in b"ab":
        sink.write(KeyBuffer(bytearray([letter] * 60)), "marker")
"""


def test_a_writer_that_is_killed_leaves_the_old_value_or_the_new(sink: DotenvSink):
    """Also for a reader meanwhile; and what it left beside the file goes with the next write."""
    write(sink, b"a" * 60)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(sink.path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        seen = {content(sink.read_back()) for _ in range(300)}
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert seen <= {b"a" * 60, b"b" * 60}
    assert content(sink.read_back()) in seen | {b"a" * 60, b"b" * 60}
    write(sink, b"new")
    assert [each.name for each in sink.path.parent.iterdir()] == [".env"]
