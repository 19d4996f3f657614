"""`lamp` as a user runs it: a process, its output, its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli() -> Cli:
    """`cli("status", "--output", "json", env={...})`."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, seconds: float = 90) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "lamplighter", *map(str, arguments)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            env={**os.environ, **(env or {})},
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
