"""What can go wrong in the gateway itself. What clients are told is in `refusals.py`.

GatewayError
├── SocketTaken      another gateway has the link's socket
├── LinkRefused      who connected to the link is not the user that the gateway runs as
├── SpawnFailed      a gateway that was started did not answer
├── RelayError       the relay could not do what was asked
│   ├── RelayFailed  it did not start
│   └── RelayGone    it has ended, or was closed
├── Refused          a client gets an error of Postgres and goes (`refusal` is what it is told)
└── HandshakeFailed  a peer spoke no protocol of ours, was too slow, or left
    └── BackendFailed    a compute or pooler did not speak as it should
"""

from __future__ import annotations

from pathlib import Path

from lamplighter.gateway.refusals import Refusal


class GatewayError(Exception):
    """The gateway could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().partition("\n")[0])


class SocketTaken(GatewayError):
    """Another gateway answers on the socket; stop that one first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"Another gateway answers on {path}; stop that one first, or name another --socket.")


class LinkRefused(GatewayError):
    """Only the user that the gateway runs as may tell it routes."""


class SpawnFailed(GatewayError):
    """The gateway did not start. `log` is where it says why."""

    def __init__(self, why: str, log: Path) -> None:
        self.log = log
        super().__init__(f"The gateway did not start: {why}; see {log}.")


class RelayError(GatewayError):
    """The relay could not do what was asked."""


class RelayFailed(RelayError):
    """The relay did not start."""


class RelayGone(RelayError):
    """The relay has ended: start another."""


class Refused(GatewayError):
    """A client is told an error and goes."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


class HandshakeFailed(GatewayError):
    """The peer spoke no protocol of ours, was too slow, or left."""


class BackendFailed(HandshakeFailed):
    """A compute or pooler did not speak as it should."""
