"""Long steps: a line that changes on a terminal, one line each elsewhere. Everything goes to standard error."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

import click


class Interrupted(BaseException):
    """Raised in a thread that reports a step after the work was given up: the way to end what cannot be cancelled."""


class Progress:
    """Call it with a sentence. May be called from any thread.

    While it is `settled` sentences are printed as they come, so that nothing turns for ever beside a running platform.
    """

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - some 60 ms, and `--help` does without

        self._console = Console(stderr=True, highlight=False)
        # Where the cursor cannot be moved, lines are all there is.
        self.turning = self._console.is_terminal and not self._console.is_dumb_terminal
        self._status: Any = None
        self._settled = False
        self._given_up = False
        self._lock = threading.RLock()

    def __call__(self, sentence: str) -> None:
        """Raises Interrupted in threads other than the main one after `give_up`."""
        if self._given_up and threading.current_thread() is not threading.main_thread():
            raise Interrupted
        if self.turning and not self._settled:
            self.update(sentence)
        else:
            click.echo(f"{sentence} ...", err=True)

    def update(self, sentence: str) -> None:
        """Change the line on a terminal; nothing elsewhere."""
        if not self.turning:
            return
        from rich.markup import escape  # noqa: PLC0415 - it is loaded already

        with self._lock:
            if self._status is None:
                self._status = self._console.status(escape(sentence))
                self._status.start()
            else:
                self._status.update(escape(sentence))

    def clear(self) -> None:
        """Take the changing line away before something is printed."""
        with self._lock:
            if self._status is not None:
                self._status.stop()
                self._status = None

    def settle(self) -> None:
        """The long steps are over for now."""
        self.clear()
        self._settled = True

    def unsettle(self) -> None:
        """Long steps begin again."""
        self._settled = False

    def give_up(self) -> None:
        """Have threads that report a step end there."""
        self._given_up = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
