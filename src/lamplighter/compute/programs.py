"""Ask the programs of a build, which read something, print what they found and end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping

from lamplighter.compute import launcher, logs
from lamplighter.compute.config import Floors
from lamplighter.compute.errors import ChangeFailed, StartFailed
from lamplighter.compute.ports import ComputeSpec, PostgresBuild

#: Seconds for what is some 15 ms of work.
WITHIN = 30.0

_FLOOR_LINE = re.compile(r"^(max_\w+) setting: +(\d+)$", re.MULTILINE)
_FLOOR_NAMES = {"max_locks_per_xact": "max_locks_per_transaction", "max_prepared_xacts": "max_prepared_transactions"}


def _run(argv: Iterable[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str] | None:
    """Run a program to its end; None if it did not end in time, and was killed."""
    try:
        return subprocess.run(
            list(argv),
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=WITHIN,
        )
    except subprocess.TimeoutExpired:
        return None


def floors(spec: ComputeSpec, build: PostgresBuild, drop: Iterable[str]) -> Floors:
    """What the WAL that a standby begins with was written under: less is refused by Postgres. Raises `StartFailed`."""
    argv = [*spec.enter, *drop, str(build.program("pg_controldata")), "-D", str(spec.data_dir)]
    done = _run(argv, build.environment())
    if done is None:
        raise StartFailed(spec.id, f"pg_controldata gave no answer within {WITHIN:.0f} s; is the disk stuck?")
    found = {_FLOOR_NAMES.get(name, name): int(value) for name, value in _FLOOR_LINE.findall(done.stdout)}
    return Floors(**{name: value for name, value in found.items() if name in Floors.__slots__})


def refused_settings(build: PostgresBuild, drop: Iterable[str], settings: Mapping[str, str]) -> list[str]:
    """Have `postgres -C` read the settings: it checks names and values and starts nothing. Some 12 ms a call.

    All are given at once, and one by one only if that fails, because it stops at the first problem. A sentence for
    each problem. Raises `ChangeFailed` when there is no answer.
    """
    argv = [*drop, str(build.program("postgres")), "-C", "port", "-D", "/", "-c", "config_file=/dev/null"]
    env = launcher.environment(build.environment())
    groups = [dict(settings)]
    problems = []
    while groups:
        group = groups.pop(0)
        given = [word for name, value in group.items() for word in ("-c", f"{name}={value}")]
        done = _run([*argv, *given], env)
        if done is None:
            raise ChangeFailed("Checking settings", f"Postgres gave no answer within {WITHIN:.0f} s")
        if done.returncode and len(group) > 1:
            groups += [{name: value} for name, value in group.items()]
        elif done.returncode:
            problems.append(logs.cause(done.stderr) or f"The setting {next(iter(group), '')} is not accepted")
    return [f"{problem[0].upper()}{problem[1:]}." for problem in problems]
