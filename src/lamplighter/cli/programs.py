"""Postgres's own programs for users (psql, pg_dump): of the PATH, else of a version that the platform installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from lamplighter.cli.errors import Failure

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Program:
    """A path, and what its environment needs beside the user's own."""

    path: str
    environment: dict[str, str] = field(default_factory=dict)


def find_program(name: str, *, least: int = 0) -> Program:
    """The first that is there and of at least this major; raises Failure, which says how to get one."""
    old = []
    for program in _candidates(name):
        if not least:
            return program
        major = _major(program)
        if major >= least:
            return program
        old.append(str(major))
    newer = f" of PostgreSQL {least} or later" if least else ""
    found = f", only of {', '.join(old)}" if old else ""
    version = least or 17
    raise Failure(
        f"{name}{newer} is not on the PATH{found}",
        hint=f"install PostgreSQL's client programs, or `lamp postgres install {version}`",
    )


def _candidates(name: str) -> Iterator[Program]:
    on_path = shutil.which(name)
    if on_path is not None:
        yield Program(on_path)
    try:
        from lamplighter.compute.binaries import Binaries, default_cache  # noqa: PLC0415 - when PATH has none

        builds = Binaries(default_cache()).installed()
    except (ImportError, OSError):
        # Without the platform, or with a cache that is not ours to read, there are none.
        return
    for build in reversed(builds):
        if build.program(name).is_file():
            env = build.environment()
            libraries = {key: env[key] for key in ("LD_LIBRARY_PATH",) if key in env}
            yield Program(str(build.program(name)), libraries)


def _major(program: Program) -> int:
    try:
        done = subprocess.run(
            [program.path, "--version"],
            env=program.environment or None,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = _VERSION.search(done.stdout)
    return int(found[1]) if found else 0
