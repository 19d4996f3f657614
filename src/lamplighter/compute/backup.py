"""A running Postgres as the source of a clone: what storage needs of it, in one session.

Fits `storage.ports.Backup` by its names, without knowing it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from lamplighter.compute.errors import ChangeFailed

_START = re.compile(rb"^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BackupEnd:
    """What `pg_backup_stop` leaves. The WAL files are the first and the last that the clone needs."""

    label_file: bytes
    tablespace_map: bytes
    first_wal_file: str
    last_wal_file: str


def first_wal_file(label: bytes) -> str:
    """The file that a backup label begins with. Raises ValueError for what is no label."""
    found = _START.search(label)
    if found is None:
        raise ValueError(label)
    return found[1].decode()


def wal_file(timeline: int, lsn: int, segment_size: int) -> str:
    """Name of the file with the byte before `lsn`: a backup that ends where a file ends does not need the next one."""
    segment = (lsn - 1) // segment_size
    per_log = 0x1_0000_0000 // segment_size
    return f"{timeline:08X}{segment // per_log:08X}{segment % per_log:08X}"


def parse_lsn(text: str) -> int:
    """`16/B374D848` as a number. Raises ValueError for anything else."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


class Backup:
    """One clone's session. Opened by the first call; `abort` must be called at the end, whatever happened.

    `visible_data_dir` is where this process finds the source's data. All methods but `abort` raise `ChangeFailed`.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[psycopg.AsyncConnection[tuple[Any, ...]]]], visible_data_dir: Path
    ) -> None:
        self.visible_data_dir = visible_data_dir
        self._connect = connect
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    async def checkpoint(self) -> None:
        """Write dirty buffers out, so that an atomic snapshot has little WAL to replay."""
        await self._fetch("CHECKPOINT", returns=False)

    async def start(self, label: str) -> None:
        """`pg_backup_start(label, fast => true)`, with the WAL from now on kept until the session ends.

        Two checkpoints during a long copy would otherwise remove WAL that the copy needs. A server whose slots are all
        taken is copied without: the clone then fails for want of WAL at worst, and is tried again.
        """
        with contextlib.suppress(ChangeFailed):
            await self._fetch(
                "SELECT pg_create_physical_replication_slot('lamp_clone_' || pg_backend_pid(), true, true)"
            )
        old = await self._major() < 15
        function = "pg_start_backup(%s, true, false)" if old else "pg_backup_start(%s, true)"
        await self._fetch(f"SELECT {function}", (label,))

    async def stop(self) -> BackupEnd:
        """`pg_backup_stop(wait_for_archive => false)` in the session that started it."""
        function = "pg_stop_backup(false, false)" if await self._major() < 15 else "pg_backup_stop(false)"
        row = await self._fetch(
            f"SELECT lsn::text, labelfile, spcmapfile, (SELECT setting FROM pg_settings"
            f" WHERE name = 'wal_segment_size') FROM {function}"
        )
        lsn, label, tablespaces, segment_size = row
        first = first_wal_file(label.encode())
        last = wal_file(int(first[:8], 16), parse_lsn(lsn), int(segment_size))
        return BackupEnd(label.encode(), (tablespaces or "").encode(), first, last)

    async def abort(self) -> None:
        """End the session; Postgres gives up a backup that was started. Safe at any time, and more than once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _open(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = await self._connect()
        return self._connection

    async def _major(self) -> int:
        return (await self._open()).info.server_version // 10000

    async def _fetch(self, query: str, parameters: tuple[Any, ...] | None = None, *, returns: bool = True) -> Any:
        connection = await self._open()
        try:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchone() if returns else None
        except psycopg.Error as error:
            raise ChangeFailed("A step of the backup", str(error)) from error
