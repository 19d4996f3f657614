"""On which line of a TOML document each table and key begins: `tomllib` does not tell. Pure.

It is made for documents that `tomllib` has read; of others it says something, but never fails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

Path = tuple[str | int, ...]

_BLANK: Final = " \t"
_PART: Final = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)')[ \t]*""")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_LETTERS: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def find_lines(text: str) -> Mapping[Path, int]:
    """Line numbers, from 1, by path: `("lineage", "ci", "owner")`; the tables of an array are numbered from 0.

    Keys of inline tables are not looked for: their line is that of the key before the brace.
    """
    return _Finder(text.replace("\r\n", "\n")).find()


class _Finder:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._lines: dict[Path, int] = {}
        self._table: Path = ()
        self._arrays: dict[Path, int] = {}

    def find(self) -> Mapping[Path, int]:
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == "\n" or letter in _BLANK:
                self._step()
            elif letter == "#":
                self._to_end_of_line()
            elif letter == "[":
                self._header()
            else:
                self._pair()
        return self._lines

    def _step(self, count: int = 1) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _to_end_of_line(self) -> None:
        end = self._text.find("\n", self._at)
        self._step((len(self._text) if end < 0 else end) - self._at)

    def _key(self) -> tuple[str, ...]:
        """A dotted key, from where we are. Empty where there is none."""
        parts: list[str] = []
        while (found := _PART.match(self._text, self._at)) is not None:
            bare, basic, literal = found.groups()
            parts.append(bare if bare is not None else literal if literal is not None else _unescaped(basic))
            self._at = found.end()
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return tuple(parts)

    def _header(self) -> None:
        is_array = self._text.startswith("[[", self._at)
        line = self._line
        self._at += 2 if is_array else 1
        path = self._within(self._key())
        if is_array:
            self._arrays[path] = self._arrays.get(path, -1) + 1
            path = (*path, self._arrays[path])
        self._table = path
        self._note(path, line)
        self._to_end_of_line()

    def _within(self, parts: tuple[str, ...]) -> Path:
        """The path of a header, with the numbers of the arrays that it passes."""
        path: Path = ()
        for at, part in enumerate(parts, 1):
            path = (*path, part)
            if at < len(parts) and path in self._arrays:
                path = (*path, self._arrays[path])
        return path

    def _pair(self) -> None:
        line = self._line
        key = self._key()
        if not key:
            # No TOML: on to the next line.
            self._to_end_of_line()
            return
        self._note((*self._table, *key), line)
        self._value()

    def _note(self, path: Path, line: int) -> None:
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _value(self) -> None:
        """Pass over a value: to the end of the line on which no bracket and no string is open any more."""
        depth = 0
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter in "\"'":
                self._string(letter)
                continue
            if letter == "#":
                self._to_end_of_line()
                continue
            if letter == "\n" and depth <= 0:
                return
            depth += (letter in "[{") - (letter in "]}")
            self._step()

    def _string(self, quote: str) -> None:
        long = self._text.startswith(quote * 3, self._at)
        end = quote * 3 if long else quote
        self._step(len(end))
        while self._at < len(self._text):
            if self._text[self._at] == "\\" and quote == '"':
                self._step(2)
            elif self._text.startswith(end, self._at):
                # Up to two more quotes belong to what a long string holds.
                extra = 0
                while long and extra < 2 and self._text.startswith(quote, self._at + len(end) + extra):
                    extra += 1
                self._step(len(end) + extra)
                return
            elif self._text[self._at] == "\n" and not long:
                return
            else:
                self._step()


def _unescaped(text: str) -> str:
    def letter(found: re.Match[str]) -> str:
        short, long, other = found.groups()
        if other is not None:
            return _LETTERS.get(other, other)
        code = int(short or long, 16)
        return chr(code) if code <= 0x10FFFF else "?"

    return _ESCAPE.sub(letter, text)
