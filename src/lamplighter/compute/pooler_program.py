"""Find a PgBouncer on this host.

No wheel brings the program (the `pgbouncer` of PyPI is a test fixture without it), so it is the system's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.pooler_config import MINIMUM, Version, parse_version
from lamplighter.compute.pooler_errors import PoolerMissing

#: Debian's place, which is not in the PATH of an ordinary user.
_ELSEWHERE = "/usr/sbin:/usr/local/sbin"
_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class PoolerProgram:
    """A PgBouncer that runs here."""

    path: Path
    version: Version

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


def find_pooler(explicit: Path | None = None) -> PoolerProgram:
    """The PgBouncer to use: `explicit`, or else that of PATH or /usr/sbin. Runs it once. Raises `PoolerMissing`."""
    if explicit is not None:
        return _probe(explicit)
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:{_ELSEWHERE}")
    if found is None:
        raise PoolerMissing(f"there is no `pgbouncer` in PATH nor in {_ELSEWHERE.replace(':', ' nor in ')}")
    return _probe(Path(found))


def _probe(path: Path) -> PoolerProgram:
    try:
        done = subprocess.run(
            [str(path), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=_WITHIN,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PoolerMissing(f"{path} does not run ({error})", path) from error
    version = parse_version(done.stdout)
    if version is None:
        said = (done.stdout + done.stderr).strip()[:200]
        raise PoolerMissing(f"{path} does not say that it is PgBouncer ({said!r})", path)
    if version < MINIMUM:
        wanted, found = (".".join(map(str, each)) for each in (MINIMUM, version))
        raise PoolerMissing(f"{path} is version {found}, and {wanted} or later is needed", path)
    return PoolerProgram(path.absolute(), version)
