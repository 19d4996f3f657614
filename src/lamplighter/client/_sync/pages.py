# Made of _async/pages.py by tools/async_to_sync.py; `make generate` writes it anew. Do not edit.
"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page. `next` is the cursor of the page that follows (None: none is known); `reply` is all that was said."""

    items: list[T]
    next: str | None
    reply: Any


class Pager(Generic[T]):
    """A list that is read page by page as it is gone through. Each time it is gone through, it is read anew.

    Neon's lists name a next page even on the last one, so a list ends at an empty page, at a page without a cursor, or
    at a cursor that was there before.
    """

    __slots__ = ("_read", "_start")

    def __init__(self, read: Callable[[str | None], Page[T]], *, start: str | None = None) -> None:
        self._read = read
        self._start = start

    def page(self) -> Page[T]:
        """The first page: one request."""
        return self._read(self._start)

    def pages(self) -> Iterator[Page[T]]:
        """Page after page, one request each; an empty one only where it is the first."""
        return _Pages(self._read, self._start)

    def all(self) -> list[T]:
        """All items, of all pages."""
        return list(self)

    def __iter__(self) -> Iterator[T]:
        return _Items(_Pages(self._read, self._start))


# Not generators: one that is not gone through to its end would have to be closed by whoever began it.


class _Pages(Iterator[Page[T]]):
    def __init__(self, read: Callable[[str | None], Page[T]], start: str | None) -> None:
        self._read = read
        self._next = start
        self._seen: set[str | None] = set()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Page[T]:
        if self._seen and (self._next is None or self._next in self._seen):
            raise StopIteration
        first = not self._seen
        page = self._read(self._next)
        # Only now: who goes on after an error is to get this page.
        self._seen.add(self._next)
        self._next = page.next if page.items else None
        if not page.items and not first:
            raise StopIteration
        return page


class _Items(Iterator[T]):
    def __init__(self, pages: _Pages[T]) -> None:
        self._pages = pages
        self._items: list[T] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while not self._items:
            page = self._pages.__next__()
            # Taken from the end: that costs nothing.
            self._items = page.items[::-1]
        return self._items.pop()
