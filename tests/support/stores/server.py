"""A real HTTP server on loopback that plays a store: routes, a clock that moves with each write, faults on demand."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    status: int
    content: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """An answer instead of the right one. `body` is sent as it is.

    `declared` bytes are promised more than are sent; `hang`: nothing more comes after that, until the store closes;
    `reset`: the connection is torn down instead.
    """

    status: int = 500
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    declared: int = 0
    hang: bool = False
    reset: bool = False
    #: Whether the request is carried out before the answer goes wrong.
    after: bool = False


Handler = Callable[..., Response]


def route(method: str, pattern: str) -> Callable[[Handler], Handler]:
    """For methods of a `Store`: `pattern` is a path with `{names}`, which are given as arguments, unescaped."""
    names = re.compile(r"\{(\w+)\}")
    whole = re.compile(names.sub(lambda each: f"(?P<{each[1]}>[^/]+)", pattern) + "$")

    def marked(handler: Handler) -> Handler:
        handler.route = (method, whole)  # type: ignore[attr-defined]
        return handler

    return marked


class Store:
    """One store. What it holds, and what it was asked, can be looked at from outside."""

    base_path: ClassVar[str] = ""
    #: Where the id of the request goes.
    request_header: ClassVar[str] = "X-Request-Id"

    def __init__(self, *, token: str) -> None:
        self.token = token
        self.request_id = "F4CE:1234:5678"
        self.requests: list[Request] = []
        self.faults: list[tuple[Fault, Callable[[Request], bool], int]] = []
        self.closing = threading.Event()
        self._offset = timedelta()
        self._lock = threading.RLock()
        self._routes = [
            (*handler.route, name)
            for name in dir(type(self))
            if (handler := getattr(type(self), name, None)) is not None and hasattr(handler, "route")
        ]
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}{self.base_path}"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def on_socket(self, path: Path) -> Iterator[Path]:
        """The same store on a unix socket."""
        server = _UnixServer(str(path), self)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    # The clock

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def tick(self) -> datetime:
        """A second later: for stores that count whole seconds, each write is at a time of its own."""
        self._offset += timedelta(seconds=1)
        return self.now()

    # Faults

    def fail(self, fault: Fault, *, when: Callable[[Request], bool] = lambda _: True, times: int = 1 << 30) -> None:
        """From now on, answer `times` requests for which `when` holds with `fault`."""
        self.faults.append((fault, when, times))

    def mend(self) -> None:
        self.faults.clear()

    def fault_for(self, request: Request) -> Fault | None:
        with self._lock:
            for at, (fault, when, times) in enumerate(self.faults):
                if when(request):
                    self.faults[at : at + 1] = [(fault, when, times - 1)] if times > 1 else []
                    return fault
        return None

    # Answers

    def answer(self, request: Request) -> Response:
        with self._lock:
            if not self.allowed(request):
                return self.refused(401, request)
            for method, pattern, name in self._routes:
                found = pattern.match(request.path.removeprefix(self.base_path))
                if found and method == request.method:
                    arguments = {key: unquote(text) for key, text in found.groupdict().items()}
                    return getattr(self, name)(request, **arguments)  # type: ignore[no-any-return]
            return self.refused(404, request)

    def allowed(self, request: Request) -> bool:
        return request.headers.get("authorization") in (f"Bearer {self.token}", f"token {self.token}")

    def refused(self, status: int, request: Request) -> Response:
        return Response(status, {"message": "no"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body go out as one write: of two the second would wait for the other side.
    wbufsize = -1

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True

    def address_string(self) -> str:
        return "peer"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the standard library names it
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.store.now(), usegmt=True)

    @property
    def store(self) -> Store:
        return self.server.store  # type: ignore[attr-defined, no-any-return]

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        request = Request(
            self.command,
            parts.path,
            {name: texts[-1] for name, texts in parse_qs(parts.query, keep_blank_values=True).items()},
            {name.lower(): text for name, text in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        self.store.requests.append(request)
        fault = self.store.fault_for(request)
        if fault is None:
            response = self.store.answer(request)
            content = b"" if response.content is None else json.dumps(response.content).encode()
            self._send(response.status, content, {"Content-Type": "application/json", **response.headers})
            return
        if fault.after:
            self.store.answer(request)
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        self._send(fault.status, fault.body, fault.headers, declared=fault.declared)
        if fault.hang:
            self.store.closing.wait()
        self.close_connection = True

    def _send(self, status: int, content: bytes, headers: Mapping[str, str], *, declared: int = 0) -> None:
        self.send_response(status)
        self.send_header(self.store.request_header, self.store.request_id)
        for name, text in headers.items():
            self.send_header(name, text)
        if status != 204 and "Transfer-Encoding" not in headers:
            self.send_header("Content-Length", str(len(content) + declared))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: Any, store: Store) -> None:
        self.store = store
        super().__init__(address, _Handler)

    def shutdown_request(self, request: Any) -> None:
        # Without a polite end before it: what is to be a reset would not be one.
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        raise  # noqa: PLE0704 - it is being handled: a thread that fails makes its test fail


class _UnixServer(_Server):
    address_family = socket.AF_UNIX
