"""Sizes as people write them: 50G, 512M, 1.5 TiB."""

from __future__ import annotations

import re
from typing import Any

import click

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp])(?:i?b)?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Bytes; every unit is a power of 1024, as `truncate` and `mkfs` take them. Raises ValueError. Pure."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write a number and a unit, such as 50G or 512M")
    size = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
    if size == 0:
        raise ValueError("a size must be more than nothing")
    return size


class Size(click.ParamType[int]):
    """An option's value in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
