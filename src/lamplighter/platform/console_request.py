"""What is said to the console's proxy before TLS begins: one request, and what it is answered. Pure.

RFC 9110 (9.3.6) and 9112. Nothing but `CONNECT console.neon.tech:443` is served; its header fields say nothing that
counts. `judge` needs no more bytes than it has to: garbage and other protocols are told so at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: The host that clients of Neon have built in, and its port.
CONSOLE: Final = "console.neon.tech"
PORT: Final = 443
#: Bytes of a head with its empty line. Clients send some 200.
LONGEST: Final = 8 * 1024

GRANTED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

_END = b"\r\n\r\n"
# The second run only behind a space of its own: which of two runs a byte is in would else be tried for each of them.
_BEGUN = re.compile(rb"[A-Z]{0,16}|[A-Z]{1,16} [!-~]*(?: [!-~]*)?\r?")
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([!-~]+) HTTP/1\.[0-9]")
_AUTHORITY = re.compile(rb"([A-Za-z0-9.-]{1,255}):([0-9]{1,5})")

_PURPOSE = f"This proxy passes on CONNECT {CONSOLE}:{PORT} to Lamplighter's own API, and nothing else."


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason` stands in the status line, which is all that most clients show; `sentence` is the body."""

    status: int
    reason: str
    sentence: str = _PURPOSE

    def render(self) -> bytes:
        body = f"{self.sentence}\n".encode()
        head = [
            f"HTTP/1.1 {self.status} {self.reason}",
            "content-type: text/plain; charset=utf-8",
            f"content-length: {len(body)}",
            "connection: close",
            *(["allow: CONNECT"] if self.status == 405 else []),
        ]
        return "\r\n".join(head).encode() + _END + body


@dataclass(frozen=True, slots=True)
class Granted:
    """The console is asked for. `length`: bytes of the head; what is behind them is TLS already."""

    length: int


MALFORMED: Final = Refusal(400, "Bad Request", f"That is no request of HTTP/1.1. {_PURPOSE}")
ELSEWHERE: Final = Refusal(403, f"Forbidden: this proxy leads to {CONSOLE}:{PORT} only")
NOT_CONNECT: Final = Refusal(405, "Method Not Allowed: this proxy knows CONNECT only")
TOO_LATE: Final = Refusal(408, "Request Timeout", f"The request did not come to its end. {_PURPOSE}")
TOO_LONG: Final = Refusal(431, "Request Header Fields Too Large", f"The request is over {LONGEST} bytes. {_PURPOSE}")
UNREACHED: Final = Refusal(502, "Bad Gateway", "The API of this platform does not answer: it stops, or has stopped.")
BUSY: Final = Refusal(503, "Service Unavailable: too many connections", "Too many connections are open; close some.")


def judge(data: bytes) -> Granted | Refusal | None:
    """What a client gets for the first bytes of its connection; None: it depends on what follows.

    An answer stays the same whatever follows. None is given for fewer than `LONGEST` bytes only.
    """
    head, ended, _ = data[:LONGEST].partition(_END)
    line, whole, _ = head.partition(b"\r\n")
    if not (whole or ended):
        if _BEGUN.fullmatch(line) is None:
            return MALFORMED
        return TOO_LONG if len(data) >= LONGEST else None
    request = _REQUEST.fullmatch(line)
    if request is None:
        return MALFORMED
    refusal = _refusal(request[1], request[2])
    if refusal is not None:
        return refusal
    if not ended:
        return TOO_LONG if len(data) >= LONGEST else None
    return Granted(len(head) + len(_END))


def _refusal(method: bytes, target: bytes) -> Refusal | None:
    if method != b"CONNECT":
        return NOT_CONNECT
    authority = _AUTHORITY.fullmatch(target)
    if authority is None:
        # An address of IPv6 in brackets is a place, if none of ours; whatever else is no authority.
        return ELSEWHERE if re.fullmatch(rb"\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}", target) else MALFORMED
    host = authority[1].decode().lower().removesuffix(".")
    return None if (host, int(authority[2])) == (CONSOLE, PORT) else ELSEWHERE
