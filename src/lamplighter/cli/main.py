"""The entry point of the `lamp` script. It imports nothing before it is ready for a Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run `lamp`, and end the process with its exit status."""
    try:
        from lamplighter.cli.commands import run  # noqa: PLC0415 - its imports may be interrupted

        return run(arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
