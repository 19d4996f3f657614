"""Does what a call asks for, over httpx2. Its twin is written by hand too: deadlines work otherwise there.

A deadline is a cancel scope here: what is under way is cancelled, its connection closed, and the pool stays good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx2

from lamplighter.client.call import Answer, Attempts, Failure, Outcome, Pause, Send, answer_of
from lamplighter.client.payload import Payload
from lamplighter.client.traces import without_library
from lamplighter.client.transport import ERRORS, failure_of, settings, timeout_of, world_of

if TYPE_CHECKING:
    from lamplighter.client.config import Server


class AsyncDriver:
    """The connections to one server."""

    def __init__(self, server: Server, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.world = world_of(server)
        self._base_url = server.base_url
        self._http = httpx2.AsyncClient(transport=transport, **settings(server))

    async def run(self, attempts: Attempts) -> Answer:
        """The answer that the call comes to. Raises what the call raises."""
        outcome: Outcome = None
        try:
            while True:
                step = attempts.send(outcome)
                if isinstance(step, Send):
                    outcome = await self._send(step)
                else:
                    outcome = None
                    await self._pause(step)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        finally:
            attempts.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _pause(self, step: Pause) -> None:
        if step.turn is None:
            await anyio.sleep(step.seconds)
            return
        nudged = anyio.Event()
        step.turn.listen(nudged.set)
        with anyio.move_on_after(step.seconds):
            await nudged.wait()

    async def _send(self, step: Send) -> Answer | Failure:
        try:
            with anyio.move_on_after(step.left):
                return await self._exchange(step)
        except ERRORS as error:
            return failure_of(error, self.world)
        except BaseException as error:  # noqa: BLE001 - a cancellation too went through frames that know the key
            raise without_library(error)  # noqa: B904 - it is the same error
        return Failure("", sent=True, late=True)

    async def _exchange(self, step: Send) -> Answer:
        asked = step.request
        request = self._http.build_request(
            asked.method,
            self._base_url + asked.target,
            content=asked.body,
            headers={"Content-Type": asked.content_type} if asked.content_type else None,
            timeout=timeout_of(step),
        )
        response = await self._http.send(request, stream=True)
        head = response.status_code, response.headers
        try:
            return answer_of(step, self.world, head, Payload(await response.aread()))
        except ERRORS as error:
            # The status alone may say enough: that the request was refused.
            reason = failure_of(error, self.world).reason
            return answer_of(step, self.world, head, Payload(b""), reason)
        finally:
            await response.aclose()
