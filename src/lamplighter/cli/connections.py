"""Connection strings taken apart and put together again, for other clients and for libpq's programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SSL_MODES = ("require", "verify-ca", "verify-full", "omit")

#: libpq's environment variables for what a server may put into a connection string.
_VARIABLES: Final = {
    "application_name": "PGAPPNAME",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "gssencmode": "PGGSSENCMODE",
    "options": "PGOPTIONS",
    "require_auth": "PGREQUIREAUTH",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
#: What would lead libpq elsewhere than to the server that is named.
_MISLEADING: Final = frozenset(
    {"PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGLOADBALANCEHOSTS", "PGPORT", "PGSYSCONFDIR"}
)


@dataclass(frozen=True, slots=True)
class Parts:
    """A connection string. `host` is as written, without the port; `parameters` are in order, decoded."""

    role: str
    password: str
    host: str
    port: str
    database: str
    parameters: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Parts(role={self.role!r}, host={self.host!r}, port={self.port!r}, database={self.database!r})"

    @property
    def address(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    @property
    def uri(self) -> str:
        login = quote(self.role, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in self.parameters)
        return f"postgresql://{login}@{self.address}/{quote(self.database, safe='')}" + (f"?{query}" if query else "")

    def having(self, **parameters: str) -> Parts:
        """With these parameters in the place of what they were."""
        kept = tuple((name, value) for name, value in self.parameters if name not in parameters)
        return replace(self, parameters=(*kept, *parameters.items()))

    def lacking(self, *names: str) -> Parts:
        """Without these parameters."""
        return replace(self, parameters=tuple(one for one in self.parameters if one[0] not in names))


def parts_of(uri: str) -> Parts:
    """Raises ValueError, which does not repeat the string, for what is no connection string with a host and a role."""
    try:
        split = urlsplit(uri)
        host, port = split.hostname, split.port
    except ValueError:
        host = None
    if host is None or split.scheme not in ("postgres", "postgresql") or not split.username:
        raise ValueError("the server's connection string cannot be read")
    return Parts(
        role=unquote(split.username),
        password=unquote(split.password or ""),
        host=host,
        port="" if port is None else str(port),
        database=unquote(split.path.removeprefix("/")),
        # A plus stays one: libpq does not take it for a blank.
        parameters=tuple(parse_qsl(split.query.replace("+", "%2B"), keep_blank_values=True)),
    )


def with_ssl(parts: Parts, mode: str | None) -> Parts:
    """`omit` takes both parameters away, another mode is set; None leaves what the server says."""
    if mode is None:
        return parts
    return parts.lacking("sslmode", "channel_binding") if mode == "omit" else parts.having(sslmode=mode)


def for_prisma(parts: Parts, *, pooled: bool) -> Parts:
    """With what Prisma needs while a compute wakes, and behind a pooler."""
    waiting = parts.having(connect_timeout="30")
    return waiting.having(pool_timeout="30", pgbouncer="true") if pooled else waiting


def at_point(parts: Parts, *, endpoint_id: str, branch_id: str, point: str | datetime) -> Parts:
    """To the branch as it was at an LSN or a time, which Neon serves under a host of the branch's own.

    Raises ValueError where hosts are not named after endpoints, and so cannot be named after branches.
    """
    first, dot, rest = parts.host.partition(".")
    if first != endpoint_id or not dot:
        raise ValueError("connections to a past point in time are not available on this server")
    if isinstance(point, str):
        option = f"neon_lsn:{point}"
    else:
        option = f"neon_timestamp:{point.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}"
    return replace(parts, host=f"{branch_id}.{rest}").having(options=option)


def environment(parts: Parts, environ: Mapping[str, str]) -> dict[str, str]:
    """What libpq's programs connect with by default. The password is here, as arguments can be read by others."""
    env = {name: value for name, value in environ.items() if name not in _MISLEADING}
    env |= {"PGHOST": parts.host, "PGUSER": parts.role, "PGDATABASE": parts.database}
    # Empty means the default to libpq, but an older file or variable must not stand in for it.
    env |= {"PGPORT": parts.port} if parts.port else {"PGPORT": "5432"}
    if parts.password:
        env["PGPASSWORD"] = parts.password
    else:
        env.pop("PGPASSWORD", None)
    for name in ("PGOPTIONS", "PGSSLMODE", "PGCHANNELBINDING", "PGREQUIREAUTH", "PGTARGETSESSIONATTRS"):
        env.pop(name, None)
    env |= {_VARIABLES[name]: value for name, value in parts.parameters if name in _VARIABLES}
    return env
