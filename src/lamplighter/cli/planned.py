"""The end of a dry run: the request that would have changed something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class Planned(BaseException):
    """Raised in the place of sending. No `Exception`: nothing between may take it for a failure, and try again.

    `following` are those that would be sent after it, where that is known without its answer.
    """

    def __init__(self, method: str, url: str, body: bytes, content_type: str) -> None:
        super().__init__(f"{method} {url}")
        self.method = method
        self.url = url
        self.body = body
        self.content_type = content_type
        self.following: tuple[Planned, ...] = ()


def in_turn(steps: Iterable[Callable[[], T]]) -> list[T]:
    """What each of the steps gives, none of which needs what another gave. A dry run plans all of them."""
    given: list[T] = []
    planned: list[Planned] = []
    for step in steps:
        try:
            given.append(step())
        except Planned as one:
            planned.append(one)
    if planned:
        planned[0].following = tuple(planned[1:])
        raise planned[0]
    return given
