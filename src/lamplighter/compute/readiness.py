"""Wait until a Postgres answers a query, by asking it: on its Unix socket, every millisecond or two.

A connection costs the server a fork, so the first query goes along with the startup packet, and a server that says that
it is starting is asked less often. Nothing of libpq is used: a refused attempt costs 0.1 ms here, 2 ms there.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from lamplighter.compute.config import SUPERUSER

_PROTOCOL_3 = 196608


class Answer(enum.Enum):
    """What a server said to startup packet and query."""

    READY = "it answered the query"
    STARTING = "it is starting, stopping or in recovery"
    SILENT = "nobody listens, or the connection was closed without a word"
    REFUSED = "it refuses us"


#: By SQLSTATE: cannot_connect_now, and too_many_connections, which is said by a server that works hard.
_ANSWERS = {b"57P03": Answer.STARTING, b"53300": Answer.READY}


@dataclass(frozen=True, slots=True)
class Verdict:
    answer: Answer
    message: str = ""


def opening(user: str = SUPERUSER, database: str = "postgres") -> bytes:
    """The startup packet and, without waiting for the answer, `SELECT 1`."""
    fields = ("user", user, "database", database, "application_name", "lamplighter")
    body = b"".join(field.encode() + b"\0" for field in fields) + b"\0"
    startup = struct.pack("!II", len(body) + 8, _PROTOCOL_3) + body
    query = b"SELECT 1\0"
    return startup + b"Q" + struct.pack("!I", len(query) + 4) + query


def judge(received: bytes) -> Verdict | None:
    """Read what the server sent so far; None if that does not tell yet."""
    at = 0
    while len(received) - at >= 5:
        kind = received[at : at + 1]
        (length,) = struct.unpack_from("!I", received, at + 1)
        body = received[at + 5 : at + 1 + length]
        if length < 4:
            return Verdict(Answer.REFUSED, "it does not speak the protocol of Postgres")
        if len(body) < length - 4:
            return None
        if kind == b"D":
            return Verdict(Answer.READY)
        if kind == b"E":
            return _judge_error(body)
        if kind == b"R" and body[:4] != b"\0\0\0\0":
            return Verdict(Answer.REFUSED, "it asks for a password on the platform's own socket")
        at += 1 + length
    return None


def _judge_error(body: bytes) -> Verdict:
    fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
    message = fields.get(b"M", b"").decode(errors="replace")
    return Verdict(_ANSWERS.get(fields.get(b"C", b""), Answer.REFUSED), message)


async def ask(path: Path, *, within: float = 5.0) -> Verdict:
    """Connect once and say how the server answers."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            async with asyncio.timeout(within):
                await loop.sock_connect(sock, str(path))
                await loop.sock_sendall(sock, opening())
                received = b""
                while (verdict := judge(received)) is None:
                    chunk = await loop.sock_recv(sock, 8192)
                    if not chunk:
                        return Verdict(Answer.SILENT)
                    received += chunk
                with contextlib.suppress(OSError):
                    sock.send(b"X\0\0\0\4")
                return verdict
        except (OSError, TimeoutError):
            return Verdict(Answer.SILENT)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait: `silent` for a server that says nothing, `recovering` for one that says it is starting."""

    silent: float = 60.0
    recovering: float = 900.0


async def wait_ready(path: Path, ended: asyncio.Future[int | None], patience: Patience) -> Verdict:
    """Ask until the server is ready, refuses, ends, or patience does: the last verdict is returned.

    A crash recovery lasts as long as there is WAL to replay, and a killed one would only begin again: a server that
    says that it is starting gets the longer time.
    """
    begun = time.monotonic()
    verdict = Verdict(Answer.SILENT)
    while not ended.done():
        verdict = await ask(path)
        if verdict.answer in (Answer.READY, Answer.REFUSED):
            return verdict
        waited = time.monotonic() - begun
        if waited > (patience.recovering if verdict.answer is Answer.STARTING else patience.silent):
            return verdict
        gap = 0.001 if waited < 0.2 else 0.005 if waited < 2 else 0.05
        await asyncio.wait({ended}, timeout=gap)
    return verdict
