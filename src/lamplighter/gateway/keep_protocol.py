"""What a front and the platform say to each other about listening sockets, by a SOCK_SEQPACKET socket. Pure.

A message is `HEADER` (kind, port), then the address in UTF-8, as the listener was told it. To the front:

- OFFER: what a front that has ended listened on; SCM_RIGHTS [the socket]
- OFFERED, without address and port: that was all

To the platform:

- HOLD: the front listens there; SCM_RIGHTS [the socket]
- GIVE_UP: it does so no more, or could make nothing of what was offered: close the duplicate
- READY, the answer to OFFERED: what it listened on by then was told ahead of it
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("=II")
#: Bytes of the longest address: an IPv6 one with its zone takes no more than some sixty.
LONGEST_ADDRESS = 255
LARGEST = HEADER.size + LONGEST_ADDRESS
#: How long clients wait in a backlog for a front that does not come: as long as for a compute that does not.
PATIENCE_SECONDS = 60.0
#: Most listening sockets that are kept; those beyond are bound anew by the next front.
MOST = 16_384


class Kind(IntEnum):
    """What a message says."""

    OFFER = 1
    OFFERED = 2
    HOLD = 16
    GIVE_UP = 17
    READY = 18


@dataclass(frozen=True, slots=True)
class At:
    """Where a socket listens: one address, one port."""

    address: str
    port: int


NOWHERE = At("", 0)


def pack(kind: Kind, at: At = NOWHERE) -> bytes:
    """Raises ValueError for an address longer than `LONGEST_ADDRESS`."""
    address = at.address.encode()
    if len(address) > LONGEST_ADDRESS:
        raise ValueError(f"the address {at.address!r} is too long")
    return HEADER.pack(kind, at.port) + address


def unpack(message: bytes) -> tuple[Kind, At]:
    """Raises ValueError for what is no message."""
    if not HEADER.size <= len(message) <= LARGEST:
        raise ValueError(f"{len(message)} bytes are no message about a socket")
    kind, port = HEADER.unpack_from(message)
    return Kind(kind), At(message[HEADER.size :].decode(), port)
