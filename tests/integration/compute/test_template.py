"""The seed of new projects: what is in it, and that there is one or none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from lamplighter.compute.binaries import Build
from lamplighter.compute.errors import CacheUnreadable, SystemUserError, TemplateFailed
from lamplighter.compute.template import ensure_template, make_template, run_single_user
from lamplighter.compute.user import SystemUser
from support.waiting import wait_for

MAKE = """
import sys
from pathlib import Path
from lamplighter.compute.binaries import Binaries, default_cache
from lamplighter.compute.template import make_template
from lamplighter.compute.user import current_or_system_user
build = Binaries(default_cache()).ensure(17)
print(make_template(build, Path(sys.argv[1]), owner=current_or_system_user(), progress=print))
"""


def copy_data(seed: Path, data_dir: Path, owner: SystemUser) -> Path:
    shutil.copytree(seed, data_dir)
    for path in (data_dir, *data_dir.rglob("*")):
        os.chown(path, *owner)
    return data_dir


def control(build: Build, data_dir: Path) -> str:
    command = [str(build.program("pg_controldata")), "-D", str(data_dir)]
    return subprocess.run(command, env=build.environment(), capture_output=True, text=True, check=True).stdout


def test_the_seed_is_stopped_cleanly_and_has_checksums(postgres17: Build, seed17: Path) -> None:
    """A clone of the seed starts without recovery, and its pages are checked."""
    facts = control(postgres17, seed17)
    assert "Database cluster state:               shut down\n" in facts
    assert "Data page checksum version:           1\n" in facts
    assert not (seed17 / "postmaster.pid").exists()


def test_the_seed_belongs_to_the_user_that_runs_it(seed17: Path, owner: SystemUser) -> None:
    """Every file is the owner's, and nobody else gets into the data directory."""
    assert seed17.stat().st_mode & 0o777 == 0o700
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (seed17, *seed17.rglob("*"))} == {tuple(owner)}


def test_what_a_new_project_finds(postgres17: Build, seed17: Path, place: Path, run) -> None:
    """The roles, the database and the collation are as Neon's clients expect."""
    with run(postgres17, seed17, place) as server, server.connect() as connection:
        roles = connection.execute(
            "SELECT rolsuper, rolcanlogin, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
            " FROM pg_roles WHERE rolname = 'neon_superuser'"
        ).fetchone()
        granted = connection.execute(
            "SELECT pg_get_userbyid(roleid), admin_option FROM pg_auth_members"
            " WHERE member = 'neon_superuser'::regrole ORDER BY 1"
        ).fetchall()
        database = connection.execute(
            "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datlocprovider, datlocale,"
            " has_database_privilege('neon_superuser', datname, 'CREATE') FROM pg_database WHERE datname = 'neondb'"
        ).fetchone()
        supers = connection.execute("SELECT rolname FROM pg_roles WHERE rolsuper").fetchall()
    assert roles == (False, False, True, True, True, True)
    assert granted == [
        ("pg_create_subscription", True),
        ("pg_monitor", True),
        ("pg_read_all_data", False),
        ("pg_signal_backend", True),
        ("pg_write_all_data", False),
    ]
    assert database == ("cloud_admin", "UTF8", "b", "C.UTF-8", True)
    assert supers == [("cloud_admin",)]


def test_the_rules_of_the_data_directory_let_nobody_in(
    postgres17: Build, seed17: Path, place: Path, owner: SystemUser, run
) -> None:
    """Should the pg_hba.conf that initdb left ever count, it rejects everybody, the superuser included."""
    with run(postgres17, seed17, place) as server, server.connect() as connection:
        connection.execute("ALTER ROLE cloud_admin PASSWORD 'known'")
        (place / "hba.conf").write_text((seed17 / "pg_hba.conf").read_text())
        connection.execute("SELECT pg_reload_conf()")
        assert connection.execute("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL").fetchone() == (0,)
        deadline = time.monotonic() + 30
        while (refusal := _refusal(server)) is None:
            assert time.monotonic() < deadline
    assert "rejects" in refusal


def _refusal(server) -> str | None:
    try:
        server.connect().close()
    except psycopg.OperationalError as error:
        return str(error)
    return None


async def test_a_seed_is_made_once(postgres17: Build, place: Path, owner: SystemUser) -> None:
    """Asked again, the same directory is given back untouched and nothing is said."""
    said: list[str] = []
    first = await ensure_template(postgres17, place, owner=owner, progress=said.append)
    made = (first / "global" / "pg_control").stat().st_mtime_ns
    assert await ensure_template(postgres17, place, owner=owner, progress=said.append) == first
    assert (first / "global" / "pg_control").stat().st_mtime_ns == made
    assert len(said) == 1
    assert postgres17.id in str(first)


def test_two_processes_make_one_seed(place: Path, postgres17: Build) -> None:
    """The second waits for the first and uses its seed."""
    command = [sys.executable, "-c", MAKE, str(place)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=90)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("preparing the seed" in text for text in printed) == 1
    assert len([path for path in place.iterdir() if path.name != ".lock"]) == 1


def test_a_kill_in_the_middle_leaves_no_seed(place: Path, postgres17: Build, owner: SystemUser) -> None:
    """After SIGKILL there is no seed and no initdb that goes on; the next run clears up and succeeds."""
    process = subprocess.Popen([sys.executable, "-c", MAKE, str(place)], stdout=subprocess.DEVNULL)
    wait_for(lambda: list(place.glob(".seed-*/data/base/1")), seconds=60, every=0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path for path in place.iterdir() if not path.name.startswith(".")] == []
    seed = make_template(postgres17, place, owner=owner)
    assert "shut down" in control(postgres17, seed)
    assert sorted(path.name for path in place.iterdir()) == [".lock", seed.parent.name]


def test_a_failing_initdb_is_told_and_leaves_nothing(place: Path, postgres17: Build, owner: SystemUser) -> None:
    """The error has initdb's own words."""
    bin_dir = place / "bin"
    bin_dir.mkdir()
    (bin_dir / "initdb").write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 1\n")
    (bin_dir / "initdb").chmod(0o755)
    fields = {name: getattr(postgres17, name) for name in Build.__slots__} | {"bin_dir": bin_dir}
    with pytest.raises(TemplateFailed, match=r"initdb failed:\s+the disk is on fire"):
        make_template(Build(**fields), place / "seeds", owner=owner)
    assert [path.name for path in (place / "seeds").iterdir()] == [".lock"]


def test_a_failing_statement_ends_single_user_mode(
    place: Path, postgres17: Build, owner: SystemUser, seed17: Path, run
) -> None:
    """The first error is told, and what follows it is not run."""
    data_dir = copy_data(seed17, place / "copy", owner)
    with pytest.raises(TemplateFailed, match='role "neon_superuser" already exists'):
        run_single_user(postgres17, data_dir, ["CREATE ROLE neon_superuser", "CREATE ROLE later"], owner=owner)
    with run(postgres17, data_dir, place) as server, server.connect() as connection:
        assert connection.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'later'").fetchone() == (0,)


@pytest.mark.root
def test_root_must_name_somebody_else(place: Path, postgres17: Build) -> None:
    with pytest.raises(SystemUserError, match="does not run as root"):
        make_template(postgres17, place, owner=(0, 0))


@pytest.mark.root
def test_a_place_that_the_owner_cannot_reach_is_refused(place: Path, postgres17: Build, owner: SystemUser) -> None:
    (place / "closed").mkdir(mode=0o700)
    with pytest.raises(CacheUnreadable, match="closed"):
        make_template(postgres17, place / "closed" / "seeds", owner=owner)
    assert list((place / "closed" / "seeds").iterdir()) == []
