"""The user that Postgres runs as: oneself, or, for root, a system user of its own.

Postgres refuses to run as root. `setpriv` is the cheapest way to another user (3 ms) that also works where an event
loop will not pass `user=` to a child.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

from lamplighter.compute.errors import SystemUserError

USER_NAME = "lamplighter"

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class SystemUser(NamedTuple):
    """Ids for chown and setpriv."""

    uid: int
    gid: int


def current_or_system_user() -> SystemUser:
    """Who Postgres runs as here: the present user, and for root the system user. Raises `SystemUserError`."""
    if os.geteuid() != 0:
        return SystemUser(os.geteuid(), os.getegid())
    return ensure_system_user()


def ensure_system_user(name: str = USER_NAME) -> SystemUser:
    """Find the system user, or make it (root only). Raises `SystemUserError` with what to do."""
    found = _lookup(name)
    if found is not None:
        return found
    useradd = _which("useradd")
    if useradd is None:
        raise SystemUserError(f"There is no user `{name}` and no `useradd` to make it: make a system user `{name}`.")
    nologin = _which("nologin") or "/bin/false"
    done = subprocess.run(
        [
            *(useradd, "--system", "--user-group", "--no-create-home"),
            *("--home-dir", "/nonexistent", "--shell", nologin, name),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # looked up whatever useradd said: another process may have been quicker
    made = _lookup(name)
    if made is None:
        raise SystemUserError(f"The system user `{name}` could not be made: {done.stderr.strip() or done.returncode}")
    return made


def drop_prefix(owner: tuple[int, int] | None) -> tuple[str, ...]:
    """The argv prefix that runs a program as `owner`: empty unless we are root. Raises `SystemUserError`.

    The program keeps no group, no capability to hand on, and can gain no privilege through a setuid file.
    """
    if os.geteuid() != 0 or owner is None:
        return ()
    uid, gid = owner
    if uid == 0:
        raise SystemUserError("Postgres does not run as root: name another owner of the data.")
    setpriv = _which("setpriv")
    if setpriv is None:
        raise SystemUserError("Root needs `setpriv` (package util-linux) to run Postgres as another user.")
    return (
        setpriv,
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        "--inh-caps=-all",
        "--no-new-privs",
        "--",
    )


def first_blocked(path: Path) -> Path | None:
    """The first directory on the way to `path`, itself included, that not everybody may enter; None if all may."""
    resolved = path.resolve()
    for directory in (*reversed(resolved.parents), resolved):
        if directory.is_dir() and not directory.stat().st_mode & stat.S_IXOTH:
            return directory
    return None


def _lookup(name: str) -> SystemUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    if entry.pw_uid == 0:
        raise SystemUserError(f"The user `{name}` is root under another name; Postgres does not run as root.")
    return SystemUser(entry.pw_uid, entry.pw_gid)


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SBIN}:/usr/bin:/bin")
