"""Supervisors whose postmasters are gone after the test, whatever happened in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lamplighter.compute import process, shm
from lamplighter.compute.binaries import Binaries
from lamplighter.compute.ports import Changes, ComputeSpec, DatabaseSpec, RoleSpec
from lamplighter.compute.supervisor import Supervisor
from lamplighter.compute.template import make_template
from lamplighter.compute.tls import TlsFiles, ensure_tls
from lamplighter.compute.user import SystemUser
from support.waiting import eventually


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tls(session_place: Path, owner: SystemUser) -> TlsFiles:
    return ensure_tls(session_place / "tls", owner)


@dataclass
class House:
    """A run directory, a place for data, and what tests do with them."""

    place: Path
    binaries: Binaries
    seeds: Path
    owner: SystemUser
    tls: TlsFiles
    crashes: list[tuple[str, str]] = field(default_factory=list)
    supervisors: list[Supervisor] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    @property
    def run_dir(self) -> Path:
        return self.place / "run"

    def supervisor(self, **settings: Any) -> Supervisor:
        made = Supervisor(
            self.run_dir,
            builds=self.binaries.ensure,
            owner=self.owner,
            tls=settings.pop("tls", self.tls),
            on_crash=lambda compute_id, why: self.crashes.append((compute_id, why)),
            **settings,
        )
        self.supervisors.append(made)
        return made

    def data(self, name: str, major: int = 17) -> Path:
        """A fresh data directory."""
        seed = make_template(self.binaries.ensure(major), self.seeds, owner=self.owner)
        return self.clone(seed, name)

    def clone(self, source: Path, name: str) -> Path:
        target = self.place / name
        shutil.copytree(source, target, symlinks=True)
        if os.geteuid() == 0:
            for path in (target, *target.rglob("*")):
                os.chown(path, *self.owner, follow_symlinks=False)
        target.chmod(0o700)
        return target

    def spec(self, compute_id: str = "ep-one", **values: Any) -> ComputeSpec:
        major = values.pop("major", 17)
        data_dir = values.pop("data_dir", None) or self.data(f"data-{compute_id}", major)
        return ComputeSpec(id=compute_id, major=major, data_dir=data_dir, **values)

    def end_all(self) -> None:
        """Kill every Postgres that works below our place."""
        inside = [each for each in process.postgres_processes() if each.cwd_path.startswith(f"{self.place}/")]
        for each in inside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        assert process.kill_all(each.pid for each in inside) == []
        for each in process.postmasters(inside):
            data_dir = Path(each.cwd_path)
            shm.remove_left_by(each.pid, uid=self.owner.uid, since=self.began, data_dir=data_dir)


@pytest.fixture
async def house(
    place: Path, session_place: Path, binaries: Binaries, owner: SystemUser, tls: TlsFiles
) -> AsyncIterator[House]:
    made = House(place, binaries, session_place / "seeds", owner, tls)
    try:
        yield made
    finally:
        made.end_all()
        for supervisor in made.supervisors:
            await supervisor.close()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def until() -> Callable[..., Awaitable[None]]:
    """`await until(condition)`: wait for it, with a deadline."""

    async def wait(condition: Callable[[], Any], within: float = 20.0) -> None:
        await eventually(condition, seconds=within)

    return wait


@dataclass
class Project:
    """A running compute with a role and a database of users."""

    supervisor: Supervisor
    spec: ComputeSpec
    role: str = "app_owner"
    password: str = "pa'ss w\\rd"
    database: str = "app"

    def conninfo(self, **values: Any) -> str:
        given: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.spec.port,
            "user": self.role,
            "password": self.password,
            "dbname": self.database,
            "sslmode": "require",
            "channel_binding": "require",
            "connect_timeout": 10,
        }
        return psycopg.conninfo.make_conninfo(**(given | values))

    async def user(self, **values: Any) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        return await psycopg.AsyncConnection.connect(self.conninfo(**values), autocommit=True)


@pytest.fixture
def make_project(house: House, free_port: int) -> Callable[[Supervisor], Awaitable[Project]]:
    async def make(supervisor: Supervisor) -> Project:
        made = Project(supervisor, house.spec(port=free_port))
        await supervisor.start(made.spec)
        changes = Changes(
            roles=(RoleSpec(made.role, made.password),),
            databases=(DatabaseSpec(made.database, made.role, was="neondb"),),
        )
        await supervisor.apply(made.spec.id, changes)
        return made

    return make


@pytest.fixture
async def project(house: House, make_project: Callable[[Supervisor], Awaitable[Project]]) -> Project:
    return await make_project(house.supervisor())
