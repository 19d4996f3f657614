"""One Postgres on disk, and the probe that tells whether it runs here.

A build is trusted only after its own `postgres` and `initdb` have run: wheel tags promise less than they say about the
C library and the system libraries that are needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.providers.facts import (
    built_with_openssl,
    describe_missing,
    found_libraries,
    missing_libraries,
    needed_glibc,
    parse_pg_config,
    parse_server_version,
)

_PROBE_SECONDS = 30.0
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


class ProbeFailed(Exception):  # never leaves the package: it becomes one line of BinariesUnavailable
    """A Postgres is there but does not run. `missing` are the shared libraries that it lacks."""

    def __init__(self, why: str, missing: tuple[str, ...] = ()) -> None:
        self.why = why
        self.missing = missing
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Build:
    """The programs of one PostgreSQL.

    `lib_dir` is its pkglibdir (where extensions' `.so` lie), `library_path` what LD_LIBRARY_PATH must hold, `owned`
    whether the tree is ours to change. `id` is written beside each data directory: equal ids mean the same binary.
    """

    major: int
    version: str
    provider: str
    prefix: Path
    bin_dir: Path
    share_dir: Path
    lib_dir: Path
    library_path: tuple[Path, ...]
    has_openssl: bool
    owned: bool
    id: str

    def program(self, name: str) -> Path:
        """Path of `postgres`, `initdb`, `pg_basebackup` ... No check that it is there."""
        return self.bin_dir / name

    def environment(self) -> dict[str, str]:
        """The whole environment for a program of this build.

        Nothing else is inherited: a postmaster must not learn our secrets, libpq's PG* variables, or a NOTIFY_SOCKET
        that would have it report to somebody else's service manager.
        """
        return run_environment(self.library_path)


def run_environment(library_path: tuple[Path, ...]) -> dict[str, str]:
    """PATH, a UTF-8 locale (a missing or bad one makes initdb choose SQL_ASCII or fail) and the library path."""
    env = {"PATH": os.environ.get("PATH", _DEFAULT_PATH), "LC_ALL": "C.UTF-8"}
    libraries = [str(path) for path in library_path]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    if inherited:
        libraries.append(inherited)
    if libraries:
        env["LD_LIBRARY_PATH"] = ":".join(libraries)
    for name in ("TZ", "TMPDIR"):
        if name in os.environ:
            env[name] = os.environ[name]
    return env


def probe(
    bin_dir: Path,
    *,
    provider: str,
    owned: bool,
    library_path: tuple[Path, ...] = (),
    prefix: Path | None = None,
) -> Build:
    """Run what lies in `bin_dir` and describe it. Raises `ProbeFailed` with a reason for people."""
    for name in ("postgres", "initdb"):
        if not (bin_dir / name).is_file():
            raise ProbeFailed(f"there is no `{name}` in {bin_dir}")
    major, version = probe_version(bin_dir, library_path)
    _run(bin_dir / "initdb", "--version", library_path=library_path)
    facts = _config(bin_dir, library_path)
    share_dir = _directory(facts.get("SHAREDIR"), bin_dir, f"/usr/share/postgresql/{major}", "share")
    lib_dir = _directory(facts.get("PKGLIBDIR"), bin_dir, f"/usr/lib/postgresql/{major}/lib", "lib")
    if not (share_dir / "postgres.bki").is_file():
        raise ProbeFailed(f"there is no postgres.bki in {share_dir}: the installation is incomplete")
    return Build(
        major=major,
        version=version,
        provider=provider,
        prefix=prefix or bin_dir.parent,
        bin_dir=bin_dir,
        share_dir=share_dir,
        lib_dir=lib_dir,
        library_path=library_path,
        has_openssl=_has_openssl(facts.get("CONFIGURE"), bin_dir, library_path),
        owned=owned,
        id=f"{provider}-{version}-{_fingerprint(bin_dir / 'postgres')}",
    )


def probe_version(bin_dir: Path, library_path: tuple[Path, ...]) -> tuple[int, str]:
    """Major and version that `postgres --version` really prints. Raises `ProbeFailed`."""
    printed = _run(bin_dir / "postgres", "--version", library_path=library_path)
    try:
        return parse_server_version(printed)
    except ValueError as error:
        raise ProbeFailed(f"`postgres --version` answered strangely: {error}") from error


def library_complaints(file: Path, library_path: tuple[Path, ...]) -> tuple[str, ...]:
    """Sonames that the loader cannot find for an ELF file; nothing where there is no `ldd`."""
    return missing_libraries(_ldd(file, library_path))


def library_paths(file: Path, library_path: tuple[Path, ...]) -> tuple[Path, ...]:
    """The shared libraries that the loader picks for an ELF file."""
    return found_libraries(_ldd(file, library_path))


def _run(program: Path, *arguments: str, library_path: tuple[Path, ...]) -> str:
    try:
        done = subprocess.run(
            [program, *arguments],
            env=run_environment(library_path),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProbeFailed(f"`{program.name}` does not run: {error}") from error
    if done.returncode == 0:
        return done.stdout
    ldd = _ldd(program, library_path)
    glibc = needed_glibc(ldd + done.stderr)
    if glibc:
        raise ProbeFailed(f"`{program.name}` needs glibc {glibc} or newer, which this system does not have")
    missing = missing_libraries(ldd)
    if missing:
        raise ProbeFailed(describe_missing(missing), missing)
    said = done.stderr.strip().splitlines()
    raise ProbeFailed(f"`{program.name} {' '.join(arguments)}` failed: {said[-1] if said else done.returncode}")


def _ldd(file: Path, library_path: tuple[Path, ...]) -> str:
    ldd = shutil.which("ldd")
    if ldd is None:
        return ""
    done = subprocess.run(
        [ldd, file],
        env=run_environment(library_path),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PROBE_SECONDS,
        check=False,
    )
    return done.stdout + done.stderr


def _config(bin_dir: Path, library_path: tuple[Path, ...]) -> dict[str, str]:
    """What pg_config prints; nothing where the build has none, or one that does not run."""
    if not (bin_dir / "pg_config").is_file():
        return {}
    try:
        return parse_pg_config(_run(bin_dir / "pg_config", library_path=library_path))
    except ProbeFailed:
        return {}


def _directory(reported: str | None, bin_dir: Path, debian: str, relative: str) -> Path:
    if reported:
        return Path(reported)
    system = Path(debian)
    return system if bin_dir.is_relative_to("/usr/lib/postgresql") and system.is_dir() else bin_dir.parent / relative


def _has_openssl(configure: str | None, bin_dir: Path, library_path: tuple[Path, ...]) -> bool:
    if configure and built_with_openssl(configure):
        return True
    return "libssl" in _ldd(bin_dir / "postgres", library_path)


def _fingerprint(file: Path) -> str:
    with file.open("rb") as binary:
        return hashlib.file_digest(binary, "sha256").hexdigest()[:8]
