"""Standard streams that may be closed, or be closed later by whoever reads them."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


def open_missing() -> None:
    """Open /dev/null in the place of standard streams that were closed before we were started.

    Else the next file that is opened gets their number, and what is printed goes into it.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - a descriptor, kept for good


class Forgiving:
    """A text stream whose reader may go away: what can no longer be written is dropped, and nobody is told."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forgive() -> None:
    """From now on a closed pipe or terminal behind standard output or error is no reason to fail."""
    sys.stdout = Forgiving(sys.stdout)
    sys.stderr = Forgiving(sys.stderr)
