"""From a value as Postgres writes it to the text of a JSON value. Pure.

Numbers and JSON are passed on letter by letter, so nothing of them is lost by reading and writing them again.
Object ids of built-in types are those of PostgreSQL's pg_type.dat; they never change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from json.encoder import encode_basestring as quoted

#: From the text of a value that is not null to the text of a JSON value.
Convert = Callable[[str], str]

BOOL, INT2, INT4, FLOAT4, FLOAT8, JSON, JSONB = 16, 21, 23, 700, 701, 114, 3802
BOX_ARRAY = 1020
#: Ids from here on differ between databases.
FIRST_UNKNOWN = 10000

_PLAIN_ARRAYS = (
    *(143, 199, 210, 270, 271, 272, 273, 629, 651, 719, 775, 791, 1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008),
    *(1009, 1010, 1011, 1012, 1013, 1014, 1015, 1016, 1017, 1018, 1019, 1021, 1022, 1027, 1028, 1034, 1040, 1041),
    *(1115, 1182, 1183, 1185, 1187, 1231, 1263, 1270, 1561, 1563, 2201, 2207, 2208, 2209, 2210, 2211, 2287, 2949),
    *(2951, 3221, 3643, 3644, 3645, 3735, 3770, 3807, 3905, 3907, 3909, 3911, 3913, 3927, 4073, 4090, 4097, 4192),
    *(5039, 6150, 6151, 6152, 6153, 6155, 6157),
)
_ELEMENTS = {1000: BOOL, 1005: INT2, 1007: INT4, 1021: FLOAT4, 1022: FLOAT8, 199: JSON, 3807: JSONB}


_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ArrayType:
    """What an array is made of, and what stands between its elements."""

    element: int
    delimiter: str = ","


BUILT_IN: Mapping[int, ArrayType] = {
    **{oid: ArrayType(_ELEMENTS.get(oid, 0)) for oid in _PLAIN_ARRAYS},
    # Only `box` uses another delimiter than the comma, which its own text has.
    BOX_ARRAY: ArrayType(603, ";"),
}


class UnbalancedArray(ValueError):
    """Postgres did not write this array."""


def unknown(oids: Iterable[int]) -> set[int]:
    """Which types must be looked up before it is clear whether they are arrays."""
    return {oid for oid in oids if oid >= FIRST_UNKNOWN}


def converter(oid: int, known: Mapping[int, ArrayType | None]) -> Convert:
    """Say how values of a type become JSON. `known` are types that were looked up; None is no array."""
    array = BUILT_IN.get(oid) or known.get(oid)
    if array is None:
        return _SCALARS.get(oid, quoted)
    element, delimiter = _SCALARS.get(array.element, quoted), array.delimiter
    return lambda text: array_to_json(text, element, delimiter)


def _bool(text: str) -> str:
    return "true" if text == "t" else "false"


def _same(text: str) -> str:
    return text


def _float(text: str) -> str:
    if text[-1] in "Nny":
        # NaN, Infinity and -Infinity have no number in JSON.
        return quoted(text)
    # A float stays one for readers that tell 1 from 1.0.
    return text if "." in text or "e" in text else text + ".0"


_SCALARS: Mapping[int, Convert] = {
    BOOL: _bool,
    INT2: _same,
    INT4: _same,
    FLOAT4: _float,
    FLOAT8: _float,
    JSON: _same,
    JSONB: _same,
}


@cache
def _tokens(delimiter: str) -> re.Pattern[str]:
    """Brackets, the delimiter, an element in quotes, or one without."""
    other = re.escape(delimiter)
    return re.compile(rf'[{{}}]|{other}|"[^"\\]*(?:\\.[^"\\]*)*"|[^{{}}"{other}][^}}{other}]*', re.DOTALL)


def array_to_json(text: str, element: Convert, delimiter: str = ",") -> str:
    """Turn `{1,NULL,{...}}` of any depth into a JSON array; bounds such as `[2:3]=` are left out.

    Raises UnbalancedArray for anything that Postgres does not write.
    """
    at = text.find("=") + 1 if text.startswith("[") else 0
    out: list[str] = []
    depth, value_next = 0, True
    for found in _tokens(delimiter).finditer(text, at):
        word = found.group()
        if found.start() != at or not _fits(word, out, depth, value_next=value_next, delimiter=delimiter):
            break
        at = found.end()
        depth += {"{": 1, "}": -1}.get(word, 0)
        value_next = word in {"{", delimiter}
        out.append({"{": "[", "}": "]", delimiter: ","}.get(word) or _element(word, element))
    if depth or not out or at != len(text):
        raise UnbalancedArray(text[:100])
    return "".join(out)


def _fits(word: str, out: list[str], depth: int, *, value_next: bool, delimiter: str) -> bool:
    """Whether a word may follow what was written: elements and delimiters take turns, inside of brackets."""
    if word == "}":
        return depth > 0 and (not value_next or out[-1] == "[")
    if word == delimiter:
        return depth > 0 and not value_next
    return value_next and (depth > 0 or word == "{")


def _element(word: str, element: Convert) -> str:
    if word.startswith('"'):
        return element(_ESCAPED.sub(r"\1", word[1:-1]) if "\\" in word else word[1:-1])
    return "null" if word == "NULL" else element(word)
