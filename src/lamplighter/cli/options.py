"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def data_dir_option(function: F) -> F:
    """`--data-dir`; None leaves the choice to the settings (LAMP_DATA_DIR, else the user's own place)."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        help="Where the platform lives. [env: LAMP_DATA_DIR; default: /var/lib/lamplighter for root, "
        "else ~/.local/share/lamplighter]",
    )(function)


def output_option(function: F) -> F:
    """`--output text|json`."""
    return click.option(
        "--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
    )(function)
