"""Sends requests for a client: what `with_options` gives is another one of these, over the same driver."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from lamplighter.client.call import Answer, attempts, finish
from lamplighter.client.errors import DeadlineExceeded
from lamplighter.client.spec import Request, Spec, build
from lamplighter.client.waiting import Waiting

if TYPE_CHECKING:
    from lamplighter.api.models.operations import Operation
    from lamplighter.client._async.driver import AsyncDriver
    from lamplighter.client.options import Options
    from lamplighter.client.pacing import Pacer


class AsyncSender:
    """A driver, how it is to be used, and whose turn it is."""

    def __init__(self, driver: AsyncDriver, options: Options, pacer: Pacer | None) -> None:
        self.driver = driver
        self.options = options
        self.pacer = pacer

    def with_options(self, options: Options) -> AsyncSender:
        return AsyncSender(self.driver, options, self.pacer)

    async def close(self) -> None:
        await self.driver.close()
        if self.pacer is not None:
            self.pacer.close()

    async def send(self, request: Request) -> Answer:
        """The answer, a success. Raises `APIError`, `ConnectionFailed`, `DeadlineExceeded`."""
        driver = self.driver
        return await driver.run(attempts(request, options=self.options, pacer=self.pacer, world=driver.world))

    async def finished(self, project_id: str, operations: Iterable[Operation | str], seconds: float) -> list[Operation]:
        """The operations as they ended. Raises `OperationFailed`, `DeadlineExceeded`."""
        waiting = Waiting(operations, now=time.monotonic(), timeout=seconds)
        while (id_ := waiting.next()) is not None:
            await anyio.sleep(waiting.pause(time.monotonic()))
            seen = await self._look(project_id, id_, waiting)
            if seen is None:
                raise waiting.late()
            waiting.saw(seen)
        return waiting.operations()

    async def _look(self, project_id: str, id_: str, waiting: Waiting) -> Operation | None:
        left = waiting.left(time.monotonic())
        own = self.options.deadline
        within = self.with_options(replace(self.options, deadline=left if own is None else min(own, left)))
        spec = _get_operation()
        path = {"project_id": project_id, "operation_id": id_}
        try:
            return finish(spec, await within.send(build(spec, path=path)))
        except DeadlineExceeded:
            if own is not None and own < left:
                raise
        return None


def _get_operation() -> Spec[Operation]:
    from lamplighter.client._async.resources.operations import _GET  # noqa: PLC0415 - it comes with its models

    return _GET
