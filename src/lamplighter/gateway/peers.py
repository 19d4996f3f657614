"""Who is at the other end of a connected Unix socket, as the kernel knows it.

Asked beside the modes of files, which alone have been wrong before.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

_UCRED = struct.Struct("3i")


class Peer(NamedTuple):
    """The process that connected, or that listens there. `pid` is 0 for one that our namespace cannot see."""

    pid: int
    uid: int


def peer_of(sock: socket.socket) -> Peer:
    """Raises OSError."""
    pid, uid, _gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid)


def is_ours(sock: socket.socket) -> bool:
    """Whether the process at the other end runs as our user. Raises OSError."""
    return peer_of(sock).uid == os.geteuid()
