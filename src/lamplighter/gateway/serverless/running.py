"""Run what a request asks for on one connection, and put its answer together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from json.encoder import encode_basestring as quoted

from psycopg.pq.abc import PGresult

from lamplighter.gateway.serverless import answers
from lamplighter.gateway.serverless.diagnostics import text
from lamplighter.gateway.serverless.errors import BadAnswer, ConnectionLost, ResponseTooLarge, SqlFailed
from lamplighter.gateway.serverless.limits import Share
from lamplighter.gateway.serverless.session import Session
from lamplighter.gateway.serverless.statements import Manner, Statement, Work
from lamplighter.gateway.serverless.values import ArrayType, Convert, UnbalancedArray, converter, unknown

#: Rows are turned into JSON in steps of so many, so that a long answer does not keep others waiting.
_STEP_ROWS = 256
_ARRAYS = (
    "SELECT t.oid, e.oid, e.typdelim FROM pg_catalog.pg_type t "
    "LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem "
    "AND e.typarray OPERATOR(pg_catalog.=) t.oid "
    "WHERE t.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])"
)
_SMALL = 1 << 20


async def run(session: Session, work: Work, manner: Manner, *, share: Share, most_bytes: int) -> str:
    """Give the body of the answer. A batch is one transaction, rolled back at its first error.

    Raises SqlFailed and ConnectionLost, ResponseTooLarge, TooBusy, BadAnswer.
    """
    meter = _Meter(share, most_bytes)
    if not work.batch:
        return await _statement(session, work.statements[0], manner, meter)
    await session.execute(manner.begin, most_bytes=_SMALL)
    try:
        done = [await _statement(session, statement, manner, meter) for statement in work.statements]
    except SqlFailed:
        with suppress(ConnectionLost):
            await session.execute("ROLLBACK", most_bytes=_SMALL)
        raise
    await session.execute("COMMIT", most_bytes=_SMALL)
    return answers.results(done)


class _Meter:
    """Counts the bytes of all rows of one answer, as Postgres counts them in a message."""

    def __init__(self, share: Share, most_bytes: int) -> None:
        self._share = share
        self.most_bytes = most_bytes
        self._left = most_bytes

    def row(self, values: Sequence[bytes | None]) -> None:
        size = sum(4 if value is None else 4 + len(value) for value in values)
        self._left -= size
        if self._left < 0:
            raise ResponseTooLarge(self.most_bytes)
        self._share.take(size)


async def _statement(session: Session, statement: Statement, manner: Manner, meter: _Meter) -> str:
    rows: list[list[bytes | None]] = []

    def keep(result: PGresult) -> None:
        columns = range(result.nfields)
        for row in range(result.ntuples):
            values = [result.get_value(row, column) for column in columns]
            meter.row(values)
            rows.append(values)

    done = await session.execute(statement.query, statement.parameters, on_rows=keep, most_bytes=meter.most_bytes)
    fields = [_field(done.columns, column) for column in range(done.columns.nfields)]
    converters = await _converters(session, fields, manner)
    array = manner.array_mode if statement.array_mode is None else statement.array_mode
    written = await _written(rows, fields, converters, array=array)
    return answers.result(text(done.tag), fields, written, array=array)


def _field(result: PGresult, column: int) -> answers.Field:
    return answers.Field(
        name=text(result.fname(column) or b""),
        dataTypeID=result.ftype(column),
        tableID=result.ftable(column),
        columnID=result.ftablecol(column),
        dataTypeSize=result.fsize(column),
        dataTypeModifier=result.fmod(column),
    )


async def _converters(session: Session, fields: Sequence[answers.Field], manner: Manner) -> list[Convert]:
    oids = [field.dataTypeID for field in fields]
    if manner.raw_text:
        return [quoted] * len(oids)
    missing = unknown(oids)
    known = await _look_up(session, missing) if missing else {}
    return [converter(oid, known) for oid in oids]


async def _look_up(session: Session, oids: set[int]) -> Mapping[int, ArrayType | None]:
    """Which of the types of this database are arrays, and of what."""
    found: dict[int, ArrayType | None] = {}

    def keep(result: PGresult) -> None:
        for row in range(result.ntuples):
            oid, element, delimiter = (result.get_value(row, column) for column in range(3))
            if oid and element and delimiter:
                found[int(oid)] = ArrayType(int(element), text(delimiter))

    wanted = "{" + ",".join(str(oid) for oid in sorted(oids)) + "}"
    await session.execute(_ARRAYS, [wanted], on_rows=keep, most_bytes=_SMALL)
    return found


async def _written(
    rows: list[list[bytes | None]], fields: Sequence[answers.Field], converters: Sequence[Convert], *, array: bool
) -> list[str]:
    write = answers.row_writer([field.name for field in fields], converters, array=array)
    written = []
    for at, values in enumerate(rows, start=1):
        if at % _STEP_ROWS == 0:
            await asyncio.sleep(0)
        try:
            written.append(write([None if value is None else text(value) for value in values]))
        except UnbalancedArray as error:
            raise BadAnswer from error
    return written
