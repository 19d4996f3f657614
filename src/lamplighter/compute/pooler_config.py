"""What a PgBouncer is told: its configuration, and who gets in.

Pure. Who gets in stands in a file, and not in an `auth_query`: that would be a session of PgBouncer itself, opened and
given settings (client_encoding, application_name, ...) by clients that have not proved anything, in databases of users;
and as its user, who needs no password by the socket, PgBouncer 1.18 lets in whoever says so with an empty password.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lamplighter.compute.config import COPIER, SUPERUSER, size_of

Version = tuple[int, int, int]

#: Before, a server connection that had failed kept clients out who had the right password for the next one.
MINIMUM: Version = (1, 17, 0)
PREPARED_SINCE: Version = (1, 21, 0)
#: From here on SIGTERM waits for clients, and SIGQUIT is what ends it at once.
QUIT_SINCE: Version = (1, 23, 0)

#: Neon's figures: its documentation of connection pooling, and `compute/etc/pgbouncer.ini` in its repository.
MAX_CLIENTS = 10_000
POOL_SHARE = 0.9
PREPARED_STATEMENTS = 1000
QUERY_WAIT_SECONDS = 120

#: Names of the platform, which nobody may take by the pooler: PgBouncer would enter as them by `peer`.
PLATFORM_ROLES = (SUPERUSER, COPIER)

#: Bytes of randomness for one verifier that nobody can meet.
RANDOM_BYTES = 80

_VERSION = re.compile(r"^PgBouncer (\d+)\.(\d+)(?:\.(\d+))?", re.MULTILINE)
_VERIFIER = re.compile(r"SCRAM-SHA-256\$[0-9]{1,10}:[A-Za-z0-9+/=]{1,400}\$[A-Za-z0-9+/=]{44}:[A-Za-z0-9+/=]{44}")
_LINE = re.compile(r'"((?:[^"]|"")*)" "((?:[^"]|"")*)"( "locked")?\n')
_MAX_NAME = 63


@dataclass(frozen=True, slots=True)
class PoolerSpec:
    """One pooler: beside which compute, where it listens (on 127.0.0.1), by which socket it reaches Postgres."""

    compute_id: str
    port: int
    socket_dir: Path
    socket_port: int
    cu: float = 0.25


@dataclass(frozen=True, slots=True)
class Users:
    """Verifiers by role. `locked` ones let nobody in.

    They are there because a PgBouncer that has known a name once takes an empty password for it when the name is gone
    from its file, and may hold an open session of it.
    """

    open: Mapping[str, str] = field(default_factory=dict)
    locked: Mapping[str, str] = field(default_factory=dict)


def parse_version(said: str) -> Version | None:
    """The version from what `pgbouncer --version` says; None if that is no PgBouncer."""
    found = _VERSION.search(said)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def pool_size(cu: float) -> int:
    """Server connections for each pair of user and database: 0.9 of `max_connections`, as at Neon."""
    return max(1, int(size_of(cu).max_connections * POOL_SHARE))


def render_ini(spec: PoolerSpec, *, version: Version, users_file: Path, files: int) -> str:
    """The whole configuration. `files` is how many files the process may have open: each client takes one.

    Raises ValueError for a path that PgBouncer would read as something else.
    """
    size = pool_size(spec.cu)
    settings: dict[str, object] = {
        "listen_addr": "127.0.0.1",
        "listen_port": spec.port,
        "listen_backlog": 4096,
        # No socket: whoever has PgBouncer's user would be administrator by it.
        "unix_socket_dir": "",
        "admin_users": "",
        "stats_users": "",
        "auth_type": "scram-sha-256",
        "auth_file": _path(users_file),
        # The gateway has ended TLS; both ways on from there stay on this host.
        "client_tls_sslmode": "disable",
        "server_tls_sslmode": "disable",
        "pool_mode": "transaction",
        "max_client_conn": max(10, min(MAX_CLIENTS, files - size - 100)),
        "default_pool_size": size,
        "query_wait_timeout": QUERY_WAIT_SECONDS,
        # Of 15 s, for which all clients of a role were refused after one of them had an old password.
        "server_login_retry": 1,
        "ignore_startup_parameters": "extra_float_digits",
        # Anybody can cause these, as many as they like.
        "log_connections": 0,
        "log_disconnections": 0,
        "log_pooler_errors": 0,
        "log_stats": 0,
    }
    if version >= PREPARED_SINCE:
        settings["max_prepared_statements"] = PREPARED_STATEMENTS
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    server = f"host={_quote(_path(spec.socket_dir))} port={spec.socket_port} application_name=pgbouncer"
    return f"; Written by Lamplighter; changes are lost.\n[databases]\n* = {server}\n\n[pgbouncer]\n{lines}"


def _path(path: Path) -> str:
    text = str(path)
    # A comma begins another host of a list, and a blank at the end is cut off.
    if not text.isprintable() or "," in text or text != text.strip() or not path.is_absolute():
        raise ValueError(f"PgBouncer cannot be told the path {text!r}: choose one without commas and odd blanks")
    return text


def _quote(value: str) -> str:
    """A value of a connection string in PgBouncer's own grammar, in which a backslash means itself."""
    return "'" + value.replace("'", "''") + "'"


def users_of(roles: Iterable[tuple[bytes, str]], former: Users, random: Callable[[int], bytes]) -> Users:
    """Who gets in now: `roles` are names, as they are stored, and verifiers, of those that may log in by password.

    Left out is what PgBouncer could not read. All that `former` has beside, and the platform's own, are locked.
    """
    opened = {}
    for stored, verifier in roles:
        name = _decode(stored)
        if name and may_enter(name, verifier):
            opened[name] = verifier
    known = dict.fromkeys((*PLATFORM_ROLES, *former.locked, *former.open))
    locked = {
        name: former.locked.get(name) or locked_verifier(random(RANDOM_BYTES)) for name in known if name not in opened
    }
    return Users(opened, locked)


def may_be_role(name: str) -> bool:
    """Whether there can be a role of users of that name: Postgres would cut off a longer one and find another."""
    stored = name.encode(errors="replace")
    return name not in PLATFORM_ROLES and _decode(stored) == name


def may_enter(name: str, verifier: str) -> bool:
    """Whether PgBouncer can be told of that role: not of the platform's own, nor of a verifier it could not read."""
    return name not in PLATFORM_ROLES and _VERIFIER.fullmatch(verifier) is not None


def _decode(name: bytes) -> str | None:
    try:
        return name.decode() if 0 < len(name) <= _MAX_NAME and b"\0" not in name else None
    except UnicodeDecodeError:
        return None


def locked_verifier(random: bytes) -> str:
    """A verifier of which nobody knows a password, as its keys were drawn and not derived. Takes 80 random bytes."""
    salt, stored, server = random[:16], random[16:48], random[48:80]
    return f"SCRAM-SHA-256$4096:{_text(salt)}${_text(stored)}:{_text(server)}"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def render_users(users: Users) -> str:
    """The file of users. What follows the second field is a note of ours, which PgBouncer passes over."""
    opened = (f'{_user(name)} "{verifier}"\n' for name, verifier in sorted(users.open.items()))
    locked = (f'{_user(name)} "{verifier}" "locked"\n' for name, verifier in sorted(users.locked.items()))
    return "".join((*opened, *locked))


def _user(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def parse_users(text: str) -> Users:
    """The inverse of `render_users`. What is no such line is passed over."""
    opened: dict[str, str] = {}
    locked: dict[str, str] = {}
    for name, verifier, note in _LINE.findall(text):
        (locked if note else opened)[name.replace('""', '"')] = verifier
    return Users(opened, locked)
