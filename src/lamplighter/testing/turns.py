"""Turns of the workers of one run: a project takes one change at a time, and refuses the others meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Turns:
    """One holder at a time among all processes that name the same file; without a file, everybody at once.

    Waiting costs no request. The turn of a process that dies is free again.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        if self._path is None:
            yield
            return
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
