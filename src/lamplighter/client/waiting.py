"""Waiting for operations: which to look at next, when, and when it is over. Pure.

Operations of a project run in their order, so it is the first that has not ended that is looked at: one request a look,
however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from lamplighter.client.errors import DeadlineExceeded, OperationFailed

if TYPE_CHECKING:
    from lamplighter.api.models.operations import Operation

DONE: Final = frozenset({"finished", "skipped"})
FAILED: Final = frozenset({"failed", "error", "cancelled"})

#: Seconds before the second look, and at most. A start of a compute takes from half a second to a few seconds.
_FIRST: Final = 0.1
_MOST: Final = 2.0
_GROWTH: Final = 1.5

_HINTS: Final = {
    "cancelled": "an operation before it failed, or what it was for is gone; see neon.operations.list(project_id)",
}
_HINT: Final = "what it was for may be half done: mend the cause that is given, then ask for the change again"


class Waiting:
    """A wait for some operations, given as such or by their ids, for `timeout` seconds from `now`."""

    def __init__(self, operations: Iterable[Operation | str], *, now: float, timeout: float) -> None:
        self._seen: dict[str, Operation | None] = {}
        for each in operations:
            if isinstance(each, str):
                self._seen.setdefault(each, None)
            else:
                self._seen[each.id] = each
        self._end = now + timeout
        self._timeout = timeout
        self._pause = _FIRST

    def next(self) -> str | None:
        """The id of the operation to look at; None when all have ended well.

        Raises:
            OperationFailed: one has not.
        """
        for id_, seen in self._seen.items():
            if seen is not None and seen.status in FAILED:
                raise failure_of(seen)
            if seen is None or seen.status not in DONE:
                return id_
        return None

    def saw(self, operation: Operation) -> None:
        """How an operation stands now."""
        before = self._seen.get(operation.id)
        if before is not None and before.status != operation.status:
            # What comes next in line has only begun.
            self._pause = _FIRST
        self._seen[operation.id] = operation

    def left(self, now: float) -> float:
        """Seconds that are left. Raises DeadlineExceeded."""
        left = self._end - now
        if left <= 0:
            raise self.late()
        return left

    def pause(self, now: float) -> float:
        """Seconds until the next look. Raises DeadlineExceeded."""
        pause = min(self._pause, self.left(now))
        self._pause = min(_MOST, self._pause * _GROWTH)
        return pause

    def late(self) -> DeadlineExceeded:
        running = [f"{each.action} ({each.status})" for each in self.operations() if each.status not in DONE]
        return DeadlineExceeded(
            f"after {self._timeout:g} s there is still to do: {', '.join(running) or 'all of it'}",
            sent=True,
            operations=self.operations(),
            hint="the operations go on: wait for them again with neon.operations.wait(...)",
        )

    def operations(self) -> list[Operation]:
        """All of them, as they were seen last; in the order in which they were given."""
        return [each for each in self._seen.values() if each is not None]


def failure_of(operation: Operation) -> OperationFailed:
    """What a failed operation says."""
    where = f" of endpoint {operation.endpoint_id}" if operation.endpoint_id else ""
    where = where or (f" of branch {operation.branch_id}" if operation.branch_id else "")
    ended = {"cancelled": "was cancelled"}.get(operation.status, "failed")
    why = f": {operation.error}" if operation.error else ""
    return OperationFailed(
        f"{operation.action}{where} {ended}{why} (operation {operation.id} of project {operation.project_id})",
        operation=operation,
        hint=_HINTS.get(operation.status, _HINT),
    )
