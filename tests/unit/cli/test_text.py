"""Figures, tables and sizes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.sizes import parse_size
from lamplighter.cli.text import fields, human_bytes, human_duration, plural, table

WORDS = st.text(alphabet=st.characters(categories=["L", "N"]), max_size=12)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50G", 50 * 2**30),
        ("512M", 512 * 2**20),
        ("1.5T", 3 * 2**39),
        ("64k", 65536),
        ("2 GiB", 2**31),
        ("2gb", 2**31),
        (" 1P ", 2**50),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Every unit is a power of 1024, however it is written."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "50", "G", "-1G", "0M", "1e3M", "5 0G", "50X", "50GG", "0.0000001K", "५०", "1,5G"]
)
def test_no_sizes(text: str) -> None:
    """What has no unit, or is no amount, is refused rather than guessed at."""
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    """A size is a positive number of bytes; nothing else but ValueError comes out."""
    with suppress(ValueError):
        assert parse_size(text) > 0


@given(st.integers(1, 999), st.sampled_from("KMGT"))
def test_whole_sizes_are_read_back(number: int, unit: str) -> None:
    """What is printed can be given again, to three digits."""
    size = parse_size(f"{number}{unit}")
    again = parse_size(human_bytes(size))
    assert abs(again - size) <= size // 100


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (2**20, "1.0 MiB"), (123 * 2**20, "123 MiB")],
)
def test_human_bytes(size: int | None, text: str) -> None:
    assert human_bytes(size) == text


@given(st.integers(0, 2**60))
def test_human_bytes_are_short(size: int) -> None:
    """Never more than four digits, a point and a unit."""
    assert len(human_bytes(size)) <= 9


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.9, "0 s"), (12, "12 s"), (60, "1 min"), (3725, "1 h 2 min"), (90061, "1 d 1 h")],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_plural() -> None:
    assert (plural(1, "branch", "branches"), plural(2, "branch", "branches")) == ("1 branch", "2 branches")
    assert plural(0, "volume") == "0 volumes"


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=6))
def test_columns_begin_below_each_other(rows: list[tuple[str, str, str]]) -> None:
    """The second column begins in the same place in every line, and no line ends in blanks."""
    lines = table(("ONE", "TWO", "THREE"), rows)
    start = lines[0].index("TWO")
    assert len(lines) == len(rows) + 1
    for line, row in zip(lines[1:], rows, strict=True):
        assert line[:start].rstrip() == row[0]
        assert line == line.rstrip()
        assert line[start:].startswith(row[1])


def test_figures_stand_to_the_right() -> None:
    """Columns named in `right` end below each other."""
    assert table(("A", "MEMORY"), [("x", "1 B"), ("y", "100 B")], right=(1,)) == [
        "A  MEMORY",
        "x     1 B",
        "y   100 B",
    ]


def test_further_lines_of_a_field_are_indented() -> None:
    assert fields([("Data", "/x"), ("Storage", "a\nb")]) == ["Data     /x", "Storage  a", "         b"]
