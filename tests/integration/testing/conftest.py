"""Suites of a user's own, run by a pytest of their own against a real platform."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.lamp import Lamp, sql, uri_of

RUN_SECONDS = 110

#: What the suites write down with: a line of JSON a call, in a file that outlives them.
_HELPER = """
import json, os

def note(**facts):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(facts) + "\\n")
"""


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest came to, and what its tests noted."""

    status: int
    counts: Counter[str]
    text: str
    notes: list[dict[str, Any]]


@dataclass
class Suite:
    """A directory of tests. `env` names the server, as a user's shell or CI would."""

    directory: Path
    env: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)

    def write(self, code: str, name: str = "test_user.py") -> Suite:
        (self.directory / name).write_text("from noting import note\n" + textwrap.dedent(code))
        return self

    def start(self, *options: str) -> subprocess.Popen[str]:
        """A run under way, in a process group of its own."""
        lines = [
            "[pytest]",
            "addopts = -p no:cacheprovider",
            "filterwarnings = error",
            "pythonpath = .",
        ]
        lines += [f"{name} = {value}" for name, value in self.settings.items()]
        (self.directory / "pytest.ini").write_text("\n".join(lines) + "\n")
        (self.directory / "noting.py").write_text(_HELPER)
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "lamplighter.testing.plugin", *options],
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str) -> Outcome:
        with self.start(*options) as process:
            text, _ = process.communicate(timeout=RUN_SECONDS)
        counts = Counter({word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", _last(text))})
        return Outcome(process.returncode, counts, text, self.notes())

    def passes(self, *options: str) -> list[dict[str, Any]]:
        """Run it; what its tests noted. Anything but tests that pass is an assertion error."""
        outcome = self.run(*options)
        assert outcome.status == 0, outcome.text
        return outcome.notes

    def notes(self) -> list[dict[str, Any]]:
        path = Path(self.env["NOTES"])
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


@pytest.fixture
def bare_suite(tmp_path: Path) -> Suite:
    """A suite whose environment names no server, with no contexts of the user who runs us."""
    directory = tmp_path / "suite"
    directory.mkdir()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NEON_", "LAMP_", "PYTEST_", "XDG_")) and name != "HOME"
    }
    # The plugins of our own development would cost each run more than its tests.
    inherited["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    places = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "NOTES": str(tmp_path / "notes")}
    return Suite(directory, {**inherited, **places})


@pytest.fixture
def project_id(lamp: Lamp) -> str:
    """A project of the test's own, with one row in a table."""
    made = lamp.project()
    sql(uri_of(made), "create table words as select 'hello' as word")
    return str(made["project"]["id"])


@pytest.fixture
def suite(bare_suite: Suite, lamp: Lamp, project_id: str) -> Suite:
    """A suite that is configured as in CI: by environment."""
    bare_suite.env |= {"NEON_API_KEY": lamp.key, "NEON_API_HOST": lamp.url, "NEON_PROJECT_ID": project_id}
    return bare_suite


class Branches:
    """The branches of the project, as the API lists them."""

    def __init__(self, lamp: Lamp, project_id: str) -> None:
        self.lamp = lamp
        self.project_id = project_id

    def names(self) -> set[str]:
        found = self.lamp.call("GET", f"/projects/{self.project_id}/branches")["branches"]
        return {branch["name"] for branch in found}

    def of_tests(self) -> set[str]:
        return {name for name in self.names() if name.startswith("lamp-test-")}


@pytest.fixture
def branches(lamp: Lamp, project_id: str) -> Branches:
    return Branches(lamp, project_id)
