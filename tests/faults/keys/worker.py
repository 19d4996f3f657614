"""Runs rotations, each in a process of its own that may be killed: imports once, forks for each order on stdin.

An order is a line of JSON; the answer is one, with the process's status: 0 finished, 3 a KeysError, -9 killed. `fault`
arms a point, `kill_after` kills after so many seconds, wherever the process is then.
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
    answer(rotate(json.loads(sys.stdin.readline())))
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                status = rotate(order)
            except BaseException:  # noqa: BLE001 - whatever it is, the fork must not go on
                note(traceback.format_exc(), order)
                status = 4
            os._exit(status)
        killer = threading.Timer(order.get("kill_after", 600), os.kill, (child, signal.SIGKILL))
        killer.start()
        # Not reaped before the killer is gone: its pid must not be somebody else's.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        killer.cancel()
        killer.join()
        _, status = os.waitpid(child, 0)
        answer(os.waitstatus_to_exitcode(status))


def answer(status: int) -> None:
    sys.stdout.write(json.dumps({"status": status}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
