"""Runs the same calls through `Neon`, and through `AsyncNeon` on asyncio and on trio."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio

from lamplighter.client._async.client import AsyncNeon
from lamplighter.client._sync.client import Neon
from lamplighter.client.retry import RetryPolicy

KEY = "napi_the_key_of_these_tests"
WAYS = ("sync", "asyncio", "trio")
#: As patient as the usual one, in a hundredth of the time.
QUICK = RetryPolicy(first=0.005, most=0.02)


def do(way: str, url: str, *calls: Callable[[Any], Any], retry: RetryPolicy = QUICK, **options: Any) -> list[Any]:
    """What each of the calls gave, or the error that it raised, with one client for all of them."""
    options = {"api_key": KEY, "base_url": url, **options}
    if way == "sync":
        with Neon(**options) as neon:
            patient(neon, retry)
            return [_tried(neon, call) for call in calls]
    return anyio.run(_awaited, calls, retry, options, backend=way)


def one(way: str, url: str, call: Callable[[Any], Any], **options: Any) -> Any:
    """What one call gave. Raises what it raised."""
    (result,) = do(way, url, call, **options)
    if isinstance(result, BaseException):
        raise result
    return result


def patient(neon: Any, retry: RetryPolicy) -> None:
    """Have the client wait so between its attempts."""
    neon._use(neon._sender.with_options(replace(neon._sender.options, retry=retry)))


def _tried(neon: Any, call: Callable[[Any], Any]) -> Any:
    try:
        return call(neon)
    except Exception as error:  # noqa: BLE001 - it is what the test asks for
        return error


async def _awaited(calls: Any, retry: RetryPolicy, options: dict[str, Any]) -> list[Any]:
    results: list[Any] = []
    async with AsyncNeon(**options) as neon:
        patient(neon, retry)
        for call in calls:
            try:
                result = call(neon)
                results.append(await result if inspect.isawaitable(result) else result)
            except Exception as error:  # noqa: BLE001 - it is what the test asks for
                results.append(error)
    return results
