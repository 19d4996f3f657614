"""A platform of a test's own: `lamp up` as a real process, its API, and ways to end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from support.waiting import wait_for

READY_SECONDS = 120.0


#: One for all: making a client reads the host's certificates, which costs more than most requests. Idle connections go
#: before the server would close them, so that no request is sent into one that is just being closed.
_http = httpx2.Client(timeout=60, limits=httpx2.Limits(keepalive_expiry=2))


class Lamp:
    """One data directory, and at most one `lamp up` on it. `url` ends with `/api/v2`."""

    def __init__(
        self, data_dir: Path, *, driver: str | None = None, ports: tuple[int, int], options: tuple[str, ...] = ()
    ):
        self.data_dir = data_dir
        self.driver = driver
        self.ports = ports
        self.options = options
        self.process: subprocess.Popen[str] | None = None
        self.shown: dict[str, Any] = {}
        self.key = ""
        self.connection_uri = ""
        self.log = data_dir.with_name(data_dir.name + ".log")

    @property
    def url(self) -> str:
        return str(self.shown["base_url"])

    @property
    def config_home(self) -> Path:
        """XDG_CONFIG_HOME of the one who runs it: where it writes how tools reach it."""
        return self.data_dir.with_name(self.data_dir.name + "-config")

    def command(self) -> list[str]:
        chosen = ["--storage-driver", self.driver] if self.driver else []
        ports = ["--endpoint-ports", str(self.ports[0]), str(self.ports[1])]
        place = ["--data-dir", str(self.data_dir), "--port", "0", "--output", "json"]
        return [sys.executable, "-m", "lamplighter", "up", *place, *ports, *chosen, *self.options]

    def start(self, *, env: Mapping[str, str] | None = None, wait: bool = True) -> Lamp:
        """Start it, and return when it is ready. Raises AssertionError with its log when it ends instead."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "XDG_CONFIG_HOME": str(self.config_home), **(env or {})},
                start_new_session=True,
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        timer = threading.Timer(READY_SECONDS, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        assert line, f"lamp up ended with {self.process.wait()}:\n{self.log.read_text()[-4000:]}"
        self.shown = json.loads(line)
        self.key = self.shown["api_key"] or self.key
        self.connection_uri = self.shown["connection_uri"] or self.connection_uri

    def stop(self) -> int:
        """End it as Ctrl-C does, and answer its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self._ended(60)

    def kill(self) -> None:
        """SIGKILL for the control plane alone: computes and the catalog go on."""
        assert self.process is not None
        self.process.kill()
        self._ended(30)

    def wait_killed(self, seconds: float = 60.0) -> None:
        """Wait until an armed fault point has ended it."""
        status = self._ended(seconds)
        assert status == -signal.SIGKILL, f"ended with {status}:\n{self.log.read_text()[-4000:]}"

    def _ended(self, seconds: float) -> int:
        assert self.process is not None
        status = self.process.wait(seconds)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    def close(self) -> None:
        """Leave no process behind, whatever the test did."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        if self.process is not None:
            self.kill()
        if self.postmasters() or self.gateways():
            # A killed platform left its computes: the next one adopts them, and takes them along when it stops.
            with contextlib.suppress(AssertionError):
                self.start()
                self.stop()
        for pid in [*self.postmasters(), *self.gateways()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def postmasters(self) -> list[int]:
        """Process ids of all postmasters whose data lies in this platform's directory."""
        return self._processes("-D")

    def gateways(self) -> list[int]:
        """Process ids of gateways that this platform, or one before it, has started."""
        return self._processes("--log")

    def _processes(self, option: str) -> list[int]:
        """Those with an option that names something in this platform's directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                name = option.encode()
                if name in argv and argv[argv.index(name) + 1].startswith(os.fsencode(self.data_dir) + b"/"):
                    found.append(int(entry.name))
        return found

    # The API

    def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **params: Any
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.key if key is None else key}"}
        return _http.request(method, self.url + path, json=body, params=params, headers=headers)

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """The answer's JSON; None for an empty one. A refusal is an assertion error that shows it."""
        reply = self.request(method, path, body, **params)
        assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json() if reply.content else None

    def settle(self, project_id: str, *, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Wait until no operation of the project is under way; answers them, newest first."""

        def ended() -> list[dict[str, Any]]:
            found = self.call("GET", f"/projects/{project_id}/operations")["operations"]
            busy = [
                one for one in found if one["status"] not in ("finished", "failed", "cancelled", "skipped", "error")
            ]
            return [] if busy else found

        return wait_for(ended, seconds=seconds, what=f"the operations of {project_id}")

    def project(self, **fields: Any) -> dict[str, Any]:
        """A new project, ready."""
        made: dict[str, Any] = self.call("POST", "/projects", {"project": fields})
        self.settle(made["project"]["id"])
        return made

    def branch(
        self, project_id: str, name: str | None = None, *, parent: str | None = None, endpoint: bool = True
    ) -> Any:
        """A new branch, ready, with a read-write endpoint unless told otherwise."""
        wanted = {key: value for key, value in {"name": name, "parent_id": parent}.items() if value is not None}
        endpoints = [{"type": "read_write"}] if endpoint else []
        made = self.call("POST", f"/projects/{project_id}/branches", {"branch": wanted, "endpoints": endpoints})
        self.settle(project_id)
        return made


def uri_of(made: Mapping[str, Any]) -> str:
    """The connection string in the answer to a creation."""
    return str(made["connection_uris"][0]["connection_uri"])


def sql(uri: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run one statement as a user would; answers its rows, if it has any."""
    with psycopg.connect(uri, autocommit=True, connect_timeout=10) as conn:
        cursor = conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def _lanes() -> Iterator[int]:
    """First ports of ranges of a hundred, begun elsewhere in each process: sessions side by side seldom meet."""
    first, ranges = os.getpid() % 90, 90
    while True:
        for number in range(ranges):
            yield 10000 + (first + number) % ranges * 100


_next_ports = _lanes()


@contextlib.contextmanager
def temporary_lamp(*, driver: str | None = None, options: tuple[str, ...] = (), start: bool = True) -> Iterator[Lamp]:
    """A platform in a directory of its own, taken away at the end."""
    with tempfile.TemporaryDirectory(prefix="lamp-") as name:
        place = Path(name)
        place.chmod(0o755)
        first = next(_next_ports)
        lamp = Lamp(place / "data", driver=driver, ports=(first, first + 99), options=options)
        try:
            if start:
                lamp.start()
            yield lamp
        finally:
            lamp.close()
