"""What the gateway's front and its relay say to each other, by a SOCK_SEQPACKET socket. Pure. relay.c has it in C.

A message is `HEADER` (kind, a, b, unused, id; native order), then its payload. To the relay:

- HANDOVER: id; a, b: lengths; the first bytes for the backend, then those for the client; SCM_RIGHTS [client, backend]
- CUT: id
- COUNTERS: id, any: the answer has it

From the relay:

- READY, the first: a: `PROTOCOL`; b: how many connections it has file descriptors for
- CLOSED: id; a: index in `REASONS`; `BYTES` (in, out)
- COUNTERS: id as asked; a: number of rows; b: 1 if these are the last; rows of `ROW` (id, in, out)

What the relay does not understand it drops, and closes the fds that came with it. At the end of file it serves the
connections that it has to their end, then exits.
"""

from __future__ import annotations

import struct
from typing import Literal

PROTOCOL = 1
HEADER = struct.Struct("=IIIIQ")
BYTES = struct.Struct("=QQ")
ROW = struct.Struct("=QQQ")
HANDOVER, CUT, COUNTERS = 1, 2, 3
READY, CLOSED = 16, 17

#: Most bytes that may go ahead of what is relayed, each way.
INITIAL = 64 * 1024
#: Largest message either way.
LARGEST = HEADER.size + 2 * INITIAL

#: Why a connection ended: in order, from both sides, or a while after the backend's end; one side was reset or lost; it
#: was cut; the relay had no file descriptors or memory for it; the relay itself died (said by the driver).
Reason = Literal["ended", "client_lost", "backend_lost", "cut", "exhausted", "relay_died"]
REASONS: tuple[Reason, ...] = ("ended", "client_lost", "backend_lost", "cut", "exhausted", "relay_died")

#: Seconds that a connection lasts in which no byte moves after its backend has closed.
LINGER = 60
