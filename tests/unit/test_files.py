"""Files are whole, whenever the writer ends."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lamplighter.files import write_atomic

WRITER = """
import sys
from pathlib import Path
from lamplighter.files import write_atomic

path = Path(sys.argv[1])
print("ready", flush=True)
count = 0
while True:
    count += 1
    write_atomic(path, bytes([count % 256]) * 200_000)
"""
DEADLINE = 30.0


def test_the_content_is_replaced(tmp_path):
    path = tmp_path / "file"
    for content in (b"first", b"", b"second" * 100_000):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_the_mode_is_as_asked_whatever_the_umask_and_the_file_before(tmp_path, mode, umask):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o666)
    before = os.umask(umask)
    try:
        write_atomic(path, b"after", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_file_is_ours_alone_unless_more_is_asked(tmp_path):
    write_atomic(tmp_path / "file", b"secret")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_reader_that_has_the_old_file_open_keeps_it(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(path, b"content")
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "missing" / "file", b"content")


@pytest.mark.parametrize("after", range(5))
def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path, after):
    path = tmp_path / "file"
    path.write_bytes(b"\0" * 200_000)
    seen = set()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        end = time.monotonic() + DEADLINE
        # Some rewrites later, and each time at another moment of one.
        while len(seen) < 3 + after and time.monotonic() < end:
            seen.add(whole(path))
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    assert len(seen) >= 3 + after
    whole(path)
    # What an unfinished write leaves is not under the file's name, and at most one.
    assert sum(other.name.startswith(".file.") for other in tmp_path.iterdir()) <= 1


def whole(path: Path) -> int:
    """The byte of which a file that was written whole consists."""
    content = path.read_bytes()
    assert len(content) == 200_000
    assert content == content[:1] * 200_000
    return content[0]
