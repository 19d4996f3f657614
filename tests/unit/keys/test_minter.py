"""Where a minter key may come from, and that it is never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamplighter.keys.errors import MinterUnfit, PolicyError
from lamplighter.keys.minter import Minter

KEY = "napi_0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "minter"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return path


def test_a_file_of_our_own(file: Path):
    minter = Minter.parse(f"file:{file}")
    same = minter.read().reveal() == KEY
    assert same
    assert str(minter) == f"file:{file}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_may_read_is_refused(file: Path, mode: int):
    file.chmod(mode)
    with pytest.raises(MinterUnfit, match="others may read"):
        Minter.parse(f"file:{file}").read()


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"\xff\xfe", "ä".encode(), b"x" * 5000])
def test_what_is_no_key_is_refused_and_not_shown(file: Path, content: bytes):
    file.write_bytes(content)
    with pytest.raises(MinterUnfit, match="no API key") as raised:
        Minter.parse(f"file:{file}").read()
    assert raised.value.__context__ is None


@pytest.mark.parametrize("place", ["none", "", "minter/none"])
def test_a_file_that_is_not_there(file: Path, place: str):
    with pytest.raises(MinterUnfit, match=r"cannot read|no file of yours"):
        Minter.parse(f"file:{file.parent / place}").read()


def test_a_file_descriptor():
    reading, writing = os.pipe()
    os.write(writing, KEY.encode())
    os.close(writing)
    same = Minter.parse(f"fd:{reading}").read().reveal() == KEY
    os.close(reading)
    assert same
    with pytest.raises(MinterUnfit, match="cannot read"):
        Minter.parse(f"fd:{reading}").read()


@pytest.mark.parametrize(
    "text", [KEY, "", "fd:x", "fd:", "keyring:neon", "vault:secret", "env:NEON_API_KEY", f"argv:{KEY}"]
)
def test_what_names_no_place_is_refused_without_being_shown(text: str):
    """Somebody may have put the key itself where its place was meant."""
    with pytest.raises(PolicyError) as raised:
        Minter.parse(text)
    shown = KEY in f"{raised.value} {raised.value.hint}"
    assert not shown
    assert "keyring:SERVICE/NAME" in str(raised.value.hint)


def test_the_sink_that_is_the_same_place():
    assert Minter.parse("keyring:neon/minter").sink_address == "keychain:neon/minter"
    assert Minter.parse("vault:secret/neon#key").sink_address == "vault:secret/neon#key"
    assert Minter.parse("fd:3").sink_address is None


def test_a_server_that_is_asked_with_it(file: Path):
    neon = Minter.parse(f"file:{file}").connect("http://127.0.0.1:1")
    assert neon.base_url == "http://127.0.0.1:1/api/v2"
    shown = KEY in repr(vars(neon))
    assert not shown
    with pytest.raises(PolicyError):
        Minter.parse(f"file:{file}").connect("ftp://example.com")
