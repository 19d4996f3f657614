"""Figures and tables as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
NOTHING = "-"


def human_bytes(size: int | None) -> str:
    """Three digits and a unit, as in `12.3 MiB`; `-` for what is not known."""
    if size is None:
        return NOTHING
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            break
        value /= 1024
    digits = 0 if unit == "B" or abs(value) >= 100 else 1
    return f"{value:.{digits}f} {unit}"


def human_duration(seconds: float) -> str:
    """The two largest units: `3 h 5 min`, `12 s`."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (size == 1 and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 branch`, `2 branches`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Lines of a table with aligned columns, those in `right` to the right. No line ends in blanks."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return [line(header), *(line(row) for row in rows)]


def fields(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of names and values, the values below each other; further lines of a value are indented to it."""
    width = max((len(name) for name, _ in pairs), default=0) + 2
    lines = []
    for name, value in pairs:
        first, *rest = value.splitlines() or [""]
        lines.append(f"{name:<{width}}{first}".rstrip())
        lines += [" " * width + each for each in rest]
    return lines
