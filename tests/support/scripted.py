"""A server on a raw socket that does to each request what a script says, so that it can break any rule of HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """A request that was read whole, headers by their lower-case names."""

    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


#: Answers one request, or does not. False: the connection is at its end.
Step = Callable[[socket.socket, Asked], bool | None]


class Scripted:
    """Listens on loopback. Each request takes the next step of the script; the last one stays.

    `asked` has every request that came whole: what could have been acted on.
    """

    def __init__(self, *steps: Step, before: Callable[[socket.socket], bool] | None = None) -> None:
        self.asked: list[Asked] = []
        self._steps = list(steps)
        self._before = before
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v2"

    @property
    def methods(self) -> list[str]:
        return [each.method for each in self.asked]

    def then(self, *steps: Step) -> None:
        with self._lock:
            self._steps = list(steps)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # A thread that waits in accept is woken by this, not by a close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            self._start(self._talk, connection)

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if self._before is not None and not self._before(connection):
                return
            for asked in read(connection):
                with self._lock:
                    self.asked.append(asked)
                    step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
                if step(connection, asked) is False:
                    return

    def pause(self, seconds: float) -> bool:
        """True when the server is to stop."""
        return self._over.wait(seconds)


def read(connection: socket.socket) -> Iterator[Asked]:
    """The requests of a connection."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(data) < int(headers.get("content-length", 0)):
            more = connection.recv(65536)
            if not more:
                return
            data += more
        length = int(headers.get("content-length", 0))
        body, data = data[:length], data[length:]
        method, target, _ = first.split(" ")
        yield Asked(method, target, headers, body)


def answer(
    status: int, body: Any = b"", *, media: str = "application/json", length: int | None = None, **headers: str
) -> bytes:
    """An answer as bytes; `retry_after="1"` is the header `retry-after`."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    known = {"date": formatdate(usegmt=True), **{name.replace("_", "-"): value for name, value in headers.items()}}
    if status != 204:
        known |= {"content-type": media, "content-length": str(len(content) if length is None else length)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in known.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + content


def says(status: int, body: Any = b"", **more: Any) -> Step:
    """Answers so."""
    content = answer(status, body, **more)
    return lambda connection, _: connection.sendall(content)


def refuses(status: int, message: str = "no", **headers: str) -> Step:
    """Answers with an error as Neon words it."""
    return says(status, {"code": "", "message": message}, **headers)


def reset(connection: socket.socket, _: Asked | None = None) -> bool:
    """Ends the connection with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    return False


def hangs_up(connection: socket.socket, _: Asked) -> bool:
    """Ends the connection in good order, and without an answer."""
    connection.close()
    return False


def breaks_off(content: bytes) -> Step:
    """Sends so much and resets the connection."""

    def step(connection: socket.socket, asked: Asked) -> bool:
        connection.sendall(content)
        # A reset may overtake what was sent, unless it was taken in: so first the end, then nothing more.
        connection.shutdown(socket.SHUT_WR)
        return False

    return step


def drips(server: Callable[[], Scripted], content: bytes, *, every: float = 0.02) -> Step:
    """Sends byte by byte, for ever: it begins anew when it comes to the end."""

    def step(connection: socket.socket, _: Asked) -> bool:
        position = 0
        while not server().pause(every):
            connection.sendall(content[position : position + 1])
            position = min(position + 1, len(content) - 1)
        return False

    return step
