"""PyPI `pytest-neon` 3.0.1, unmodified, with Neon's address built in: a suite in two workers, by environment alone.

The suite is in `pytest_neon/`. The plugin is not installed where these tests run: its fixtures have the names of ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from lamplighter.compute.binaries import default_cache
from lamplighter.compute.locks import file_lock
from lamplighter.files import write_atomic
from support.front import free_port
from support.lamp import Lamp, temporary_lamp

HERE = Path(__file__).parent / "pytest_neon"
TESTS = 14
RUN_SECONDS = 110
#: How endpoints are addressed, and what libpq has to be told of that.
PORTS: tuple[str, dict[str, str]] = ("a port each", {})
DOMAIN: tuple[str, dict[str, str]] = ("a domain", {"PGHOSTADDR": "127.0.0.1"})


@pytest.fixture(scope="module")
def plugin() -> Path:
    """Where the plugin is, with what it needs that these tests do not; installed once and kept between runs."""
    wanted = (HERE / "requirements.txt").read_text()
    home = default_cache() / "pytest-neon-tests"
    home.mkdir(parents=True, exist_ok=True)
    packages, done = home / "packages", home / "installed.txt"
    with file_lock(home / ".lock"):
        if not done.exists() or done.read_text() != wanted:
            shutil.rmtree(packages, ignore_errors=True)
            options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", packages]
            command = [sys.executable, "-m", "pip", "install", *options, "-r", HERE / "requirements.txt"]
            subprocess.run(command, check=True, timeout=300)
            write_atomic(done, wanted.encode())
    return packages


@pytest.fixture(scope="module", params=[PORTS, DOMAIN], ids=lambda way: way[0])
def way(request: pytest.FixtureRequest) -> Iterator[tuple[Lamp, dict[str, str]]]:
    options = ["--console-proxy", "0"]
    if request.param is DOMAIN:
        options += ["--domain", "db.localhost", "--domain-port", str(free_port())]
    with temporary_lamp(options=tuple(options)) as lamp:
        with psycopg.connect(lamp.connection_uri, hostaddr="127.0.0.1") as connection:
            connection.execute("create table books (id int primary key, title text not null)")
            connection.execute("insert into books values (1, 'Emma'), (2, 'Ulysses'), (3, 'Walden')")
        yield lamp, request.param[1]


@dataclass(frozen=True)
class Ran:
    """`passed` are names of tests. `notes` are the suite's own: a worker, its branch, whether it has made it."""

    status: int
    out: str
    passed: tuple[str, ...]
    notes: tuple[tuple[str, str, str], ...]


def run_suite(place: Path, plugin: Path, lamp: Lamp, env: Mapping[str, str]) -> Ran:
    """As in a directory of its own, in a shell that has what docs/network.md tells to export."""
    suite = place / "suite"
    suite.mkdir()
    shutil.copy(HERE / "shared.py", suite / "conftest.py")
    for name in ("books", "loans", "place"):
        shutil.copy(HERE / f"{name}.py", suite / f"test_{name}.py")
    (suite / "pytest.ini").write_text("[pytest]\n")
    told = lamp.shown["console_proxy"]
    notes = place / "notes"
    # Its workers meet in the directory for temporary files.
    options = ["-v", "-n", "2", "--basetemp", place / "temporary", "--junitxml", place / "report.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:lamplighter", *options],
        cwd=suite,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(place),
            "PYTHONPATH": str(plugin),
            "HTTPS_PROXY": told["url"],
            "REQUESTS_CA_BUNDLE": told["ca_file"],
            "NEON_API_KEY": lamp.key,
            "NEON_PROJECT_ID": lamp.shown["project_id"],
            "SUITE_NOTES": str(notes),
            **env,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    report = ET.parse(place / "report.xml")
    passed = tuple(str(case.get("name")) for case in report.iter("testcase") if not list(case))
    lines = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
    return Ran(done.returncode, done.stdout, passed, tuple((one, two, three) for one, two, three in lines))


def test_a_suite_in_two_workers(way: tuple[Lamp, dict[str, str]], plugin: Path, tmp_path: Path):
    """Both share one branch of the project's default branch, migrated once, which is gone afterwards."""
    lamp, env = way
    branches = f"/projects/{lamp.shown['project_id']}/branches"
    before = [one["id"] for one in lamp.call("GET", branches)["branches"]]
    ran = run_suite(tmp_path, plugin, lamp, env)
    assert ran.status == 0, ran.out
    assert len(ran.passed) == TESTS, ran.out
    assert {worker for worker, _, _ in ran.notes} == {"gw0", "gw1"}
    assert len({branch for _, branch, _ in ran.notes}) == 1
    assert sorted(creator for _, _, creator in ran.notes) == ["False", "True"]
    operations = lamp.settle(lamp.shown["project_id"])
    assert {one["status"] for one in operations} == {"finished"}
    assert {one["branch_id"] for one in operations} == {*before, ran.notes[0][1]}
    assert [one["id"] for one in lamp.call("GET", branches)["branches"]] == before
