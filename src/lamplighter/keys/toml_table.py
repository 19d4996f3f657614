"""One table of a TOML document, read key by key: every wrong type, range and unknown key is a PolicyError. Pure.

The errors name the line and the path, and for a word that is not known the one that was probably meant.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from typing import Any, Final, Self, overload

from lamplighter.keys.duration import parse_duration
from lamplighter.keys.errors import PolicyError
from lamplighter.keys.toml_lines import Path, find_lines

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_LARGEST: Final = 1 << 20
#: Neon's keys, and what else is long and random: a value has no place in a policy.
_KEY: Final = re.compile(r"\bnapi_\w{8}")
_TYPES: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "a number",
    float: "a number with a fraction",
    str: "a string",
    list: "an array",
    dict: "a table",
    datetime: "a date with a time",
    date: "a date",
    time: "a time",
}


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or what there is, for the end of a sentence."""
    names = sorted(known)
    found = get_close_matches(word, names, n=1, cutoff=0.6)
    if found:
        return f"; did you mean {found[0]}?"
    return f"; there is {', '.join(names)}" if 0 < len(names) <= 24 else ""


def show_path(path: Path) -> str:
    """`lineage.ci.owner`, as it would be written; the tables of an array are numbered from 1."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else json.dumps(part))
    return text


class Table:
    """Values are taken out by name; `close` then complains of those that nobody asked for."""

    def __init__(self, values: Mapping[str, Any], path: Path, lines: Mapping[Path, int]) -> None:
        self.path = path
        self._values = values
        self._lines = lines
        self._asked: set[str] = set()

    @classmethod
    def document(cls, text: str) -> Self:
        """The outermost table. Raises PolicyError."""
        if len(text) > _LARGEST:
            raise PolicyError("the policy has more than a million characters")
        if secret := _KEY.search(text):
            line = text.count("\n", 0, secret.start()) + 1
            raise PolicyError(
                f"line {line} of the policy holds what looks like a key",
                hint="take it out, and revoke it: `lamp keys emergency` reads it from its standard input",
            )
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "too deep, or a number too long"
        else:
            return cls(values, (), find_lines(text))
        raise PolicyError(f"the policy is no TOML: {why}")

    @property
    def content(self) -> Mapping[str, Any]:
        """All that is in it, as `tomllib` read it."""
        return self._values

    def line(self, *parts: str | int) -> int:
        """Where this, or the nearest thing around it, begins."""
        path: Path = (*self.path, *parts)
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def error(self, problem: str, *parts: str | int, hint: str | None = None) -> PolicyError:
        """To be raised: `line 12, lineage.ci.owner: problem`."""
        where = show_path((*self.path, *parts))
        return PolicyError(f"line {self.line(*parts)}{', ' + where if where else ''}: {problem}", hint=hint)

    def checked(self, make: Callable[[], Any], *parts: str | int) -> Any:
        """What `make` makes; its PolicyError and ValueError get the place."""
        try:
            return make()
        except PolicyError as error:
            problem, hint = error.message, error.hint
        except (ValueError, OverflowError) as error:
            problem, hint = str(error), None
        raise self.error(problem, *parts, hint=hint)

    def close(self) -> None:
        """Raises PolicyError for the first key that was not asked for."""
        for name in self._values:
            if name not in self._asked:
                raise self.error(f"no such key{near(name, self._asked)}", name)

    def names(self) -> tuple[str, ...]:
        return tuple(self._values)

    def has(self, name: str) -> bool:
        self._asked.add(name)
        return name in self._values

    # One value

    def _take(self, name: str, kind: type, wanted: str) -> Any:
        """None where there is no such key."""
        if not self.has(name):
            return None
        value = self._values[name]
        # A boolean is a number for Python, and a date with a time a date.
        if type(value) is not kind:
            found = _TYPES.get(type(value), "something else")
            raise self.error(f"{wanted} is wanted here, not {found}", name)
        return value

    @overload
    def text(self, name: str) -> str | None: ...
    @overload
    def text(self, name: str, default: str) -> str: ...
    def text(self, name: str, default: str | None = None) -> str | None:
        value: str | None = self._take(name, str, "a string")
        if value is None:
            return default
        if not value.strip():
            raise self.error("this may not be empty", name)
        if not value.isprintable():
            raise self.error("control characters and line breaks may not be in this", name)
        return value

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise self.error(f"{name} is missing")
        return value

    def word(self, name: str, known: Iterable[str], default: str | None = None) -> str:
        """One of a few words; without a default it has to be there."""
        value = self.required(name) if default is None else self.text(name, default)
        if value not in (names := tuple(known)):
            raise self.error(f"{value!r} is not known{near(value, names)}", name)
        return value

    @overload
    def number(self, name: str, *, least: int) -> int | None: ...
    @overload
    def number(self, name: str, default: int, *, least: int) -> int: ...
    def number(self, name: str, default: int | None = None, *, least: int) -> int | None:
        value: int | None = self._take(name, int, "a whole number")
        if value is None:
            return default
        if not least <= value < 1 << 63:
            raise self.error(f"a number of at least {least} is wanted here, and below 2 to the 63rd", name)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value: bool | None = self._take(name, bool, "true or false")
        return default if value is None else value

    @overload
    def span(self, name: str) -> timedelta | None: ...
    @overload
    def span(self, name: str, default: timedelta) -> timedelta: ...
    def span(self, name: str, default: timedelta | None = None) -> timedelta | None:
        value: str | None = self._take(name, str, "a span of time such as 90d")
        if value is None:
            return default
        found: timedelta = self.checked(lambda: parse_duration(value), name)
        return found

    def moment(self, name: str) -> datetime:
        """A date, which lasts to its end in UTC, or a time with its offset."""
        if not self.has(name):
            raise self.error(f"{name} is missing")
        value = self._values[name]
        if isinstance(value, str):
            value = self._read_moment(name, value)
        if type(value) is date:
            try:
                return datetime.combine(value, time(), UTC) + timedelta(days=1)
            except OverflowError:
                raise self.error("this date is too late", name) from None
        if not isinstance(value, datetime):
            raise self.error(f"a date is wanted here, such as 2027-01-31, not {_TYPES.get(type(value), 'this')}", name)
        if value.utcoffset() is None:
            raise self.error("a time needs its offset, as in 2027-01-31T12:00:00Z", name)
        found: datetime = self.checked(lambda: value.astimezone(UTC), name)
        return found

    def _read_moment(self, name: str, text: str) -> date | datetime:
        for read in (date.fromisoformat, datetime.fromisoformat):
            try:
                return read(text)
            except ValueError:
                continue
        raise self.error(f"{text!r} is no date: write it like 2027-01-31", name)

    def texts(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """An array of strings, none of them twice."""
        values: list[Any] | None = self._take(name, list, "an array of strings")
        if values is None:
            return default
        seen: list[str] = []
        for value in values:
            if not isinstance(value, str) or not value.strip() or not value.isprintable():
                raise self.error("every element has to be a string that is not empty and prints", name)
            if value in seen:
                raise self.error(f"{value!r} is here twice", name)
            seen.append(value)
        return tuple(seen)

    # Tables

    def table(self, name: str) -> Table:
        """An empty one where there is none."""
        values: dict[str, Any] | None = self._take(name, dict, "a table")
        return Table(values or {}, (*self.path, name), self._lines)

    def tables(self, name: str) -> Iterator[tuple[str, Table]]:
        """The tables that this table is made of, with their names."""
        outer = self.table(name)
        for inner in outer.names():
            yield inner, outer.table(inner)

    def array(self, name: str) -> Iterator[Table]:
        """The tables of `[[name]]`."""
        values: list[Any] | None = self._take(name, list, f"an array of tables ([[{name}]])")
        for at, value in enumerate(values or []):
            if not isinstance(value, dict):
                raise self.error(f"an array of tables is wanted here: write [[{name}]]", name)
            yield Table(value, (*self.path, name, at), self._lines)

    def pairs(self, name: str) -> Mapping[str, str]:
        """A table of strings; numbers and booleans are taken as they are written."""
        found: dict[str, str] = {}
        inner = self.table(name)
        for key, value in inner.content.items():
            if type(value) is str:
                found[key] = value
            elif type(value) in (int, bool):
                found[key] = str(value).lower()
            else:
                raise inner.error("a string is wanted here", key)
        return found
