"""`mypy --strict` reads the programs beside this file as their comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = ["sync_program.py", "async_program.py"]
HERE = Path(__file__).parent


def short(revealed: str) -> str:
    """`a.b.Page[a.c.Branch]` as `Page[Branch]`."""
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", revealed)


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[tuple[str, int], list[str]]:
    """What mypy says, by program and line: `is T` and `error: code`."""
    place = tmp_path_factory.mktemp("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", place / "cache"]
    command += ["--no-error-summary", "--hide-error-context", "--no-color-output", "--no-pretty"]
    done = subprocess.run(
        [*command, *(HERE / name for name in PROGRAMS)], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    found: dict[tuple[str, int], list[str]] = {}
    for line in done.stdout.splitlines():
        place, number, kind, text = re.fullmatch(r"(.+?):(\d+): (error|note): (.*)", line).groups()
        if revealed := re.fullmatch(r'Revealed type is "(.*)"', text):
            found.setdefault((Path(place).name, int(number)), []).append(f"is {short(revealed[1])}")
        elif kind == "error":
            code = re.search(r"\[([\w-]+)\]$", text)
            found.setdefault((Path(place).name, int(number)), []).append(f"error: {code[1]}" if code else text)
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_types_and_errors_are_those_that_the_program_names(program, said):
    lines = enumerate((HERE / program).read_text().splitlines(), 1)
    wanted = {number: mark[1] for number, line in lines if (mark := re.search(r"  # ((?:is|error:) .*)$", line))}
    assert len(wanted) > 15
    assert {number: each for (name, number), each in said.items() if name == program} == {
        number: [each] for number, each in wanted.items()
    }
