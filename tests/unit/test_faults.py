"""The points at which a test can kill a process: each does what it says, and the list of them is right."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lamplighter
from lamplighter import faults

NAME, OTHER = "branch.create.after_clone", "branch.create.after_commit"
#: Passes the points named on its command line one after the other, and says so.
VISITOR = """
import sys
from lamplighter import faults

for name in sys.argv[1:]:
    faults.point(name)
    print(name, flush=True)
"""


def visit(*names: str, armed: str | None) -> tuple[int, list[str]]:
    """How a process ends that passes these points, and which it got past."""
    environment = {name: value for name, value in os.environ.items() if name != "LAMP_FAULT"}
    if armed is not None:
        environment["LAMP_FAULT"] = armed
    done = subprocess.run(
        [sys.executable, "-c", VISITOR, *names], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stdout.split()


def test_an_armed_point_kills_the_process_there():
    assert visit(OTHER, NAME, OTHER, armed=NAME) == (-signal.SIGKILL, [OTHER])


def test_a_point_with_a_count_kills_when_it_is_reached_that_often():
    assert visit(NAME, OTHER, NAME, OTHER, NAME, NAME, armed=f"{NAME}:3") == (
        -signal.SIGKILL,
        [NAME, OTHER, NAME, OTHER],
    )


@pytest.mark.parametrize("armed", [None, "", f"{NAME}:4", OTHER, "no.such.point", NAME[:-1]])
def test_nothing_happens_unless_that_point_is_armed_and_reached_as_often(armed):
    assert visit(NAME, NAME, NAME, armed=armed) == (0, [NAME, NAME, NAME])


@pytest.mark.parametrize("armed", ["", NAME, "no.such.point"])
def test_a_name_that_is_not_declared_is_an_error_armed_or_not(monkeypatch, armed):
    monkeypatch.setenv("LAMP_FAULT", armed)
    with pytest.raises(KeyError):
        faults.point("no.such.point")


def used_points() -> list[str]:
    """The names in all calls `faults.point("...")` of the package."""
    root = Path(lamplighter.__file__).parent
    calls = [
        node
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "faults.point"
    ]
    return [ast.literal_eval(call.args[0]) for call in calls]


def test_every_declared_point_is_in_the_code_once_and_no_other_is():
    assert sorted(used_points()) == sorted(faults.POINTS)
