"""`python -m lamplighter.gateway --socket PATH`: one gateway, until SIGTERM or until it was drained."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Literal

import structlog
import uvloop

from lamplighter.gateway.errors import RelayFailed, SocketTaken
from lamplighter.gateway.front import Patience
from lamplighter.gateway.gate import Gate
from lamplighter.gateway.logs import LogFile

log = structlog.get_logger("lamplighter.gateway")


def main() -> int:
    """0 in the end, 1 if it could not begin."""
    options = _parser().parse_args()
    log_file = None if options.log is None else LogFile(options.log)
    if log_file is not None:
        log_file.open()
    _configure_logs(options.log_level)
    _raise_limits()
    # SIGPIPE is ignored by Python already; a terminal that closes is no reason to end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(options, log_file))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lamplighter.gateway", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket by which the platform tells routes")
    parser.add_argument("--log", type=Path, help="append to this file instead of writing to standard error")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--drain", type=float, default=10.0, metavar="SECONDS", help="how long SIGTERM waits")
    parser.add_argument("--wake", type=float, default=Patience().wake, metavar="SECONDS", help="deadline of a wake")
    parser.add_argument("--step", type=float, default=Patience().step, metavar="SECONDS", help="deadline of a step")
    return parser


async def _run(options: argparse.Namespace, log_file: LogFile | None) -> int:
    gate = Gate(options.socket, patience=Patience(step=options.step, wake=options.wake), log_file=log_file)
    try:
        await gate.open()
    except (SocketTaken, RelayFailed, OSError) as error:
        log.error("gateway.not_started", error=str(error))  # noqa: TRY400 - the message says what to do
        await gate.close()
        return 1
    terminated = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminated.set)
    log.info("gateway.started", pid=os.getpid(), socket=str(options.socket))
    waiting: list[asyncio.Task[Literal[True]]] = [asyncio.create_task(one.wait()) for one in (terminated, gate.drained)]
    keeping = None if log_file is None else asyncio.create_task(log_file.keep())
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if terminated.is_set():
        gate.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(options.drain):
                await gate.drained.wait()
    for task in filter(None, (*waiting, keeping)):
        task.cancel()
    await gate.close()
    log.info("gateway.ended")
    return 0


def _raise_limits() -> None:
    """Each connection takes descriptors; the soft limit of a shell is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _configure_logs(level: str) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
