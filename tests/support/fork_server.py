"""Runs `lamp` many times and imports it once: each run is a fork of this process, with its own arguments and streams.

A run is a process like any other, but for its start. Of the 0.35 s of CPU that one takes, 0.3 s are imports. Started by
`support.lamp_process`, with the number of a socket that gives the requests and ends when whoever asks has ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import struct
import sys
from typing import Any

#: Of a request, beside its JSON: stdin, stdout, stderr, and a pipe that takes the answer.
FDS = 4
ANSWER = struct.Struct("=ii")
MOST_BYTES = 2**17


def preload() -> None:
    for package in ("cli", "client", "keys"):
        found = importlib.import_module(f"lamplighter.{package}")
        for module in pkgutil.walk_packages(found.__path__, f"{found.__name__}."):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def become(request: dict[str, Any], fds: list[int]) -> None:
    """Take the streams, directory, environment and arguments that were asked for."""
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    os.closerange(3, max(fds) + 1)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["lamp", *request["arguments"]]
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if encoding := os.environ.get("PYTHONIOENCODING"):
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=encoding)


def attend(request: dict[str, Any], fds: list[int]) -> bool:
    """In a child of the server: true in the grandchild, which is to be `lamp`; the child waits for it and answers."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        return True
    os.write(fds[3], ANSWER.pack(pid, -1))
    os.write(fds[3], ANSWER.pack(pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    os._exit(0)


def serve(requests: socket.socket) -> bool:
    """Fork for each request. True in a process that is to be `lamp` now, false when nobody asks any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, fds, _, _ = socket.recv_fds(requests, MOST_BYTES, FDS)
        if not message:
            return False
        request = json.loads(message)
        if os.fork() == 0 and attend(request, fds):
            become(request, [*fds, requests.fileno()])
            return True
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    preload()
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        from lamplighter.cli.main import main

        main()
