"""What both generators do with the files they make: format them, and write them or compare them with what is there."""

# ruff: noqa: INP001 - scripts, not a package

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "src" / "lamplighter" / "client"


def formatted(files: Mapping[Path, str]) -> dict[Path, str]:
    """Sorts imports, takes out those that are not used, and formats: all files in one run of ruff."""
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--quiet", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    # Modules that are not there yet would be sorted as somebody else's.
    config += ["--config", 'lint.isort.known-first-party = ["lamplighter"]']
    with tempfile.TemporaryDirectory() as place:
        names = {path: Path(place) / path.relative_to(ROOT) for path in files}
        for path, name in names.items():
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_text(files[path])
        # The last two are loops and comprehensions that need be none without async.
        rules = ["--select", "I,F401,C416,UP028", "--unsafe-fixes"]
        subprocess.run([*ruff, "check", *config, *rules, "--fix-only", place], check=True)
        # What is excused in the source may need no excuse any more.
        subprocess.run([*ruff, "check", *config, "--fix-only", "--fixable", "RUF100", place], check=True)
        subprocess.run([*ruff, "format", *config, place], check=True)
        return {path: name.read_text() for path, name in names.items()}


def differences(files: Mapping[Path, str], owned: Mapping[Path, str]) -> list[str]:
    """What would change, as diffs. `owned` are the files that are there now, and are ours to write or to delete."""
    found = []
    for path in sorted({*files, *owned}):
        have, want = owned.get(path, ""), files.get(path, "")
        if (path in owned) != (path in files) or have != want:
            name = str(path.relative_to(ROOT))
            lines = difflib.unified_diff(
                have.splitlines(keepends=True), want.splitlines(keepends=True), name, f"{name} (generated)", n=1
            )
            found.append("".join(lines) or f"{name}: {'is missing' if path in files else 'is left over'}\n")
    return found


def finish(files: Mapping[Path, str], owned: list[Path], description: str) -> int:
    """Writes the files, or with `--check` only tells what would change; gives the exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")
    check = parser.parse_args().check
    files = formatted(files)
    changes = differences(files, {path: path.read_text() for path in owned})
    if check:
        for change in changes:
            sys.stdout.write(change)
        if changes:
            sys.stderr.write("Generated files are not up to date: run `make generate`.\n")
        return int(bool(changes))
    for path in owned:
        if path not in files:
            path.unlink()
    for path, text in files.items():
        if path not in owned or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    sys.stdout.write(f"{len(files)} files, {len(changes)} changed\n")
    return 0
