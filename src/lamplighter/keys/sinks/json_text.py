"""JSON strings as bytes, both ways, without a Python string of them: those cannot be wiped. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from typing import Final

from lamplighter.keys.value import wipe

_QUOTE, _ESCAPE = ord('"'), ord("\\")
_SHORT: Final[Mapping[int, int]] = {
    ord('"'): 0x22,
    ord("\\"): 0x5C,
    ord("/"): 0x2F,
    ord("b"): 0x08,
    ord("f"): 0x0C,
    ord("n"): 0x0A,
    ord("r"): 0x0D,
    ord("t"): 0x09,
}


def escaped(text: memoryview, *, before: bytes = b"", after: bytes = b"") -> bytearray:
    """`before`, the inside of a JSON string that stands for `text`, and `after`. Raises ValueError for no UTF-8."""
    _check_utf8(text)
    length = len(before) + len(after) + sum(_width(byte) for byte in text)
    # Made at its full length: growing would leave copies behind.
    whole, at = bytearray(length), len(before)
    whole[:at] = before
    for byte in text:
        width = _width(byte)
        if width == 1:
            whole[at] = byte
        elif width == 2:
            whole[at : at + 2] = bytes((_ESCAPE, byte))
        else:
            whole[at : at + 6] = b"\\u%04x" % byte
        at += width
    whole[at:] = after
    return whole


def _width(byte: int) -> int:
    if byte < 0x20:
        return 6
    return 2 if byte in (_QUOTE, _ESCAPE) else 1


def _check_utf8(text: memoryview) -> None:
    """Byte by byte: the error of a decoder holds what it was given."""
    decoder, valid = codecs.getincrementaldecoder("utf-8")(), True
    try:
        for at in range(len(text)):
            decoder.decode(text[at : at + 1], at == len(text) - 1)
    except UnicodeDecodeError:
        valid = False
    if not valid:
        raise ValueError("no UTF-8")


def decoded(quoted: memoryview) -> bytearray:
    """The UTF-8 bytes that a JSON string, with its quotes, stands for. Raises ValueError for anything else."""
    if len(quoted) < 2 or quoted[0] != _QUOTE or quoted[-1] != _QUOTE:
        raise ValueError("no string")
    _check_utf8(quoted)
    # UTF-8 is never longer than the escapes that stand for it.
    text, length = bytearray(len(quoted)), 0
    try:
        with quoted[1:-1] as inner:
            for byte in _bytes_of(inner):
                text[length] = byte
                length += 1
        exact = text[:length]
    finally:
        wipe(text)
    return exact


def _bytes_of(inner: memoryview) -> Iterator[int]:
    at = 0
    while at < len(inner):
        byte = inner[at]
        if byte < 0x20 or byte == _QUOTE:
            raise ValueError("a character that has to be escaped")
        if byte != _ESCAPE:
            yield byte
            at += 1
            continue
        letter = inner[at + 1] if at + 1 < len(inner) else -1
        if letter in _SHORT:
            yield _SHORT[letter]
            at += 2
            continue
        code, at = _code_point(inner, at)
        yield from chr(code).encode()


def _code_point(inner: memoryview, at: int) -> tuple[int, int]:
    r"""The character that `\uXXXX` at `at` stands for, or two of them in a row, and where it ends."""
    high = _unit(inner, at)
    if not 0xD800 <= high < 0xE000:
        return high, at + 6
    low = _unit(inner, at + 6)
    if high >= 0xDC00 or not 0xDC00 <= low < 0xE000:
        raise ValueError("half of a character")
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), at + 12


def _unit(inner: memoryview, at: int) -> int:
    if at + 6 > len(inner) or inner[at] != _ESCAPE or inner[at + 1] != ord("u"):
        raise ValueError("an escape that JSON does not have")
    code = 0
    for digit in inner[at + 2 : at + 6]:
        code = code * 16 + _hex(digit)
    return code


def _hex(digit: int) -> int:
    if 0x30 <= digit <= 0x39:
        return digit - 0x30
    if 0x61 <= digit | 0x20 <= 0x66:
        return (digit | 0x20) - 0x57
    raise ValueError("an escape that is not hexadecimal")
