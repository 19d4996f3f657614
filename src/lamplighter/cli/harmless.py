"""Text with nothing in it that a terminal would obey. Pure.

What a server says is not trusted: names of branches, messages of errors and SQL may hold control characters.
"""

from __future__ import annotations

import re

#: C0, DEL, C1, separators of lines, marks that change the direction of text, and halves of characters.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_NAMED = {"\t": " ", "\n": "\\n", "\r": "\\r"}


def clean(text: str) -> str:
    """The text on one line; what a terminal would obey, or would not show, is written as Python does."""
    return _OBEYED.sub(_written, text) if not (text.isascii() and text.isprintable()) else text


def _written(found: re.Match[str]) -> str:
    character = found.group()
    number = ord(character)
    return _NAMED.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def escape_json(text: str) -> str:
    """JSON text with the same characters written as escapes: it means the same. Its own line ends stay."""
    return _OBEYED.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def is_harmless(text: str) -> bool:
    """Whether a terminal would show all of the text as it is, line ends aside."""
    return all(found.group() == "\n" for found in _OBEYED.finditer(text))
