"""One connection to a gateway's front, as the platform has it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lamplighter.gateway import link
from lamplighter.gateway.peers import peer_of
from lamplighter.gateway.ports import ToGateway, ToPlatform

LOOK_SECONDS = 1.0


@dataclass(slots=True)
class Line:
    """`pid` is the process that listens on the socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pid: int
    socket_path: Path

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """Raises OSError."""
        reader, writer = await asyncio.open_unix_connection(path, limit=link.LONGEST)
        return cls(reader, writer, peer_of(writer.get_extra_info("socket")).pid, path)

    def send(self, message: ToGateway) -> None:
        # uvloop raises for one whose peer has just died, which whoever receives is about to be told.
        if not self.writer.is_closing():
            self.writer.write(link.to_gateway(message))

    async def receive(self, *, looks: int, every: float = LOOK_SECONDS) -> ToPlatform | None:
        """None at the end of the line. Raises ValueError, OSError, and TimeoutError for a front that says nothing.

        Its silence is counted in looks, of `every` seconds each, that we were there for: while this machine is
        suspended there are none, and however long we ourselves are stopped, that is one.
        """
        for _ in range(looks):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    line = await self.reader.readline()
                    return link.read_by_platform(line) if line.endswith(b"\n") else None
        raise TimeoutError

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        """What the front has not taken yet it never gets."""
        self.writer.transport.abort()
