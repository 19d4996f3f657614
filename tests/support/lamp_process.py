"""`lamp` as a user runs it: a process, its output, its exit status. `support.fork_server` makes its start cheap."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import fork_server


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


class _Server:
    """The process that forks; made with the first run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ours: socket.socket | None = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, fork_server.MOST_BYTES)
        with theirs:
            command = [sys.executable, "-P", fork_server.__file__, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

        def end() -> None:
            ours.close()
            process.wait(20)

        atexit.register(end)
        return ours

    def ask(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        with self._lock:
            if self._ours is None:
                self._ours = self._start()
            socket.send_fds(self._ours, [json.dumps(request).encode()], fds)


_server = _Server()


def run_lamp(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, seconds: float = 90
) -> Ran:
    """Run `lamp` in this environment (None: ours) and wait for its end; subprocess.TimeoutExpired after `seconds`."""
    request = {
        "arguments": list(arguments),
        "env": dict(os.environ if env is None else env),
        "cwd": str(cwd or Path.cwd()),
    }
    read, write = os.pipe()
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        Path(os.devnull).open("rb") as nothing,
        os.fdopen(read, "rb", buffering=0) as answer,
    ):
        try:
            _server.ask(request, [nothing.fileno(), out.fileno(), err.fileno(), write])
        finally:
            os.close(write)
        pid, _ = fork_server.ANSWER.unpack(answer.read(fork_server.ANSWER.size))
        if not select.select([answer], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(["lamp", *arguments], seconds)
        _, status = fork_server.ANSWER.unpack(answer.read(fork_server.ANSWER.size))
        out.seek(0)
        err.seek(0)
        ran = Ran(status, out.read().decode(), err.read().decode())
    assert "Traceback" not in ran.err, ran.err
    return ran
