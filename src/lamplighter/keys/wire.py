"""One HTTP exchange whose secrets stay in buffers that can be wiped: the bearer on the way out, the body on the way in.

Plain `http.client` below, with a reader of its own: the usual one buffers what it reads where nobody can wipe it. Every
exchange has its own connection and one deadline.
"""

from __future__ import annotations

import io
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import urlsplit

from lamplighter.keys.value import wipe

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Answers about keys have less than a kilobyte.
MAX_BODY: Final = 1 << 20
_PART: Final = 1 << 14
_TOKEN: Final = re.compile(r"[A-Za-z0-9_\-+/=.]{24,}")


class NotSentError(Exception):
    """The request did not reach the server. `args[0]` says why."""


class NoAnswerError(Exception):
    """The request may have reached the server, and no whole answer came. `args[0]` says why."""


def redact(text: str, limit: int = 300) -> str:
    """What a server says, without anything as long as a key, in one line."""
    return " ".join(_TOKEN.sub("***", text).split())[:limit]


class Reply:
    """An answer: its status, its headers in lower case, its bytes. As a context manager it is wiped at the end."""

    __slots__ = ("_body", "_length", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytearray, length: int) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._length = length

    @contextmanager
    def reveal(self) -> Iterator[memoryview]:
        """The bytes of the body, to read and to overwrite."""
        with memoryview(self._body) as whole, whole[: self._length] as view:
            yield view

    def find(self, part: memoryview, start: int = 0) -> int:
        """Where `part` is in the body, -1 for nowhere."""
        return self._body.find(part, start, self._length)

    def json(self) -> dict[str, Any]:
        """The object that the body is; an empty one for anything else. Not for what may hold a value."""
        with self.reveal() as view:
            try:
                known = json.loads(bytes(view))
            except ValueError:
                return {}
        return known if isinstance(known, dict) else {}

    def wipe(self) -> None:
        wipe(self._body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return f"<Reply {self.status}>"


def exchange(
    base_url: str,
    method: str,
    path: str,
    *,
    secret: memoryview,
    header: str = "Authorization: Bearer ",
    body: bytes | None = None,
    timeout: float,
) -> Reply:
    """Send one request, once. `path` is escaped; `secret` follows `header` in the request's head.

    `timeout` is in seconds, for all of it. Raises NotSentError, NoAnswerError: both without a cause, because the frames
    of one would hold what was sent.
    """
    deadline = time.monotonic() + timeout
    connection = _connect(base_url, timeout)
    try:
        why = _send(connection, _head(base_url, method, path, header, body), secret, body)
        answer = why if isinstance(why, str) else receive(connection, method, deadline)
    finally:
        connection.close()
    if isinstance(answer, str):
        raise NoAnswerError(answer)
    return answer


def _connect(base_url: str, timeout: float) -> HTTPConnection:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        connection: HTTPConnection = HTTPSConnection(host, parts.port, timeout=timeout)
    else:
        connection = HTTPConnection(host, parts.port, timeout=timeout)
    try:
        connection.connect()
    except OSError as error:
        why = _why(error)
    else:
        return connection
    connection.close()
    raise NotSentError(f"cannot reach {parts.scheme}://{parts.netloc}: {why}")


def _head(base_url: str, method: str, path: str, header: str, body: bytes | None) -> bytes:
    parts = urlsplit(base_url)
    lines = [
        f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Accept: application/json",
        # Whatever the answer is, it must be read as it is.
        "Accept-Encoding: identity",
        "User-Agent: lamplighter-keys",
        "Connection: close",
    ]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, header]).encode("ascii")


def _send(connection: HTTPConnection, head: bytes, secret: memoryview, body: bytes | None) -> str | None:
    """Why it could not be sent, None when it was."""
    rest = b"\r\n\r\n" + (body or b"")
    # Made at its full length: growing would leave copies behind.
    request = bytearray(len(head) + len(secret) + len(rest))
    try:
        request[: len(head)] = head
        request[len(head) : len(head) + len(secret)] = secret
        request[len(head) + len(secret) :] = rest
        connection.send(request)
    except OSError as error:
        return _why(error)
    finally:
        wipe(request)
    return None


def receive(connection: HTTPConnection, method: str, deadline: float) -> Reply | str:
    """The answer to what was sent, or why there is none. `deadline` is one of `time.monotonic`."""
    stream = _Stream(connection.sock, deadline)
    response = HTTPResponse(cast("socket.socket", _Opened(stream)), method=method)
    body = bytearray(_PART)
    try:
        response.begin()
        length = _read(response, body)
    except (OSError, HTTPException, ValueError) as error:
        wipe(body)
        # Some of these carry what was read.
        error.args = ()
        return _why(error)
    finally:
        # In this order: a response flushes what it reads from.
        response.close()
        stream.close()
    return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, body, length)


def _read(response: HTTPResponse, body: bytearray) -> int:
    """Fill `body`, in pieces that are wiped when it has to grow; how many bytes there are."""
    length = 0
    while True:
        if length == len(body):
            _grow(body)
        with memoryview(body) as whole, whole[length:] as part:
            count = response.readinto(part)
        if not count:
            break
        length += count
    if response.length:
        raise ValueError
    return length


def _grow(body: bytearray) -> None:
    if len(body) >= MAX_BODY:
        raise ValueError
    kept = bytearray(len(body) * 2)
    kept[: len(body)] = body
    wipe(body)
    body[:] = kept
    wipe(kept)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return {"HTTPException": "no HTTP answer", "ValueError": "an answer that breaks off"}.get(
        type(error).__name__, type(error).__name__
    )


class _Stream(io.BufferedIOBase):
    """Reads a socket through one buffer of its own, which holds nothing that was read already."""

    def __init__(self, sock: Any, deadline: float) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline
        self._data = bytearray(_PART)
        self._start = self._end = 0

    def readable(self) -> bool:
        return True

    def _fill(self) -> bool:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        self._start, self._end = 0, self._sock.recv_into(self._data)
        return self._end > 0

    def readinto(self, target: WriteableBuffer) -> int:
        """All that there is room for, unless the end comes first: of a chunk, http.client takes less for its end."""
        with memoryview(target) as whole, whole.cast("B") as view:
            done = 0
            while done < len(view):
                if self._start == self._end and not self._fill():
                    break
                count = min(len(view) - done, self._end - self._start)
                view[done : done + count] = self._data[self._start : self._start + count]
                self._data[self._start : self._start + count] = bytes(count)
                self._start += count
                done += count
        return done

    def read(self, size: int | None = -1) -> bytes:
        """Only ever used for what ends a chunk."""
        found = bytearray()
        while size is None or size < 0 or len(found) < size:
            if self._start == self._end and not self._fill():
                break
            end = self._end if size is None or size < 0 else min(self._end, self._start + size - len(found))
            found += self._data[self._start : end]
            self._start = end
        return bytes(found)

    def readline(self, limit: int | None = -1) -> bytes:
        """Only ever used for the head and for the sizes of chunks."""
        line = bytearray()
        while limit is None or limit < 0 or len(line) < limit:
            if self._start == self._end and not self._fill():
                break
            end = self._data.find(b"\n", self._start, self._end)
            stop = self._end if end < 0 else end + 1
            if limit is not None and limit >= 0:
                stop = min(stop, self._start + limit - len(line))
            line += self._data[self._start : stop]
            self._start = stop
            if line.endswith(b"\n"):
                break
        return bytes(line)

    def close(self) -> None:
        wipe(self._data)
        super().close()


class _Opened:
    """What HTTPResponse wants of a socket."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def makefile(self, mode: str) -> _Stream:  # noqa: ARG002 - it is always "rb"
        return self._stream
