"""The seed of every new data directory: one cleanly stopped cluster for each build, made once.

initdb takes a second or two, a clone of its result milliseconds, so it never runs when a project is created. The seed
has what every project needs: the platform's superuser, Neon's `neon_superuser` and a database to hand over. Nothing
listens while it is made: Postgres runs in single-user mode, which knows no connections and so no authentication.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lamplighter.compute import changes, config
from lamplighter.compute.errors import CacheUnreadable, TemplateFailed
from lamplighter.compute.locks import file_lock
from lamplighter.compute.providers.build import Build
from lamplighter.compute.providers.libpq import writes_key_logs
from lamplighter.compute.user import drop_prefix, first_blocked
from lamplighter.files import sync_directory

#: The platform's superuser, as Neon calls its own; users never become it.
SUPERUSER = config.SUPERUSER
#: The role that every role made by the API is a member of.
NEON_SUPERUSER = changes.NEON_SUPERUSER
#: Handed to the first role of a project, which may rename it.
DATABASE = "neondb"

#: Raised when what a seed contains changes: seeds of other revisions are left alone and not used.
REVISION = 1

_SECONDS = 180.0


async def ensure_template(
    build: Build,
    root: Path,
    *,
    owner: tuple[int, int] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """The seed's data directory below `root`, made if it is not there. It is not to be started, only cloned.

    `owner` (uid, gid) is who runs Postgres; root must name one, others need not. `progress` is called from another
    thread. Raises `TemplateFailed`, `SystemUserError`, and `CacheUnreadable` when the owner cannot reach `root`.
    """
    return await asyncio.to_thread(make_template, build, root, owner=owner, progress=progress)


def make_template(
    build: Build,
    root: Path,
    *,
    owner: tuple[int, int] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """`ensure_template` for callers without an event loop."""
    prefix = drop_prefix(owner)
    final = root / f"{build.major}-{build.id}-r{REVISION}"
    data_dir = final / "data"
    if data_dir.is_dir():
        return data_dir
    root.mkdir(parents=True, exist_ok=True)
    blocked = first_blocked(root) if prefix else None
    if blocked is not None:
        raise CacheUnreadable(root, blocked)
    with file_lock(root / ".lock"):
        for leftover in root.glob(".seed-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # another process may have made it while we waited
        if data_dir.is_dir():
            return data_dir
        if progress is not None:
            progress(f"PostgreSQL {build.major}: preparing the seed of new projects")
        _make(build, root, final, prefix=prefix, owner=owner if prefix else None)
    return data_dir


def seed_statements(major: int, *, subscriptions: bool = True) -> tuple[str, ...]:
    """What is said to a fresh cluster in single-user mode, in database `template1`. Pure.

    `subscriptions` tells whether users may make them, where Postgres lets others than superusers (16 and later).
    """
    statements = list(changes.neon_superuser_statements(major, subscriptions=subscriptions))
    if major < 15:
        # from 15 on the owner of a database owns its schema public; 14 knows the role but does not use it
        statements.append("ALTER SCHEMA public OWNER TO pg_database_owner")
    statements += [
        f"CREATE DATABASE {DATABASE}",
        f"GRANT CREATE ON DATABASE {DATABASE} TO {NEON_SUPERUSER}",
        "CHECKPOINT",
    ]
    return tuple(statements)


def initdb_arguments(major: int, data_dir: Path) -> tuple[str, ...]:
    """Arguments for initdb. Pure.

    Collations are C.UTF-8's, which sort by code point and cannot change with the C library: the data may be opened by
    another build of the same major. Checksums are on: they tell a torn or rotten page from data, on disks that we do
    not choose, and initdb is not slower with them beyond the noise (0.95 s against 0.90 s).
    """
    locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8") if major >= 17 else ()
    return (
        *("--pgdata", str(data_dir), "--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C.UTF-8", *locale),
        # the rules of the data directory are not the ones that count; should they ever be, nobody gets in
        *("--auth-local", "reject", "--auth-host", "reject"),
        # synced once, when all is written
        *("--data-checksums", "--no-sync", "--no-instructions"),
    )


def _make(build: Build, root: Path, final: Path, *, prefix: tuple[str, ...], owner: tuple[int, int] | None) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".seed-", dir=root))
    try:
        temporary.chmod(0o711)
        data_dir = temporary / "data"
        data_dir.mkdir(mode=0o700)
        if owner is not None:
            os.chown(data_dir, *owner)
        prefix = _dies_with_us(prefix)
        initdb = [*prefix, str(build.program("initdb")), *initdb_arguments(build.major, data_dir)]
        _run("initdb", initdb, build, cwd=temporary)
        # a subscription's connection string goes to libpq as it is
        statements = seed_statements(build.major, subscriptions=not writes_key_logs(build))
        run_single_user(build, data_dir, statements, owner=owner)
        sync = [*prefix, str(build.program("initdb")), "--sync-only", "--pgdata", str(data_dir)]
        _run("initdb --sync-only", sync, build, cwd=data_dir)
        sync_directory(temporary)
        temporary.rename(final)
        sync_directory(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def run_single_user(
    build: Build, data_dir: Path, statements: Sequence[str], *, owner: tuple[int, int] | None = None
) -> None:
    """Run statements as the superuser in `template1` of a stopped cluster; the first error ends it (`TemplateFailed`).

    No statement may hold a semicolon followed by an empty line.
    """
    command = _single_user(_dies_with_us(drop_prefix(owner)), build, data_dir)
    script = "".join(f"{statement};\n\n" for statement in statements)
    _run("a statement in single-user mode", command, build, cwd=data_dir, stdin=script)


def _single_user(prefix: tuple[str, ...], build: Build, data_dir: Path) -> list[str]:
    settings = {
        # an error would otherwise be printed and passed over
        "exit_on_error": "on",
        "shared_buffers": "16MB",
        "max_connections": "20",
        "dynamic_shared_memory_type": "mmap",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    # -j: a statement ends at a semicolon and an empty line
    return [*prefix, str(build.program("postgres")), "--single", "-j", *options, "-D", str(data_dir), "template1"]


def _dies_with_us(prefix: tuple[str, ...]) -> tuple[str, ...]:
    """A program that outlives us would go on writing into a directory that the next run removes."""
    setpriv = prefix[0] if prefix else shutil.which("setpriv")
    if setpriv is None:
        return prefix
    return (setpriv, "--pdeathsig=KILL", *(prefix[1:] or ("--",)))


def _run(step: str, command: Sequence[str], build: Build, *, cwd: Path, stdin: str = "") -> None:
    try:
        done = subprocess.run(
            command,
            input=stdin,
            cwd=cwd,
            env=build.environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TemplateFailed(step, str(error)) from error
    if done.returncode != 0:
        raise TemplateFailed(step, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
