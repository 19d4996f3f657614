"""What every test on a real Postgres shares: the programs, who runs them, and directories that this user can reach."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lamplighter.compute.binaries import Binaries, Build, default_cache
from lamplighter.compute.template import make_template
from lamplighter.compute.user import SystemUser, current_or_system_user, drop_prefix
from support.waiting import wait_for

Run = Callable[..., AbstractContextManager["Server"]]


@dataclass(frozen=True)
class Server:
    """A bare postmaster of a test: it trusts everybody who reaches its socket directory."""

    socket_dir: Path
    log: Path
    port: int = 5432

    def connect(self, user: str = "cloud_admin", dbname: str = "neondb") -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(host=str(self.socket_dir), port=self.port, user=user, dbname=dbname, autocommit=True)


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The cache that the product itself uses, so that a machine fetches each major once. Locked between processes."""
    return Binaries(default_cache())


@pytest.fixture(scope="session")
def postgres17(binaries: Binaries) -> Build:
    return binaries.ensure(17)


@pytest.fixture(scope="session")
def owner() -> SystemUser:
    """Who runs Postgres: the present user, for root the system user."""
    return current_or_system_user()


def _directory() -> Iterator[Path]:
    # pytest's own directories are 0700, and so closed to the user that root runs Postgres as
    path = Path(tempfile.mkdtemp(prefix="lamp-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory that Postgres's user may enter; gone after the test. Short enough for Unix sockets."""
    yield from _directory()


@pytest.fixture(scope="session")
def session_place() -> Iterator[Path]:
    """As `place`, for the whole session."""
    yield from _directory()


@pytest.fixture(scope="session")
def run(owner: SystemUser) -> Run:
    """`run(build, seed, place, **settings)`: a postmaster on a copy of `seed`, without the platform's supervisor."""

    @contextmanager
    def running(build: Build, seed: Path, place: Path, **settings: str) -> Iterator[Server]:
        data_dir = _copy(seed, place / "data", owner)
        hba = place / "hba.conf"
        hba.write_text(settings.pop("hba", "local all all trust\n"))
        sockets = place / "s"
        sockets.mkdir()
        os.chown(sockets, *owner)
        options = {"unix_socket_directories": str(sockets), "listen_addresses": "", "hba_file": str(hba), **settings}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [*drop_prefix(owner), str(build.program("postgres")), "-D", str(data_dir), *words]
        server = Server(sockets, place / "log", int(settings.get("port", 5432)))
        with server.log.open("wb") as log:
            process = subprocess.Popen(command, env=build.environment(), cwd=data_dir, stdout=log, stderr=log)
        try:
            _wait_until_answers(process, server)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    return running


def _copy(seed: Path, data_dir: Path, owner: SystemUser) -> Path:
    shutil.copytree(seed, data_dir, symlinks=True)
    if os.geteuid() == 0:
        for path in (data_dir, *data_dir.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)
    return data_dir


def _wait_until_answers(process: subprocess.Popen[bytes], server: Server, seconds: float = 30) -> None:
    def answers() -> bool:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            assert process.poll() is None, server.log.read_text()
            return False
        return True

    wait_for(answers, seconds=seconds, what="an answer of the server")


@pytest.fixture(scope="session")
def seed17(postgres17: Build, owner: SystemUser, session_place: Path) -> Path:
    """The seed of PostgreSQL 17 projects: a data directory to copy, never to start."""
    return make_template(postgres17, session_place / "seeds", owner=owner if os.geteuid() == 0 else None)
