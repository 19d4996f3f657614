"""Grounds for each driver, real Postgres on volumes, and a `Backup` that speaks to it through psycopg.

Root gets all four drivers, btrfs and XFS on pools made for the session; an ordinary user gets those that need no root.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lamplighter.compute.binaries import Binaries, default_cache
from lamplighter.compute.providers.build import Build
from lamplighter.compute.template import make_template
from lamplighter.compute.user import current_or_system_user, drop_prefix
from lamplighter.storage import BackupEnd, Owner, Volume, Volumes, init_pool, open_volumes, unmount_pool
from support.waiting import eventually

ROOT = os.geteuid() == 0
POOLS = {"btrfs": "btrfs", "reflink": "xfs"}
DRIVERS = [
    *(pytest.param(driver, marks=pytest.mark.root) for driver in POOLS),
    "overlay",
    "copy",
]
SECONDS = 60.0


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def owner() -> Owner | None:
    """Whom data directories are given to: somebody else when we are root."""
    return Owner(*current_or_system_user()) if ROOT else None


@pytest.fixture(scope="session")
def session_place() -> Iterator[Path]:
    # pytest's own directories are closed to the user that root runs Postgres as.
    path = Path(tempfile.mkdtemp(prefix="lamp-st-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def ground(driver: str, session_place: Path) -> Iterator[Path]:
    """A directory on a file system where the driver works."""
    # A driver's ground is taken down when another's turn comes, and made again when its own comes again.
    place = Path(tempfile.mkdtemp(prefix=driver, dir=session_place))
    place.chmod(0o711)
    if driver == "copy" and ROOT:
        # Copies need no special file system, and hundreds of them wait long for a disk that others use too.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3G,mode=711", "tmpfs", str(place)], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)
        return
    if driver not in POOLS:
        yield place
        return
    pool = init_pool(place, 3 * 2**30, POOLS[driver])
    pool.mount_point.chmod(0o711)
    try:
        yield pool.mount_point
    finally:
        unmount_pool(place)


@pytest.fixture
def root(ground: Path) -> Iterator[Path]:
    """An empty data directory of the platform."""
    path = Path(tempfile.mkdtemp(prefix="d", dir=ground))
    path.chmod(0o711)
    yield path
    # What is left mounted is the test's fault, and would be in the way of those that follow.
    for mounted in path.glob("volumes/*/data"):
        if driver_mounts(mounted):
            subprocess.run(["umount", str(mounted)], check=True)
    subprocess.run(["chmod", "-R", "u+rwx", str(path)], check=True)
    shutil.rmtree(path)


def driver_mounts(path: Path) -> bool:
    return f" {path} overlay " in Path("/proc/mounts").read_text()


Opener = Callable[..., Awaitable[Volumes]]


@pytest.fixture
async def opened(root: Path, driver: str, owner: Owner | None) -> AsyncIterator[Opener]:
    """`await opened()`: the volumes of `root`, recovered; ended after the test. More than one is like a restart."""
    made: list[Volumes] = []

    async def opener(*, reserve_bytes: int = 0) -> Volumes:
        volumes = open_volumes(root, driver=driver, owner=owner, reserve_bytes=reserve_bytes)
        made.append(volumes)
        await volumes.recover()
        return volumes

    yield opener
    for volumes in made:
        await volumes.shutdown()


@pytest.fixture
async def volumes(opened: Opener) -> Volumes:
    return await opened()


# --- looking into volumes -----------------------------------------------------------------------------------------


class Shell:
    """Runs small programs on a volume as its postmaster would run."""

    def __init__(self, owner: Owner | None) -> None:
        self._drop = () if owner is None else drop_prefix((owner.uid, owner.gid))

    def command(self, volume: Volume, *command: str) -> list[str]:
        return [*self._drop, *volume.enter, *command]

    async def __call__(self, volume: Volume, script: str) -> str:
        """Run a script in the volume's data directory, and return what it printed."""
        command = self.command(volume, "sh", "-ec", f'cd "$0"; {script}', str(volume.data_dir))
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def shell(owner: Owner | None) -> Shell:
    return Shell(owner)


@pytest.fixture
def tiny_seed(tmp_path: Path) -> Path:
    """What looks like a data directory, in a few files."""
    seed = tmp_path / "seed"
    for name in ("base/5", "global", "pg_wal/archive_status", "pg_replslot", "pg_notify"):
        (seed / name).mkdir(parents=True)
    (seed / "PG_VERSION").write_text("17\n")
    (seed / "postmaster.pid").write_text("1\n")
    (seed / "base/5/1259").write_bytes(b"a" * 2**20)
    (seed / "base/5/1260").write_bytes(b"")
    (seed / "global/pg_control").write_bytes(b"c" * 8192)
    (seed / "pg_wal/000000010000000000000001").write_bytes(b"w" * 2**20)
    return seed


# --- real Postgres ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def build() -> Build:
    return Binaries(default_cache()).ensure(17)


@pytest.fixture(scope="session")
def seed(build: Build, session_place: Path, owner: Owner | None) -> Path:
    return make_template(build, session_place / "seeds", owner=None if owner is None else (owner.uid, owner.gid))


@dataclass(frozen=True)
class Server:
    """A postmaster on a volume."""

    volume: Volume
    process: subprocess.Popen[bytes]
    sockets: Path
    log: Path

    async def connect(self, *, autocommit: bool = True) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        return await psycopg.AsyncConnection.connect(
            host=str(self.sockets), user="cloud_admin", dbname="neondb", autocommit=autocommit
        )

    async def sql(self, query: str) -> list[tuple[Any, ...]]:
        connection = await self.connect()
        try:
            cursor = await connection.execute(query.encode())
            return await cursor.fetchall() if cursor.description else []
        finally:
            await connection.close()

    @property
    def visible_data_dir(self) -> Path:
        if self.volume.enter:
            return Path(f"/proc/{self.process.pid}/root") / self.volume.data_dir.relative_to("/")
        return self.volume.data_dir

    async def end(self, sign: signal.Signals = signal.SIGINT) -> None:
        if self.process.poll() is None:
            self.process.send_signal(sign)
        await asyncio.to_thread(self.process.wait, SECONDS)


Serve = Callable[..., Any]


@pytest.fixture
async def serve(volumes: Volumes, build: Build, shell: Shell, owner: Owner | None) -> AsyncIterator[Serve]:
    """`async with serve(id) as server`: Postgres on a volume; opened before, stopped and closed after."""
    place = Path(tempfile.mkdtemp(prefix="lamp-sk-"))
    os.chmod(place, 0o711)  # noqa: PTH101 - the lint rule for async code knows pathlib only
    count = 0

    @asynccontextmanager
    async def serving(volume_id: str, *, close: bool = True) -> AsyncIterator[Server]:
        nonlocal count
        count += 1
        room = place / str(count)
        room.mkdir()
        if owner is not None:
            os.chown(room, owner.uid, owner.gid)
        hba = place / "hba.conf"
        hba.write_text("local all all trust\nlocal replication all trust\n")
        hba.chmod(0o644)
        volume = await volumes.open(volume_id)
        server = _start(shell, volume, build, room, hba)
        try:
            await _answering(server)
            yield server
        finally:
            await server.end()
            if close:
                await volumes.close(volume_id)

    yield serving
    shutil.rmtree(place)


def _start(shell: Shell, volume: Volume, build: Build, room: Path, hba: Path) -> Server:
    settings = {
        "unix_socket_directories": str(room),
        "listen_addresses": "",
        "hba_file": str(hba),
        "dynamic_shared_memory_type": "mmap",
        "shared_buffers": "16MB",
        "max_connections": "20",
        # Nobody pulls the plug of a test.
        "fsync": "off",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = shell.command(volume, str(build.program("postgres")), "-D", str(volume.data_dir), *words)
    log = room / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=build.environment(), stdout=out, stderr=out, start_new_session=True)
    return Server(volume, process, room, log)


async def _answering(server: Server) -> None:
    async def answers() -> bool:
        try:
            await (await server.connect()).close()
        except psycopg.OperationalError:
            assert server.process.poll() is None, server.log.read_text()
            return False
        return True

    await eventually(answers, seconds=SECONDS, what=f"an answer of {server.volume}")


class PostgresBackup:
    """`ports.Backup` on a server. `before_stop` runs when everything but WAL has been copied."""

    def __init__(self, server: Server, before_stop: Callable[[], Awaitable[object]] | None = None) -> None:
        self.visible_data_dir = server.visible_data_dir
        self.calls: list[str] = []
        self._server = server
        self._before_stop = before_stop
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    async def _fetch(self, query: str) -> tuple[Any, ...]:
        if self._connection is None:
            self._connection = await self._server.connect()
        cursor = await self._connection.execute(query.encode())
        row = await cursor.fetchone() if cursor.description else None
        return row or ()

    async def checkpoint(self) -> None:
        self.calls.append("checkpoint")
        await self._fetch("CHECKPOINT")

    async def start(self, label: str) -> None:
        self.calls.append("start")
        await self._fetch("SELECT pg_create_physical_replication_slot('lamp_clone_' || pg_backend_pid(), true, true)")
        await self._fetch(f"SELECT pg_backup_start('{label}', true)")

    async def stop(self) -> BackupEnd:
        self.calls.append("stop")
        if self._before_stop is not None:
            await self._before_stop()
        lsn, label, tablespaces = await self._fetch("SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)")
        (last,) = await self._fetch(f"SELECT pg_walfile_name('{lsn}')")
        first = label.partition("(file ")[2][:24]
        return BackupEnd(label.encode(), tablespaces.encode(), first, last)

    async def abort(self) -> None:
        self.calls.append("abort")
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


@pytest.fixture
def backup_of() -> Callable[..., PostgresBackup]:
    return PostgresBackup
