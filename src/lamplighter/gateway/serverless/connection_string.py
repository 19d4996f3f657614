"""What the header `Neon-Connection-String` says. Pure.

Of its parameters only those count that a session can have: TLS and channel binding end before they get here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lamplighter.gateway.serverless.errors import BadConnectionString
from lamplighter.gateway.wire.errors import Malformed
from lamplighter.gateway.wire.startup import endpoint_of_options

#: Longer ones are refused before they are parsed.
LONGEST = 8192
_SCHEMES = ("postgres", "postgresql")
#: Postgres cuts longer names off; nobody means that.
_LONGEST_NAME = 1024


@dataclass(frozen=True, slots=True)
class Connection:
    """Who wants which database where. `options` are those of Postgres' command line, without the endpoint's id."""

    host: str
    port: int | None
    user: str
    password: str = field(repr=False)
    database: str
    application_name: str = ""
    options: str = ""


def parse(text: str) -> Connection:
    """Read `postgresql://user:password@host[:port]/database[?parameters]`. Raises BadConnectionString."""
    if len(text) > LONGEST or not text.isascii():
        raise BadConnectionString("invalid header: neon-connection-string")
    url, host, port = _split(text)
    database = _decoded(url.path[1:].partition("/")[0], "database name")
    user = _decoded(url.username or "", "username")
    password = _decoded(url.password or "", "password", longest=LONGEST)
    for value, missing in (
        (database, "missing database name"),
        (user, "missing username"),
        (password, "missing authentication credentials: required password"),
        (host, "missing hostname"),
    ):
        if not value:
            raise BadConnectionString(missing)
    given = _parameters(url.query)
    name = given.get("application_name") or given.get("fallback_application_name") or ""
    options = options_for_postgres(given.get("options", ""))
    return Connection(host, port, user, password, database, name, options)


def _split(text: str) -> tuple[SplitResult, str, int | None]:
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise BadConnectionString(f"invalid connection string: {error}") from error
    if url.scheme not in _SCHEMES:
        raise BadConnectionString("incorrect scheme")
    if port == 0:
        raise BadConnectionString("invalid connection string: invalid port number")
    return url, host, port


def _decoded(text: str, what: str, *, longest: int = _LONGEST_NAME) -> str:
    try:
        value = unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise BadConnectionString(f"invalid {what}: it is not UTF-8") from error
    if "\0" in value or len(value) > longest:
        raise BadConnectionString(f"invalid {what}")
    return value


def _parameters(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise BadConnectionString(f"invalid connection string: {error}") from error
    if any("\0" in value for _, value in pairs):
        raise BadConnectionString("invalid connection string: a parameter contains a zero byte")
    return dict(pairs)


def options_for_postgres(options: str) -> str:
    """Leave out the words that name the endpoint or are for Neon's proxy: Postgres would refuse them.

    Raises BadConnectionString.
    """
    try:
        _, rest = endpoint_of_options(options)
    except Malformed as error:
        raise BadConnectionString(f"invalid connection string: {error.message}") from error
    return " ".join(word for word in (rest or "").split(" ") if not word.startswith("neon_"))


def host_and_port(text: str) -> tuple[str, int | None]:
    """Read `host`, `host:port` or `[address]:port`, as a Host header or `?address=` has it.

    Raises BadConnectionString.
    """
    if not text.isascii() or len(text) > LONGEST:
        raise BadConnectionString("missing hostname")
    try:
        url = urlsplit(f"//{text}")
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise BadConnectionString(f"invalid hostname: {error}") from error
    if not host or url.username is not None or url.path or url.query or url.fragment:
        raise BadConnectionString("missing hostname")
    return host, port
