"""What a server asks of libpq while it logs in, looked at before libpq reads it.

libpq hashes the password as often as the server says, all at once and with Python's lock held: whoever owns a role sets
that number, and would hold up everybody here.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from dataclasses import dataclass

from lamplighter.gateway.wire import messages, scram
from lamplighter.gateway.wire.errors import WireError

#: Most that is looked at. No honest server says as much before it has let somebody in.
_MOST = 64 * 1024
#: A message of which a part is there keeps the socket readable, so that nothing tells when the rest comes.
_PART_SECONDS = 0.01


class NotUnderstood(Exception):
    """The server does not speak the protocol."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the password is to be hashed with, and how often."""

    salt: bytes
    iterations: int


class Watch:
    """Looks at one login's socket."""

    def __init__(self) -> None:
        self._welcome = False

    async def ahead(self, fd: int) -> Cost | None:
        """What libpq is about to read, if that is to cost something. Raises NotUnderstood, also for too long a text."""
        while not self._welcome:
            ended = _ended(fd)
            said = _peek(fd)
            frames = messages.Frames(_MOST)
            try:
                cost = self._look(frames.feed(said))
            except WireError as error:
                raise NotUnderstood from error
            if cost is not None:
                return cost
            if self._welcome or ended or not len(frames):
                return None
            if len(said) >= _MOST:
                raise NotUnderstood
            await asyncio.sleep(_PART_SECONDS)
        return None

    def _look(self, found: list[messages.Message]) -> Cost | None:
        for message in found:
            if message.kind != b"R":
                continue
            asked = messages.parse_authentication(message.body)
            if asked.code == messages.AUTH_OK:
                # What comes from here on costs nothing, and may be long.
                self._welcome = True
                return None
            if asked.code == messages.AUTH_SASL_CONTINUE:
                return Cost(*scram.cost_of(asked.data))
        return None


def _ended(fd: int) -> bool:
    """Whether nothing will come beyond what is there."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


def _peek(fd: int) -> bytes:
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            return sock.recv(_MOST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            # libpq finds the end itself.
            return b""
