"""From `a.b=value` on a command line to the JSON of a body. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_FORM = re.compile(r"(?P<path>[^=:\s]+)(?P<sign>:?=)(?P<text>.*)", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]{0,3}", re.ASCII)

Kind = Literal["typed", "text", "json"]


class BadField(ValueError):
    """A field cannot be read, or two of them do not fit together. The message is for the user."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it was given. `typed` leaves it to the contract what the text means, `text` and `json` say so."""

    path: tuple[str, ...]
    text: str
    kind: Kind

    @property
    def name(self) -> str:
        return ".".join(self.path)


def parse_field(written: str, *, kind: Kind = "typed") -> Field:
    """Reads `a.b=value` or `a.b:=json`. Raises BadField."""
    found = _FORM.fullmatch(written)
    if found is None or not all(found["path"].split(".")):
        raise BadField(f"write a field as name=value, a.b=value or name:=JSON, not {written!r}")
    return Field(tuple(found["path"].split(".")), found["text"], "json" if found["sign"] == ":=" else kind)


def parse_pair(written: str) -> tuple[str, str]:
    """Reads `name=value`. Raises BadField."""
    name, sign, value = written.partition("=")
    if not sign or not name:
        raise BadField(f"write it as name=value, not {written!r}")
    return name, value


def build_body(fields: Sequence[Field], *, types: Mapping[str, frozenset[str]]) -> Any:
    """The JSON value that fields make together. Numbers in a path are places in a list.

    `types` has the JSON types that the contract allows, by dotted path with `*` for places and names that are open.
    Raises BadField.
    """
    body: Any = {}
    for field in fields:
        _put(body, field, value_of(field, types=types))
    return _lists(body, ())


def value_of(field: Field, *, types: Mapping[str, frozenset[str]]) -> Any:
    """What the text of a field means. Raises BadField where the contract knows its type and it is another."""
    if field.kind == "text":
        return field.text
    if field.kind == "json":
        return _json(field, "JSON")
    allowed = _allowed(field, types)
    if allowed is None:
        return _guessed(field.text)
    if "null" in allowed and field.text == "null":
        return None
    if "string" in allowed:
        return field.text
    value = _json(field, " or ".join(sorted(allowed)))
    if not any(_is(value, kind) for kind in allowed):
        raise BadField(f"{field.name} takes {' or '.join(sorted(allowed))}, not {field.text!r}")
    return value


def _allowed(field: Field, types: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    if field.name in types:
        return types[field.name]
    for known, allowed in types.items():
        parts = known.split(".")
        if len(parts) == len(field.path) and all(
            part in ("*", given) for part, given in zip(parts, field.path, strict=True)
        ):
            return allowed
    return None


def _json(field: Field, wanted: str) -> Any:
    try:
        return json.loads(field.text)
    except ValueError:
        raise BadField(f"{field.name} takes {wanted}, not {field.text!r}") from None


def _guessed(text: str) -> Any:
    """As the neon CLI reads what it knows no type of: JSON where it is JSON, else a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


_KINDS: Mapping[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
    "string": (str,),
}


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _KINDS[kind])


class _Branch(dict[str, Any]):
    """An object or a list that fields make; what the user wrote as JSON is a plain one, and whole."""


def _put(body: Any, field: Field, value: Any) -> None:
    place = body
    for part in field.path[:-1]:
        place = place.setdefault(part, _Branch())
        if not isinstance(place, _Branch):
            raise BadField(f"{field.name}: {part} has a value of its own already")
    if field.path[-1] in place:
        raise BadField(f"{field.name} is given twice")
    place[field.path[-1]] = value


def _lists(value: Any, path: tuple[str, ...]) -> Any:
    if not isinstance(value, dict) or (path and not isinstance(value, _Branch)):
        return value
    made = {name: _lists(each, (*path, name)) for name, each in value.items()}
    if not path or not any(map(_INDEX.fullmatch, made)):
        return made
    if set(made) != {str(number) for number in range(len(made))}:
        raise BadField(f"{'.'.join(path)}: number its parts 0, 1, 2, ... without a gap")
    return [made[str(number)] for number in range(len(made))]
