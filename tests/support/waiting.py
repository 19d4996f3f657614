"""Waiting for a condition, with a deadline: never for a time."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio

R = TypeVar("R")


def wait_for(
    condition: Callable[[], R], *, seconds: float = 30.0, what: str = "the condition", every: float = 0.02
) -> R:
    """What `condition` gives once that is true, looked at every 20 ms. Raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {seconds:g} s; last: {value!r}")
        pause.wait(every)


async def eventually(
    condition: Callable[[], Any], *, seconds: float = 30.0, what: str = "the condition", every: float = 0.01
) -> Any:
    """The same for tasks. `condition` may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {seconds:g} s; last: {value!r}")
        await anyio.sleep(every)
