"""Putting a data directory in order, and the argv of a postmaster."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lamplighter.compute import launcher
from lamplighter.compute.places import places_of
from lamplighter.compute.ports import ComputeSpec, Standby

OWNER = (os.getuid(), os.getgid())
SHUT_DOWN, IN_PRODUCTION = 1, 6


def control_file(state):
    """The beginning of pg_control: its field `state` is the fifth word."""
    return struct.pack("=QIIi", 1, 1300, 202107181, state) + bytes(100)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "global").mkdir()
    (tmp_path / "global" / "6100").touch()
    (tmp_path / "global" / "pg_control").write_bytes(control_file(SHUT_DOWN))
    for slot in ("lamp_ro", "users_own"):
        (tmp_path / "pg_replslot" / slot).mkdir(parents=True)
        (tmp_path / "pg_replslot" / slot / "state").write_bytes(b"x")
    (tmp_path / "postmaster.pid").write_text("1")
    (tmp_path / "standby.signal").touch()
    return tmp_path


def tidy_here(spec, **values):
    return launcher.tidy(spec, OWNER, **values)


def tidy_inside(spec, **values):
    printed = [*launcher.tidy_prefix(spec, **values), "printf", r"%s\n"]
    done = subprocess.run([*printed, ""], check=True, capture_output=True, text=True)
    return tuple(done.stdout.splitlines()[1:])


@pytest.mark.parametrize("tidy", [tidy_here, tidy_inside])
def test_both_ways_put_a_directory_in_order(data, tidy):
    spec = ComputeSpec(id="ep-o'ne", major=17, data_dir=data)
    tidy(spec)
    assert not (data / "postmaster.pid").exists()
    assert not (data / "standby.signal").exists()
    assert list((data / "pg_replslot").iterdir()) == []
    # The same directory again, whichever compute works on it: the slots are its own.
    (data / "pg_replslot" / "mine").mkdir()
    assert tidy(replace(spec, id="br-maintenance")) == ()
    assert (data / "pg_replslot" / "mine").exists()
    clone = shutil.copytree(data, data.with_name("it's a clone"))
    tidy(replace(spec, data_dir=clone, standby=Standby("ep-o'ne", "lamp_x")))
    assert list((clone / "pg_replslot").iterdir()) == []
    assert (clone / "standby.signal").read_bytes() == b""
    shutil.rmtree(clone)


@pytest.mark.parametrize("tidy", [tidy_here, tidy_inside])
@pytest.mark.parametrize(
    ("subscriptions", "state", "wanted"),
    [
        (b"", SHUT_DOWN, ()),
        (b"", IN_PRODUCTION, launcher.CHECK),
        (b"row", SHUT_DOWN, launcher.QUIET),
        (None, SHUT_DOWN, launcher.QUIET),
    ],
)
def test_a_first_start_is_careful_where_subscriptions_may_be(data, tidy, subscriptions, state, wanted):
    spec = ComputeSpec(id="ep", major=17, data_dir=data)
    (data / "global" / "pg_control").write_bytes(control_file(state))
    catalog = data / "global" / "6100"
    catalog.unlink() if subscriptions is None else catalog.write_bytes(subscriptions)
    assert tidy(replace(spec, standby=Standby("p", "lamp_x"))) == ()
    (data / launcher.MARKER).unlink()
    assert tidy(spec) == wanted
    # A quiet start that came to nothing is made again, until it is said to have done its work.
    assert tidy(spec) == (wanted if wanted == launcher.QUIET else ())
    assert tidy(spec, silenced=True) == ()
    assert tidy(spec) == ()


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
