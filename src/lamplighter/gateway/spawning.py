"""Start a gateway as a process of its own, which outlives this one; or find the one that answers already."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lamplighter.gateway.errors import SpawnFailed

_LOOK_EVERY = 0.02
#: Bytes of the longest address of a Unix socket (sun_path).
LONGEST_PATH = 107


@dataclass(frozen=True, slots=True)
class Paths:
    """What lies beside a gateway's socket."""

    socket: Path

    @property
    def doors(self) -> Path:
        """The directory of its doors for our own programs."""
        return self._beside(".d")

    @property
    def lock(self) -> Path:
        """Held as long as the socket is that gateway's."""
        return self._beside(".lock")

    @property
    def keep(self) -> Path:
        """The socket of the channel that duplicates of its listening sockets go by."""
        return self.doors / "keep"

    @property
    def longest(self) -> Path:
        """The longest of all that are bound: the door at the last port."""
        return self.doors / ".s.PGSQL.65535"

    def _beside(self, ending: str) -> Path:
        return self.socket.with_name(self.socket.name + ending)


def command(socket_path: Path, log: Path) -> list[str]:
    return [sys.executable, "-m", "lamplighter.gateway", "--socket", str(socket_path), "--log", str(log)]


def answers(socket_path: Path) -> bool:
    """Whether a gateway listens there. Costs it nothing: who leaves without a word is forgotten."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(socket_path))
        except OSError:
            return False
        return True


async def start(socket_path: Path, log: Path, *, env: Mapping[str, str] | None = None, within: float = 20.0) -> int:
    """Start one, in a session and with streams of its own, and return its pid when it answers. Raises SpawnFailed.

    `env` is its whole environment, ours unless given; `within` is in seconds.
    Nobody else may be starting one on this socket: the one that comes second ends with an error.
    """
    if len(os.fsencode(Paths(socket_path).longest)) > LONGEST_PATH:
        raise SpawnFailed(f"the path {socket_path} is too long for the Unix sockets beside it", log)
    try:
        process = subprocess.Popen(  # noqa: ASYNC220 - a vfork; asyncio's would kill it with the loop
            command(socket_path, log),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env=env,
        )
    except OSError as error:
        raise SpawnFailed(str(error), log) from error
    # A thread, because this object may not live as long as the gateway does, and a zombie would be left.
    threading.Thread(target=process.wait, name="gateway", daemon=True).start()
    deadline = time.monotonic() + within
    while not answers(socket_path):
        if process.returncode is not None:
            raise SpawnFailed(f"it ended with status {process.returncode}", log)
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            raise SpawnFailed(f"it did not answer within {within:g} seconds", log)
        await asyncio.sleep(_LOOK_EVERY)
    return process.pid
