"""Putting a data directory in order, and the argv of a postmaster."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lamplighter.compute import launcher
from lamplighter.compute.places import places_of
from lamplighter.compute.ports import ComputeSpec, Standby

OWNER = (os.getuid(), os.getgid())


@pytest.fixture
def data(tmp_path):
    for slot in ("lamp_ro", "users_own"):
        (tmp_path / "pg_replslot" / slot).mkdir(parents=True)
        (tmp_path / "pg_replslot" / slot / "state").write_bytes(b"x")
    (tmp_path / "postmaster.pid").write_text("1")
    (tmp_path / "standby.signal").touch()
    return tmp_path


def tidy_here(spec):
    launcher.tidy(spec, OWNER)


def tidy_inside(spec):
    subprocess.run([*launcher.tidy_prefix(spec), "true"], check=True)


@pytest.mark.parametrize("tidy", [tidy_here, tidy_inside])
def test_both_ways_put_a_directory_in_order(data, tidy):
    spec = ComputeSpec(id="ep-o'ne", major=17, data_dir=data)
    tidy(spec)
    assert not (data / "postmaster.pid").exists()
    assert not (data / "standby.signal").exists()
    assert [path.name for path in (data / "pg_replslot").iterdir()] == ["users_own"]
    assert (data / launcher.MARKER).read_text() == "ep-o'ne"
    # The same compute again: the slots are its own standbys'.
    (data / "pg_replslot" / "lamp_mine").mkdir()
    tidy(spec)
    assert (data / "pg_replslot" / "lamp_mine").exists()
    tidy(replace(spec, id="ep-clone", standby=Standby("ep-o'ne", "lamp_x")))
    assert not (data / "pg_replslot" / "lamp_mine").exists()
    assert (data / "standby.signal").read_bytes() == b""


def test_nothing_is_written_through_a_link(data, tmp_path):
    target = tmp_path / "precious"
    target.write_text("kept")
    for name in (launcher.MARKER, "standby.signal"):
        (data / name).unlink(missing_ok=True)
        (data / name).symlink_to(target)
    tidy_here(ComputeSpec(id="ep", major=17, data_dir=data, standby=Standby("p", "lamp_x")))
    assert target.read_text() == "kept"


def test_a_namespace_is_entered_before_privileges_are_dropped():
    spec = ComputeSpec(id="ep", major=17, data_dir=Path("/d"), enter=("nsenter", "x"))
    argv = launcher.command(spec, places_of(Path("/r"), "ep"), Path("/b/postgres"), ("setpriv", "y"))
    assert argv[:4] == ["nsenter", "x", "setpriv", "y"]
    assert argv[4] == "/bin/sh"
    assert argv.index("/b/postgres") == len(argv) - 9
    plain = launcher.command(replace(spec, enter=()), places_of(Path("/r"), "ep"), Path("/b/postgres"), ())
    assert plain[:3] == ["/b/postgres", "-D", "/d"]


def test_the_environment_names_no_home():
    env = launcher.environment({"PATH": "/bin"})
    assert env["HOME"] == "/nonexistent"
    assert "NOTIFY_SOCKET" not in env
    assert env["PATH"] == "/bin"
