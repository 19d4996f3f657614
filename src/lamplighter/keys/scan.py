"""Finds the members of a JSON object in a buffer, without making Python objects of their values. Pure.

A parser would make a `str` of the key, which nobody can wipe. This looks at bytes in place; what it raises says what is
wrong and where, never what is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

_BLANK: Final = frozenset(b" \t\r\n")
_QUOTE, _ESCAPE = ord('"'), ord("\\")
_OPEN: Final = {ord("{"): ord("}"), ord("["): ord("]")}
_ENDS: Final = _BLANK | frozenset(b",}]")
_PLAIN_ESCAPES: Final[Mapping[int, int]] = {
    ord('"'): 0x22,
    ord("\\"): 0x5C,
    ord("/"): 0x2F,
    ord("b"): 0x08,
    ord("f"): 0x0C,
    ord("n"): 0x0A,
    ord("r"): 0x0D,
    ord("t"): 0x09,
}


class _Scanner:
    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.at = 0

    def blank(self) -> int:
        """Pass over blanks; the byte that follows, -1 at the end."""
        while self.at < len(self._view) and self._view[self.at] in _BLANK:
            self.at += 1
        return self._view[self.at] if self.at < len(self._view) else -1

    def expect(self, letter: str) -> None:
        if self.blank() != ord(letter):
            raise ValueError(f"no {letter!r} at byte {self.at}")
        self.at += 1

    def string(self) -> tuple[int, int]:
        """The span between the quotes."""
        self.expect('"')
        start = self.at
        while self.at < len(self._view):
            byte = self._view[self.at]
            self.at += 2 if byte == _ESCAPE else 1
            if byte == _QUOTE:
                return start, self.at - 1
            if byte < 0x20:
                raise ValueError(f"a control character in the string at byte {start}")
        raise ValueError(f"the string at byte {start} does not end")

    def value(self) -> tuple[int, int]:
        """The span of any value, with its quotes or brackets."""
        first, start = self.blank(), self.at
        if first == _QUOTE:
            self.string()
        elif first in _OPEN:
            self._nested()
        else:
            while self.at < len(self._view) and self._view[self.at] not in _ENDS:
                self.at += 1
        if self.at == start:
            raise ValueError(f"no value at byte {start}")
        return start, self.at

    def _nested(self) -> None:
        expected: list[int] = []
        while True:
            byte = self.blank()
            if byte == -1:
                raise ValueError("it does not end")
            if byte == _QUOTE:
                self.string()
                continue
            self.at += 1
            if byte in _OPEN:
                expected.append(_OPEN[byte])
            elif byte in _OPEN.values():
                if byte != expected.pop():
                    raise ValueError(f"the wrong bracket at byte {self.at - 1}")
                if not expected:
                    return


def members(view: memoryview) -> dict[str, tuple[int, int]]:
    """Where the value of each member of the object is: from its first byte to after its last.

    Raises ValueError for what is not one JSON object, or has a member twice. Values other than strings are not checked.
    """
    scanner = _Scanner(view)
    found: dict[str, tuple[int, int]] = {}
    scanner.expect("{")
    if scanner.blank() == ord("}"):
        scanner.at += 1
    else:
        _fill(scanner, view, found)
    if scanner.blank() != -1:
        raise ValueError(f"more than an object: byte {scanner.at}")
    return found


def _fill(scanner: _Scanner, view: memoryview, found: dict[str, tuple[int, int]]) -> None:
    while True:
        scanner.blank()
        start, end = scanner.string()
        name = _name(view[start - 1 : end + 1])
        scanner.expect(":")
        if name in found:
            raise ValueError(f"a member twice, at byte {start}")
        found[name] = scanner.value()
        if scanner.blank() == ord("}"):
            scanner.at += 1
            return
        scanner.expect(",")


def _name(quoted: memoryview) -> str:
    try:
        return str(json.loads(bytes(quoted)))
    except ValueError:
        pass
    raise ValueError("a name that is no string")


def text_of(quoted: memoryview) -> memoryview:
    """The printable ASCII, blanks excluded, that a JSON string stands for. Raises ValueError for anything else."""
    if len(quoted) < 2 or quoted[0] != _QUOTE or quoted[-1] != _QUOTE:
        raise ValueError("no string")
    # As long as it can get, at once: a bytearray that grows or shrinks would leave copies behind.
    text = bytearray(len(quoted))
    try:
        length = _decode(quoted, text)
    except BaseException:
        text[:] = bytes(len(text))
        raise
    return memoryview(text)[:length]


def _decode(quoted: memoryview, text: bytearray) -> int:
    length, at = 0, 1
    while at < len(quoted) - 1:
        byte, at = _character(quoted, at)
        if not 0x20 < byte < 0x7F:
            raise ValueError("not printable ASCII alone")
        text[length] = byte
        length += 1
    return length


def _character(quoted: memoryview, at: int) -> tuple[int, int]:
    if quoted[at] != _ESCAPE:
        return quoted[at], at + 1
    letter = quoted[at + 1]
    if letter in _PLAIN_ESCAPES:
        return _PLAIN_ESCAPES[letter], at + 2
    if letter != ord("u"):
        raise ValueError("an escape that JSON does not have")
    code = 0
    for digit in quoted[at + 2 : at + 6]:
        code = code * 16 + _hex(digit)
    return code, at + 6


def _hex(digit: int) -> int:
    if 0x30 <= digit <= 0x39:
        return digit - 0x30
    if 0x61 <= digit | 0x20 <= 0x66:
        return (digit | 0x20) - 0x57
    raise ValueError("an escape that is not hexadecimal")
