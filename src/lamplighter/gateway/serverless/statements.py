"""What a request asks for: statements with their parameters as text, and how they are to be run. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lamplighter.gateway.serverless.errors import BadRequest

#: Postgres counts them in 16 bits.
MOST_PARAMETERS = 65535

ISOLATION_LEVELS: Final = {
    "ReadUncommitted": "READ UNCOMMITTED",
    "ReadCommitted": "READ COMMITTED",
    "RepeatableRead": "REPEATABLE READ",
    "Serializable": "SERIALIZABLE",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """`parameters` are text, or None for NULL. `array_mode` None: as the header says."""

    query: str
    parameters: tuple[str | None, ...] = ()
    array_mode: bool | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The body. `batch`: all of it in one transaction."""

    statements: tuple[Statement, ...]
    batch: bool


@dataclass(frozen=True, slots=True)
class Manner:
    """The headers. `isolation` is one of ISOLATION_LEVELS, as the header spells it."""

    raw_text: bool = False
    array_mode: bool = False
    isolation: str | None = None
    read_only: bool = False
    deferrable: bool = False

    @property
    def begin(self) -> str:
        """The statement that begins a batch's transaction."""
        words = [f"ISOLATION LEVEL {ISOLATION_LEVELS[self.isolation]}"] if self.isolation else []
        words += ["READ ONLY"] if self.read_only else []
        words += ["DEFERRABLE"] if self.deferrable else []
        return " ".join(["START TRANSACTION", ", ".join(words)]).strip()

    @property
    def echoed(self) -> dict[str, str]:
        """The headers of a batch's answer that repeat what was asked for."""
        said = {
            "neon-batch-read-only": "true" if self.read_only else None,
            "neon-batch-deferrable": "true" if self.deferrable else None,
            "neon-batch-isolation-level": self.isolation,
        }
        return {name: value for name, value in said.items() if value is not None}


def manner(headers: Mapping[str, str]) -> Manner:
    """Read the headers, whose names are in lower case. Anything but `true` is false. Raises BadRequest."""
    isolation = headers.get("neon-batch-isolation-level")
    if isolation is not None and isolation not in ISOLATION_LEVELS:
        raise BadRequest("invalid isolation level")
    return Manner(
        raw_text=headers.get("neon-raw-text-output") == "true",
        array_mode=headers.get("neon-array-mode") == "true",
        isolation=isolation,
        read_only=headers.get("neon-batch-read-only") == "true",
        deferrable=headers.get("neon-batch-deferrable") == "true",
    )


class _Number(str):
    """A number as it was written, so that no digit of a `numeric` is lost on the way."""

    __slots__ = ()


def read_body(body: bytes) -> Work:
    """Read `{"query", "params", "arrayMode"}` or `{"queries": [...]}`. Raises BadRequest."""
    try:
        return _work(json.loads(body, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant))
    except RecursionError as error:
        raise _wrong("it is nested too deeply") from error
    except ValueError as error:
        raise _wrong(str(error)) from error


def _no_constant(name: str) -> Any:
    raise _wrong(f"{name} is not JSON")


def _wrong(why: str) -> BadRequest:
    return BadRequest(f"could not parse the HTTP request body: {why}")


def _work(given: Any) -> Work:
    if not isinstance(given, dict):
        raise _wrong("it is no object")
    if "query" in given:
        return Work((_statement(given),), batch=False)
    if not isinstance(given.get("queries"), list):
        raise _wrong("it has neither `query` nor `queries`")
    return Work(tuple(_statement(one) for one in given["queries"]), batch=True)


def _statement(given: Any) -> Statement:
    if not isinstance(given, dict) or type(given.get("query")) is not str:
        raise _wrong("`query` must be a string")
    parameters, array_mode = given.get("params", []), given.get("arrayMode")
    if not isinstance(parameters, list):
        raise _wrong("`params` must be an array")
    if not isinstance(array_mode, bool | None):
        raise _wrong("`arrayMode` must be true or false")
    if len(parameters) > MOST_PARAMETERS:
        raise _wrong(f"more than {MOST_PARAMETERS} parameters")
    texts = tuple(None if one is None else _clean(parameter_text(one)) for one in parameters)
    return Statement(_clean(given["query"]), texts, array_mode)


def _clean(text: str) -> str:
    if "\0" in text:
        # libpq would end the text there, and run something else than what was sent.
        raise _wrong("a zero byte is in a query or parameter")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _wrong("half of a surrogate pair is in a query or parameter") from error
    return text


def parameter_text(value: Any) -> str:
    """Give the text of a parameter that is not null: a JSON array becomes an array of Postgres."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _array(value)
    return json_text(value)


def _array(values: list[Any]) -> str:
    return "{" + ",".join(_element(value) for value in values) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _array(value)
    if isinstance(value, bool | _Number):
        return json_text(value)
    text = value if isinstance(value, str) else json_text(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def json_text(value: Any) -> str:
    """Write JSON again as it was read: numbers keep their digits."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(key)}:{json_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(json_text(one) for one in value) + "]"
    return _quoted(value)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
