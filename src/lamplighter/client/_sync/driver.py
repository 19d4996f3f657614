"""Does what a call asks for, over httpx2, in the thread of the caller. Written by hand, unlike its neighbours.

There is nothing here that could cancel what is under way, so every single wait for the network gets no more time than
the deadline leaves: a server that sends one byte a second does not outlast it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import httpcore2
import httpx2

from lamplighter.client.call import Answer, Attempts, Failure, Outcome, Pause, Send, answer_of
from lamplighter.client.payload import Payload
from lamplighter.client.traces import without_library
from lamplighter.client.transport import ERRORS, failure_of, settings, timeout_of, world_of

if TYPE_CHECKING:
    import ssl

    from lamplighter.client.config import Server


_PART: Final = 1 << 16


class Driver:
    """The connections to one server, for all threads."""

    def __init__(self, server: Server, *, transport: httpx2.BaseTransport | None = None) -> None:
        self.world = world_of(server)
        self._base_url = server.base_url
        self._http = httpx2.Client(transport=transport, **settings(server))
        self._until = Deadline()
        _bound(self._http, self._until)

    def run(self, attempts: Attempts) -> Answer:
        """The answer that the call comes to. Raises what the call raises."""
        outcome: Outcome = None
        try:
            while True:
                step = attempts.send(outcome)
                if isinstance(step, Send):
                    outcome = self._send(step)
                else:
                    outcome = None
                    self._pause(step)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        finally:
            attempts.close()

    def close(self) -> None:
        self._http.close()

    def _pause(self, step: Pause) -> None:
        if step.turn is None:
            time.sleep(step.seconds)
            return
        nudged = threading.Event()
        step.turn.listen(nudged.set)
        nudged.wait(step.seconds)

    def _send(self, step: Send) -> Answer | Failure:
        self._until.at = None if step.left is None else time.monotonic() + step.left
        try:
            answer = self._exchange(step)
        except ERRORS as error:
            return replace(failure_of(error, self.world), late=self._until.over())
        except BaseException as error:  # noqa: BLE001 - a cancellation too went through frames that know the key
            raise without_library(error)  # noqa: B904 - it is the same error
        # It came, but too late; a status that refuses is worth more than to say so.
        late = bool(answer.broken) and answer.status < 400 and self._until.over()
        return Failure(answer.broken, sent=True, late=True) if late else answer

    def _exchange(self, step: Send) -> Answer:
        asked = step.request
        request = self._http.build_request(
            asked.method,
            self._base_url + asked.target,
            content=asked.body,
            headers={"Content-Type": asked.content_type} if asked.content_type else None,
            timeout=timeout_of(step),
        )
        response = self._http.send(request, stream=True)
        head = response.status_code, response.headers
        try:
            return answer_of(step, self.world, head, Payload(response.read()))
        except ERRORS as error:
            # The status alone may say enough: that the request was refused.
            reason = failure_of(error, self.world).reason
            return answer_of(step, self.world, head, Payload(b""), reason)
        finally:
            response.close()


class Deadline(threading.local):
    """When the call of this thread has to be over, on the monotonic clock."""

    at: float | None = None

    def over(self) -> bool:
        return self.at is not None and time.monotonic() >= self.at

    def limit(self, timeout: float | None) -> float | None:
        """The timeout, or what is left where that is less."""
        if self.at is None:
            return timeout
        # Zero would mean not to wait at all, which is another mode of sockets.
        left = max(self.at - time.monotonic(), 0.001)
        return left if timeout is None else min(timeout, left)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, until: Deadline) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._until.over():
            raise httpcore2.ReadTimeout
        return self._stream.read(max_bytes, self._until.limit(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # A large body goes out in many sends, each of which would have the whole timeout.
        for start in range(0, len(buffer), _PART):
            if self._until.over():
                raise httpcore2.WriteTimeout
            self._stream.write(buffer[start : start + _PART], self._until.limit(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._until.limit(timeout))
        return _Stream(stream, self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, backend: httpcore2.NetworkBackend, until: Deadline) -> None:
        self._backend = backend
        self._until = until

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        limit = self._until.limit(timeout)
        return _Stream(self._backend.connect_tcp(host, port, limit, local_address, socket_options), self._until)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


def _bound(http: httpx2.Client, until: Deadline) -> None:
    """Has all connections of the client's own transports keep to the deadline."""
    # httpx2 has no argument for it. Should its insides change, deadlines hold for single waits only (`timeout_of`).
    for transport in (http._transport, *http._mounts.values()):  # noqa: SLF001
        pool = getattr(transport, "_pool", None)
        backend = getattr(pool, "_network_backend", None)
        if isinstance(backend, httpcore2.NetworkBackend):
            pool._network_backend = _Backend(backend, until)  # type: ignore[union-attr]  # noqa: SLF001
