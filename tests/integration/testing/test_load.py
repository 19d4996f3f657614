"""What the plugin costs a run that does not use it, and what the package shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import lamplighter.testing
from lamplighter.testing import plugin

HEAVY = ["httpx2", "pydantic", "lamplighter.client", "lamplighter.api", "psycopg", "click"]


def imported_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after `code`."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_loading_the_plugin_imports_pytest_and_little_else():
    bare = imported_by("import pytest, contextlib, os, re, dataclasses, datetime, typing")

    loaded = imported_by("import lamplighter.testing.plugin") - bare

    assert loaded <= {
        "lamplighter",
        "lamplighter.testing",
        "lamplighter.testing.naming",
        "lamplighter.testing.plugin",
    }


def test_a_run_that_does_not_use_it_never_imports_the_client(tmp_path):
    (tmp_path / "test_plain.py").write_text(
        f"import sys\ndef test_plain():\n    assert not set({HEAVY!r}) & set(sys.modules)\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-p", "lamplighter.testing.plugin", "--rootdir", str(tmp_path)]
    # Some plugins of our own development import pydantic.
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=env,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_pytest_finds_the_plugin_by_its_entry_point():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {"lamplighter": plugin.__name__}


def test_all_names_of_the_package_are_there():
    for name in lamplighter.testing.__all__:
        assert getattr(lamplighter.testing, name).__module__.startswith("lamplighter.testing.")
    assert set(lamplighter.testing.__all__) <= set(dir(lamplighter.testing))


def test_a_name_that_is_not_there_is_an_attribute_error():
    assert not hasattr(lamplighter.testing, "Neon")
