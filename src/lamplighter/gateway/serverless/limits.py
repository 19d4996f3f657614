"""What one caller, and all of them together, may make this process keep in memory. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lamplighter.address_ranges import holder_of
from lamplighter.gateway.serverless.errors import TooBusy

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """In bytes: a request's body, the rows of an answer, all bodies and rows at one time, and of these one caller's.

    `strangers` and `stranger`: the same of WebSockets' clients that are not logged in. The driver sends its first query
    in one message with its password.
    `request_seconds`: so long a request may take to arrive, from its first byte to its last.
    `hello_seconds`: so long a WebSocket's client has to send its startup and its password, each.
    `taking_seconds`: so long a caller has for each piece (64 KiB) of what it is sent.
    """

    request: int = 64 * MEBIBYTE
    response: int = 64 * MEBIBYTE
    together: int = 512 * MEBIBYTE
    caller: int = 128 * MEBIBYTE
    strangers: int = 128 * MEBIBYTE
    stranger: int = 32 * MEBIBYTE
    request_seconds: float = 30.0
    hello_seconds: float = 15.0
    taking_seconds: float = 60.0


class Budget:
    """Bytes that all requests together hold: at most `most`, and at most `of_caller` of them for one address."""

    def __init__(self, most: int, *, of_caller: int) -> None:
        self._most = most
        self._of_caller = of_caller
        self._by_caller: Counter[str] = Counter()
        self.held = 0

    def share(self, caller: str | None) -> Share:
        return Share(self, holder_of(caller or ""))

    def take(self, caller: str, count: int) -> None:
        """Raises TooBusy."""
        if self.held + count > self._most or self._by_caller[caller] + count > self._of_caller:
            raise TooBusy
        self.held += count
        self._by_caller[caller] += count

    def give_back(self, caller: str, count: int) -> None:
        self.held -= count
        self._by_caller[caller] -= count
        if not self._by_caller[caller]:
            del self._by_caller[caller]


class Share:
    """What one request holds of it, given back at the end of the block."""

    def __init__(self, budget: Budget, caller: str) -> None:
        self._budget = budget
        self._caller = caller
        self._held = 0

    def take(self, count: int) -> None:
        """Raises TooBusy."""
        self._budget.take(self._caller, count)
        self._held += count

    def hold(self, count: int) -> None:
        """So much in all from now on. Raises TooBusy; what was held before is then held still."""
        if count > self._held:
            self.take(count - self._held)
        else:
            self._budget.give_back(self._caller, self._held - count)
            self._held = count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._budget.give_back(self._caller, self._held)
        self._held = 0
