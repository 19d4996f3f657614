"""Text on a terminal: how wide it is, and how it is made to fit. Pure."""

from __future__ import annotations

from lamplighter.cli.harmless import clean, escape_json, is_harmless

__all__ = ["CUT", "clean", "cut", "escape_json", "is_harmless", "pad", "width"]

CUT = "…"


def width(text: str) -> int:
    """Columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - some 20 ms, and most text is ASCII

    return cell_len(text)


def cut(text: str, columns: int) -> str:
    """The text in at most so many columns, with an ellipsis in the place of what is left out."""
    if width(text) <= columns:
        return text
    if columns < 1:
        return ""
    # Not by halves: the width of a text may grow and shrink with each character that joins the one before it.
    end = min(len(text), columns - 1) if text.isascii() else len(text)
    while end and width(text[:end] + CUT) > columns:
        end -= 1
    return text[:end] + CUT


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """The text with blanks to fill the columns, in front of it for `right`."""
    blanks = " " * max(0, columns - width(text))
    return blanks + text if right else text + blanks
