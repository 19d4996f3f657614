"""What serves HTTP, when it cannot be loaded, or not be ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import structlog

from lamplighter.gateway.visitors import Visitor
from lamplighter.gateway.web_later import WebLater

VISITOR = cast("Visitor", object())


@dataclass
class Served:
    """Who came, and whether the end fails."""

    ends: bool = True
    came: list[Any] = field(default_factory=list)
    closed: int = 0

    async def __call__(self, visitor: Visitor) -> None:
        self.came.append(visitor)

    async def close(self) -> None:
        self.closed += 1
        if not self.ends:
            raise RuntimeError("this does not end")


class Failing:
    """Cannot be made so many times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.web = Served()

    def __call__(self) -> Served:
        if self.left:
            self.left -= 1
            raise OSError("a file is missing")
        return self.web


async def test_what_could_not_be_loaded_is_tried_again():
    """Who wanted it is told, and so is the log."""
    making = Failing(1)
    later = WebLater(making)
    with structlog.testing.capture_logs() as logs, pytest.raises(OSError, match="a file is missing"):
        await later(VISITOR)
    assert [(one["event"], one["log_level"]) for one in logs] == [("gateway.web_not_loaded", "error")]
    await later(VISITOR)
    assert making.web.came == [VISITOR]
    await later.close()
    assert making.web.closed == 1


@pytest.mark.parametrize("waited_for", [True, False])
async def test_what_could_not_be_loaded_can_be_closed(waited_for: bool):
    later = WebLater(Failing(1))
    loading = later.load()
    if waited_for:
        with pytest.raises(OSError, match="a file is missing"):
            await loading
    await later.close()


async def test_an_end_that_fails_is_logged():
    """For a gateway has more to end."""
    web = Served(ends=False)
    later = WebLater(lambda: web)
    await later(VISITOR)
    with structlog.testing.capture_logs() as logs:
        await later.close()
    assert web.closed == 1
    assert [one["event"] for one in logs] == ["gateway.web_not_closed"]


async def test_what_nobody_has_asked_for_is_not_loaded_to_be_closed():
    making = Failing(1)
    await WebLater(making).close()
    assert making.left == 1
