"""Errors of Postgres as libpq has them, with the names that node-postgres gives their fields."""

from __future__ import annotations

import re

from psycopg import pq
from psycopg.pq.abc import PGresult

from lamplighter.gateway.serverless.errors import BadAnswer, SqlFailed
from lamplighter.gateway.wire import texts

_D = pq.DiagnosticField
_NAMES = {
    "code": _D.SQLSTATE,
    "severity": _D.SEVERITY,
    "detail": _D.MESSAGE_DETAIL,
    "hint": _D.MESSAGE_HINT,
    "position": _D.STATEMENT_POSITION,
    "internalPosition": _D.INTERNAL_POSITION,
    "internalQuery": _D.INTERNAL_QUERY,
    "where": _D.CONTEXT,
    "schema": _D.SCHEMA_NAME,
    "table": _D.TABLE_NAME,
    "column": _D.COLUMN_NAME,
    "dataType": _D.DATATYPE_NAME,
    "constraint": _D.CONSTRAINT_NAME,
    "file": _D.SOURCE_FILE,
    "line": _D.SOURCE_LINE,
    "routine": _D.SOURCE_FUNCTION,
}

#: libpq gives a failed login as text alone. These are the sentences of Postgres whose codes programs look at.
_LOGIN_CODES = (
    (re.compile(r"password authentication failed for user "), "28P01"),
    (re.compile(r'(role|database) ".*" (does not exist|is not permitted to log in)'), "28000"),
    (re.compile(r"no pg_hba\.conf entry for "), "28000"),
    (re.compile(r"([Tt]oo many (clients|connections) |remaining connection slots|sorry, too many)"), "53300"),
    (re.compile(r"permission denied for database "), "42501"),
    (re.compile(r"(the database system is |the endpoint |the compute could not )"), "57P03"),
    (re.compile(re.escape(texts.DISABLED)), texts.DISABLED_CODE),
)
_NO_DATABASE = re.compile(r'database ".*" does not exist')
_TOLD = re.compile(r"(?:^|: )(FATAL|ERROR|PANIC):  (.*)", re.DOTALL)


def text(value: bytes) -> str:
    """Read what Postgres sent. Raises BadAnswer for what is not UTF-8, as a database in SQL_ASCII may hold."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadAnswer from error


def sql_failed(result: PGresult) -> SqlFailed:
    """An error that a statement ended with, or that ended the connection meanwhile."""

    def field(which: pq.DiagnosticField) -> str | None:
        value = result.error_field(which)
        return None if value is None else value.decode("utf-8", "replace")

    message = field(_D.MESSAGE_PRIMARY) or result.get_error_message().strip()
    return SqlFailed(message, {name: field(which) for name, which in _NAMES.items()})


def login_failed(message: str) -> SqlFailed | None:
    """What the server, or the door before it, said when it refused a login; None if it is libpq that speaks."""
    told = _TOLD.search(message.strip())
    if told is None:
        return None
    severity, said = told[1], told[2]
    primary, _, more = said.partition("\n")
    fields: dict[str, str | None] = {"severity": severity, "code": _login_code(primary)}
    for line in more.splitlines():
        name, _, value = line.partition(":")
        if name in {"DETAIL", "HINT"}:
            fields[name.lower()] = value.strip()
    return SqlFailed(primary.strip(), fields)


def _login_code(message: str) -> str | None:
    if _NO_DATABASE.search(message):
        return "3D000"
    return next((code for pattern, code in _LOGIN_CODES if pattern.search(message)), None)
