"""Takes from libpq the connection option that writes files.

libpq 18 appends TLS secrets to whatever `sslkeylogfile` names. Inside a server that is a hole: a user's dblink or
subscription gives a whole connection string, and could so append to any file of the user that Postgres runs as, which
means to other projects' data. Postgres has no setting against it, so the option's name in our copy of the library
becomes random letters that nobody knows.
"""

from __future__ import annotations

import re
import secrets
import string
from pathlib import Path

from lamplighter.compute.providers.build import Build, library_paths
from lamplighter.files import write_atomic

OPTION = b"\0sslkeylogfile\0"


def writes_key_logs(build: Build) -> bool:
    """Whether the libpq that the server itself loads knows the option. One without OpenSSL does nothing with it."""
    if not build.has_openssl:
        return False
    return any(OPTION in path.read_bytes() for path in _libpq(build))


def disarm(build: Build) -> None:
    """Rename the option in a tree that is ours. Running it again changes nothing."""
    for path in _libpq(build):
        resolved = path.resolve()
        content = resolved.read_bytes()
        if resolved.is_relative_to(build.prefix.resolve()) and OPTION in content:
            write_atomic(resolved, renamed(content, unguessable(len(OPTION) - 2)), mode=0o755)


def renamed(library: bytes, name: bytes) -> bytes:
    """The library with the option called `name`, which must be as long as the option's own name. Pure."""
    if len(name) != len(OPTION) - 2:
        raise ValueError(name)
    # two strings may share the zero byte between them, so it is looked at and not taken
    return re.sub(rb"(?<=\0)sslkeylogfile(?=\0)", lambda _match: name, library)


def unguessable(length: int) -> bytes:
    """Random lower-case letters: 61 bits for 13 of them."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(length)).encode()


def _libpq(build: Build) -> list[Path]:
    """What the modules that connect to other servers load, by the loader's own word."""
    modules = [build.lib_dir / name for name in ("libpqwalreceiver.so", "dblink.so", "postgres_fdw.so")]
    found = {
        path
        for module in modules
        if module.is_file()
        for path in library_paths(module, build.library_path)
        if re.match(r"libpq[.-]", path.name)
    }
    return sorted(found)
