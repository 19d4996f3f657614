"""Runs rotations, each that may be killed in a process of its own: imports once, forks for such orders on stdin.

An order is a line of JSON; the answer is one, with the process's status: 0 finished, 3 a KeysError, 4 anything else,
-9 killed. `fault` arms a point, `kill_after` kills after so many seconds, wherever the process is then; without either
it is done here, as a fork costs as much as the rotation.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from faults.keys.file_sink import resolve
from lamplighter.api.secret import Secret
from lamplighter.keys.errors import KeysError
from lamplighter.keys.journal import Journal
from lamplighter.keys.naming import Naming
from lamplighter.keys.neon import NeonKeys
from lamplighter.keys.records import Scope, SinkRef
from lamplighter.keys.rotate import Rotation

LINEAGE = "ci"


def rotate(order: dict[str, Any]) -> int:
    os.environ["LAMP_FAULT"] = order["fault"]
    server = NeonKeys(base_url=order["url"], api_key=Secret(order["key"]), settle=order.get("settle", 0.02))
    scope = Scope(**order.get("scope", {"kind": "personal"}))
    sinks = [resolve(SinkRef(address)) for address in order["sinks"]]
    try:
        with Journal(Path(order["state"])) as journal:
            rotation = Rotation(server, journal, Naming(LINEAGE), scope=scope, sinks=sinks, soak=0, resolve=resolve)
            outcome = rotation.run() if order["mode"] == "run" else rotation.recover()
    except KeysError as error:
        note(f"{type(error).__name__}: {error}", order)
        return 3
    finally:
        server.close()
    note(repr(outcome), order)
    return 0


def note(text: str, order: dict[str, Any]) -> None:
    with Path(order["log"]).open("a") as log:
        log.write(f"{order['mode']} {order['fault']}: {text}\n")


def serve() -> None:
    # The first order is done here: what it imports and builds, all that are forked afterwards have.
    answer(attempt(json.loads(sys.stdin.readline())))
    gc.freeze()
    # In a fork a collection copies all that it looks at.
    gc.disable()
    for number, line in enumerate(sys.stdin, 1):
        if number % 64 == 0:
            gc.collect()
        order = json.loads(line)
        answer(apart(order) if order["fault"] or "kill_after" in order else attempt(order))


def attempt(order: dict[str, Any]) -> int:
    try:
        return rotate(order)
    except BaseException:  # noqa: BLE001 - whatever it is, a fork must not go on, and the next order is not to be lost
        note(traceback.format_exc(), order)
        return 4


def apart(order: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        os._exit(attempt(order))
    killer = threading.Timer(order["kill_after"], os.kill, (child, signal.SIGKILL)) if "kill_after" in order else None
    if killer is not None:
        killer.start()
        # Not reaped before the killer is gone: its pid must not be somebody else's.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        killer.cancel()
        killer.join()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def answer(status: int) -> None:
    sys.stdout.write(json.dumps({"status": status}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
