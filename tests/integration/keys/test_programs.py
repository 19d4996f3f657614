"""What other programs see of us: those that we run, and those that look at our process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamplighter.keys.errors import NotProven
from lamplighter.keys.harden import child_environment
from unit.keys.simulation import World, adopted, finish, rotation


@pytest.fixture
def world() -> World:
    world = World()
    adopted(world, ["R0"])
    return world


def test_a_smoke_command_has_to_end_well_before_the_old_key_goes(world: World, tmp_path: Path):
    with pytest.raises(NotProven, match="ended with 7"):
        rotation(world, ["R0"], smoke=f"test -e {tmp_path}/mended || exit 7").run()
    assert 2 in world.live
    (tmp_path / "mended").touch()
    assert finish(world, ["R0"]).revoked == (2,)


def test_a_smoke_command_sees_no_key_and_of_the_environment_what_it_may(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEON_API_KEY", "value-1")
    monkeypatch.setenv("GH_TOKEN", "for gh")
    monkeypatch.setenv("WRANGLER_LOG_SANITIZE", "false")
    seen = tmp_path / "seen"
    rotation(world, ["R0"], smoke=f"env > {seen}; cat >> {seen}", allow=("GH_TOKEN", "NEON_API_KEY")).run()
    lines = seen.read_text().splitlines()
    assert "GH_TOKEN=for gh" in lines
    assert any(line.startswith("PATH=") for line in lines)
    assert not [line for line in lines if "value-" in line or line.startswith(("NEON_", "WRANGLER_"))]


def test_what_a_smoke_command_says_is_not_in_our_output(world: World, capfd: pytest.CaptureFixture[str]):
    rotation(world, ["R0"], smoke="echo hello").run()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "hello\n")


def test_the_environment_of_a_child_is_an_allow_list():
    given = {"PATH": "/bin", "LC_ALL": "C", "NEON_API_KEY": "x", "DEBUG": "*", "NODE_OPTIONS": "-r evil", "TOKEN": "t"}
    assert child_environment(given) == {"PATH": "/bin", "LC_ALL": "C"}
    assert child_environment(given, allow=("TOKEN",)) == {"PATH": "/bin", "LC_ALL": "C", "TOKEN": "t"}


HARDENED = """
import ctypes, resource, sys
from lamplighter.keys.harden import hardened

def state():
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0]

before = state()
with hardened():
    print(state())
    sys.stdout.flush()
    sys.stdin.readline()
    with hardened():
        pass
    print(state())
print(state() == before, before[0])
"""


def test_while_a_value_is_held_nobody_may_look_into_the_process():
    child = subprocess.Popen([sys.executable, "-c", HARDENED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "(0, 0)\n"
        # The kernel gives the files of such a process to root.
        assert Path(f"/proc/{child.pid}/environ").stat().st_uid == 0
        out, _ = child.communicate("\n", timeout=30)
    finally:
        child.kill()
        child.wait()
    assert out == "(0, 0)\nTrue 1\n"


IMPORTS = """
import sys
import lamplighter.keys
from lamplighter.keys import plan, fold, records, naming, duration, proof, actions, scan
print(sorted({"httpx2", "pydantic", "psycopg", "asyncio", "click", "rich"} & set(sys.modules)))
"""


def test_what_decides_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert os.environ.get("LAMP_FAULT") is None
