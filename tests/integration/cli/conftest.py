"""`lamp` as a user runs it: a process, its output, its exit status."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.lamp_process import Ran, run_lamp

__all__ = ["Cli", "Ran"]


Cli = Callable[..., Ran]


@pytest.fixture
def cli() -> Cli:
    """`cli("status", "--output", "json", env={...})`."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, seconds: float = 90) -> Ran:
        return run_lamp([*map(str, arguments)], env={**os.environ, **(env or {})}, seconds=seconds)

    return run
