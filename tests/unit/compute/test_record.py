"""The record of a compute and its places."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute import places as p
from lamplighter.compute import record as r
from lamplighter.compute.errors import RunDirUnfit
from lamplighter.compute.ports import ComputeSpec, Standby
from lamplighter.compute.process import ProcessIdentity

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=10)
specs = st.builds(
    ComputeSpec,
    id=words,
    major=st.integers(14, 18),
    data_dir=words.map(lambda word: Path("/d") / word),
    enter=st.lists(words, max_size=3).map(tuple),
    port=st.none() | st.integers(1, 65535),
    cu=st.floats(0.25, 56),
    settings=st.dictionaries(words, words, max_size=3),
    standby=st.none() | st.builds(Standby, primary_id=words, slot=words),
    logical_replication=st.booleans(),
)


@given(specs, st.none() | st.just(ProcessIdentity(1, 2, "boot", "/d")), words)
def test_a_record_is_read_back(spec, identity, reason):
    record = r.Record(spec, identity, "crashed", reason, 12.5, 99)
    assert r.parse(r.render(record)) == record


@given(specs)
def test_the_way_into_a_namespace_makes_no_other_compute(spec):
    assert r.same_compute(spec, replace(spec, enter=("nsenter",)))
    assert not r.same_compute(spec, replace(spec, cu=spec.cu + 1))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"spec": {}}', "null"])
def test_half_a_record_is_none(tmp_path, content):
    path = tmp_path / "record.json"
    assert r.load(path) is None
    path.write_text(content)
    assert r.load(path) is None


@given(st.text(min_size=1))
def test_the_socket_of_a_fitting_run_directory_fits(compute_id):
    run_dir = Path("/" + "x" * (p.SOCKET_PATH_LIMIT - p._LONGEST_SOCKET - 1))
    p.check_run_dir(run_dir)
    places = p.places_of(run_dir, compute_id)
    assert len(os.fsencode(places.sockets / ".s.PGSQL.65535")) <= p.SOCKET_PATH_LIMIT
    with pytest.raises(RunDirUnfit):
        p.check_run_dir(Path(str(run_dir) + "x"))


def make_link(path):
    path.with_name("other").mkdir(parents=True)
    path.symlink_to(path.with_name("other"))


def make_open(path):
    path.mkdir(parents=True)
    path.chmod(0o777)


def make_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def make_foreign(path):
    path.mkdir(parents=True)
    os.chown(path, 4242, 4242)


@pytest.fixture
def shallow():
    """pytest's own directories are too deep for sockets."""
    path = Path(tempfile.mkdtemp(prefix="lamp-test-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.mark.parametrize("depth", ["lamplighter-1000", "lamplighter-1000/abc"])
@pytest.mark.parametrize("make", [make_link, make_open, make_file, pytest.param(make_foreign, marks=pytest.mark.root)])
def test_a_run_directory_that_others_may_change_is_refused(shallow, depth, make):
    """Else whoever makes it first could put a configuration into it."""
    run_dir = shallow / "lamplighter-1000" / "abc"
    if depth.endswith("abc"):
        run_dir.parent.mkdir(mode=0o700)
    make(shallow / depth)
    with pytest.raises(RunDirUnfit, match="remove it"):
        p.make_run_dir(run_dir, (os.getuid(), os.getgid()))
    with pytest.raises(RunDirUnfit, match="remove it"):
        p.check_run_dir(run_dir)


def test_logs_bear_the_id_where_that_is_a_name_and_are_removed(tmp_path):
    places = p.places_of(tmp_path, "ep-calm-tree-a1b2c3d4", tmp_path)
    assert places.log == tmp_path / "ep-calm-tree-a1b2c3d4.log"
    for odd in ("../x", "", ".x", "a/b", "e" * 300):
        assert p.places_of(tmp_path, odd, tmp_path).log.parent == tmp_path
    places.log.touch()
    places.old_log.touch()
    p.remove_logs(places)
    p.remove_logs(places)
    assert list(tmp_path.iterdir()) == []


def test_a_home_is_made_with_the_usual_socket_name_and_removed_whole(tmp_path):
    owner = (os.getuid(), os.getgid())
    p.make_run_dir(tmp_path / "a" / "run", owner)
    places = p.places_of(tmp_path / "a" / "run", "ep-one")
    p.make_home(places, owner, 6000)
    assert stat.S_IMODE(places.sockets.stat().st_mode) == 0o700
    for path in (tmp_path / "a", tmp_path / "a" / "run"):
        assert not stat.S_IMODE(path.stat().st_mode) & (0o022 | stat.S_IROTH)
    assert stat.S_IMODE(places.home.stat().st_mode) == 0o750
    assert places.socket.readlink() == Path(".s.PGSQL.6000")
    (places.sockets / ".s.PGSQL.6000.lock").write_text("1")
    p.replace_file(places.conf, "x", owner)
    p.make_home(places, owner, None)
    assert list(places.sockets.iterdir()) == []
    p.remove_home(places)
    p.remove_home(places)
    assert not places.home.exists()
