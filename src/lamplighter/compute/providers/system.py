"""Finds a Postgres that the system, or its user, has installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

#: Where Debian, Ubuntu (first) and the PGDG packages of Red Hat's family (second) put a major's programs.
SYSTEM_PATTERNS = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")


def system_bin_dirs(major: int) -> tuple[Path, ...]:
    """Directories that may hold `postgres` of this major, best first. None of them is promised to."""
    found = [Path(pattern.format(major=major)) for pattern in SYSTEM_PATTERNS]
    config = shutil.which("pg_config")
    if config is not None:
        done = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode == 0 and done.stdout.strip():
            found.append(Path(done.stdout.strip()))
    return tuple(dict.fromkeys(path for path in found if (path / "postgres").is_file()))
