"""The file that a gateway's output goes to, with one former one (`gateway.log.1`) and a bound on the size of each.

The bound is looked at once a minute: a file may be larger by what is written in one. Standard output and error are led
there, since not all that speaks asks a logger first. A relay keeps the file that it was started with: it says why it
cannot begin, and nothing later.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import structlog

log = structlog.get_logger("lamplighter.gateway")

#: Bytes from which on a file is the former one at the next look.
LARGEST = 10 * 1024 * 1024
_LOOK_EVERY = 60.0


class LogFile:
    """`look` at the start, whenever a platform comes, and once in a while (`keep`)."""

    def __init__(self, path: Path, *, largest: int = LARGEST) -> None:
        self._path = path
        self._largest = largest
        self._left = False

    def open(self) -> None:
        """Lead the output there. Raises OSError."""
        if self._path.exists() and self._path.stat().st_size > self._largest:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._lead()

    def _lead(self) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)

    def look(self) -> None:
        """Begin another file if this one is too large, or is gone. What cannot be is no reason to end."""
        if self._is_fine():
            return
        try:
            if self._left:
                self._lead()
            else:
                self.open()
        except OSError as error:
            log.error("gateway.log_not_renewed", path=str(self._path), error=str(error))  # noqa: TRY400 - no traceback

    def _is_fine(self) -> bool:
        try:
            found = self._path.stat()
            return os.path.samestat(found, os.fstat(1)) and (self._left or found.st_size <= self._largest)
        except OSError:
            return False

    async def keep(self, *, every: float = _LOOK_EVERY) -> None:
        """Look at it, for ever."""
        while True:
            await asyncio.sleep(every)
            self.look()

    def leave(self) -> None:
        """To another gateway, and go on in the file that it begins: two that renew one would lose what is in it."""
        self._left = True
