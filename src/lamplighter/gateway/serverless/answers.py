"""Bodies of answers, put together as text from values that are JSON already. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring as quoted

from lamplighter.gateway.serverless.values import Convert

#: One row's values, None for NULL.
Values = Sequence[str | None]

#: All that an error has beside its message, in the order of Neon's answers. What is missing is null.
ERROR_FIELDS = (
    "code",
    "detail",
    "hint",
    "position",
    "internalPosition",
    "internalQuery",
    "severity",
    "where",
    "table",
    "column",
    "schema",
    "dataType",
    "constraint",
    "file",
    "line",
    "routine",
)


@dataclass(frozen=True, slots=True)
class Field:
    """A column, named as node-postgres names its facts."""

    name: str
    dataTypeID: int  # noqa: N815 - as it goes out
    tableID: int  # noqa: N815
    columnID: int  # noqa: N815
    dataTypeSize: int  # noqa: N815
    dataTypeModifier: int  # noqa: N815
    format: str = "text"


def row_writer(names: Sequence[str], converters: Sequence[Convert], *, array: bool) -> Callable[[Values], str]:
    """Give what turns a row into JSON. Where two columns have one name, an object has the last of them."""
    columns = list(enumerate(converters))
    if array:
        return lambda values: f"[{','.join(_value(values[at], convert) for at, convert in columns)}]"
    last = {name: at for at, name in enumerate(names)}
    keyed = [(f"{quoted(name)}:", at, converters[at]) for name, at in last.items()]
    return lambda values: "{" + ",".join(key + _value(values[at], convert) for key, at, convert in keyed) + "}"


def _value(value: str | None, convert: Convert) -> str:
    return "null" if value is None else convert(value)


def command_and_count(tag: str) -> tuple[str, int | None]:
    """Read a command tag. `INSERT 0 3` has an object id before its count; `CREATE TABLE` has none."""
    words = tag.split(" ")
    counted = words[2:3] if words[0] == "INSERT" else words[1:2]
    return words[0], int(counted[0]) if counted and counted[0].isdecimal() else None


def result(tag: str, fields: Iterable[Field], rows: Iterable[str], *, array: bool) -> str:
    """One statement's answer. `rows` are JSON."""
    command, count = command_and_count(tag)
    described = json.dumps([asdict(field) for field in fields], ensure_ascii=False, separators=(",", ":"))
    return (
        f'{{"command":{quoted(command)},"rowCount":{"null" if count is None else count},"rows":[{",".join(rows)}],'
        f'"fields":{described},"rowAsArray":{"true" if array else "false"}}}'
    )


def results(answers: Iterable[str]) -> str:
    """A batch's answer."""
    return f'{{"results":[{",".join(answers)}]}}'


def error(message: str, fields: Mapping[str, str | None]) -> str:
    """Any error's answer."""
    known = {name: fields.get(name) for name in ERROR_FIELDS}
    return json.dumps({"message": message, **known}, ensure_ascii=False, separators=(",", ":"))
