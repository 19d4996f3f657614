"""A line on a terminal that tells what is waited for, and how long already."""

from __future__ import annotations

import shutil
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from lamplighter.cli.terminal import cut

_FRAMES = "|/-\\"
#: What ends sooner is not told of: a line that only flashes up disturbs.
_PATIENCE = 0.3
_STEP = 0.1


class Spinner:
    """Runs while its block does. On anything but a terminal it prints nothing."""

    def __init__(self, text: str, stream: TextIO) -> None:
        self._text = text
        self._stream = stream
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._turn, daemon=True)

    def _turn(self) -> None:
        began = time.monotonic()
        if self._ended.wait(_PATIENCE):
            return
        turn = 0
        while not self._ended.wait(_STEP):
            line = f"{_FRAMES[turn % len(_FRAMES)]} {self._text} {time.monotonic() - began:.0f} s"
            self._stream.write(f"\r\x1b[K{cut(line, shutil.get_terminal_size().columns - 1)}")
            self._stream.flush()
            turn += 1
        if turn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
