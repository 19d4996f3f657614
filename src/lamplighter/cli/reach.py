"""Whether anything listens at a server's address, where that is this machine.

The SDK tries again for some twenty seconds, which is right for a server far away. On this machine a refused connection
means that nothing runs, and a person who forgot `lamp up` should hear it at once.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from lamplighter.cli.errors import Failure

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SECONDS = 2.0


def check(base_url: str) -> None:
    """Raises Failure when the server is to be on this machine, and nothing listens there."""
    parts = urlsplit(base_url)
    if parts.hostname not in _LOOPBACK:
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=_SECONDS).close()
    except ConnectionRefusedError:
        raise Failure(
            f"no server runs at {base_url}",
            hint="`lamp up` starts one here; `lamp context` shows where the address comes from",
        ) from None
    except OSError:
        return  # the client says it better
