"""What one caller, and all of them together, may make this process keep in memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lamplighter.gateway.serverless.errors import TooBusy

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """In bytes: a request's body, the rows of an answer, all bodies and rows at one time.

    `hello_seconds`: so long a WebSocket's client has to send its startup and its password, each.
    """

    request: int = 64 * MEBIBYTE
    response: int = 64 * MEBIBYTE
    together: int = 512 * MEBIBYTE
    hello_seconds: float = 15.0


class Budget:
    """Bytes that all requests together hold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def share(self) -> Share:
        return Share(self)

    def take(self, count: int) -> None:
        if self.held + count > self._most:
            raise TooBusy
        self.held += count


class Share:
    """What one request holds of it, given back at the end of the block."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def take(self, count: int) -> None:
        """Raises TooBusy."""
        self._budget.take(count)
        self._held += count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._budget.held -= self._held
        self._held = 0
