"""A platform as small as the gateway needs one: the other end of the link, and real computes behind it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from lamplighter import __version__
from lamplighter.compute import process
from lamplighter.compute.binaries import Binaries
from lamplighter.compute.ports import ComputeSpec
from lamplighter.compute.supervisor import Supervisor
from lamplighter.compute.tls import TlsFiles
from lamplighter.compute.user import SystemUser
from lamplighter.gateway import link, spawning
from lamplighter.gateway.ports import (
    AskVerifier,
    Backend,
    Done,
    Drain,
    DropRoute,
    Hello,
    Listening,
    Report,
    Route,
    SetRoute,
    SetRoutes,
    ToGateway,
    Traffic,
    Verifier,
    Wake,
    WakeFailed,
    Welcome,
)
from support.waiting import eventually, wait_for

DOMAIN = "db.example.test"
ROLE, PASSWORD, DATABASE = "app_owner", "pa'ss w\\rd", "app"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class GatewayProcess:
    """One `python -m lamplighter.gateway`."""

    def __init__(self, place: Path, *options: str) -> None:
        self.socket = place / "gw.sock"
        self.log = place / "gateway.log"
        self.process = subprocess.Popen(
            [*spawning.command(self.socket, self.log), "--log-level", "debug", "--drain", "0.5", *options],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_until_answers(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return spawning.answers(self.socket)

        wait_for(answers, what="an answer of the gateway")

    def relays(self) -> list[int]:
        """Processes of relays, by what the log says."""
        events = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [event["pid"] for event in events if event["event"] == "gateway.relay_started"]

    def fds(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Endpoint:
    """`private` is the port that its compute was last started on."""

    route: Route
    spec: ComputeSpec
    tls: bool
    private: int = 0

    @property
    def id(self) -> str:
        return self.route.endpoint_id

    def conninfo(self, **values: Any) -> str:
        given: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.route.port,
            "user": ROLE,
            "password": PASSWORD,
            "dbname": DATABASE,
            "connect_timeout": 30,
            "sslmode": "require" if self.tls else "disable",
        }
        return psycopg.conninfo.make_conninfo(**(given | values))

    async def connect(self, **values: Any) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        return await psycopg.AsyncConnection.connect(self.conninfo(**values), autocommit=True)

    async def select(self, **values: Any) -> Any:
        """Connect, ask for one thing, leave."""
        async with await self.connect(**values) as connection:
            return (await (await connection.execute("SELECT 42")).fetchone() or (None,))[0]


@dataclass
class Platform:
    """`wakes` counts what was asked for; `answer_wakes` False leaves it at that.

    Many tests may use one, each after `clear`: no endpoint of one has the name of another's, so that what the gateway
    reports late belongs to nobody any more.
    """

    place: Path
    binaries: Binaries
    prepared: Path
    owner: SystemUser
    tls: TlsFiles
    domain_port: int | None = None
    #: Data directories of endpoints that are no more, for the next ones of any platform: to copy and to delete one
    #: takes longer than most tests.
    spare: list[Path] = field(default_factory=list)
    options: tuple[str, ...] = ()
    answer_wakes: bool = True
    wakes: Counter[str] = field(default_factory=Counter)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    welcome: Welcome | None = None

    def __post_init__(self) -> None:
        (self.place / "g").mkdir(exist_ok=True)
        self.gateway = GatewayProcess(self.place / "g", *self.options)
        self.secure = self._supervisor("tls", self.tls)
        self.plain = self._supervisor("plain", None)
        self._writer: asyncio.StreamWriter | None = None
        self._done: dict[int, asyncio.Future[Done]] = {}
        self._seq = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)

    def _supervisor(self, name: str, tls: TlsFiles | None) -> Supervisor:
        return Supervisor(self.place / name, builds=self.binaries.ensure, owner=self.owner, tls=tls)

    @property
    def listening(self) -> Listening:
        return Listening(
            certificate=str(self.tls.certificate),
            key=str(self.tls.key),
            domain=DOMAIN if self.domain_port else None,
            domain_port=self.domain_port,
        )

    async def open(self) -> None:
        await asyncio.to_thread(self.gateway.wait_until_answers)
        await self.connect()

    async def connect(self, version: str = __version__) -> None:
        """Become the gateway's platform, and tell it all routes."""
        reader, self._writer = await asyncio.open_unix_connection(str(self.gateway.socket), limit=link.LONGEST)
        self.welcome = None
        self.send(Hello(version, self.listening))
        self._reading = asyncio.create_task(self._read(reader))
        await eventually(lambda: self.welcome)
        if version == __version__:
            await self.ask(SetRoutes(self._next(), tuple(one.route for one in self.endpoints.values())))

    async def leave(self) -> None:
        """As if the control plane had died."""
        assert self._writer is not None
        assert self._reading is not None
        self._writer.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer = None

    async def clear(self) -> None:
        """No endpoint is there, and nothing was asked for."""
        await self._end_tasks()
        for one in list(self.endpoints.values()):
            await self.supervisor(one).stop(one.id)
            await self.supervisor(one).forget(one.id)
            await self.drop(one.id)
            self.spare.append(one.spec.data_dir)
        self.answer_wakes = True
        for counted in (self.wakes, self.traffic, self.refused):
            counted.clear()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        await self._end_tasks()
        if self._writer is not None:
            await self.leave()
        await asyncio.to_thread(self.gateway.end)
        for supervisor in (self.secure, self.plain):
            for one in self.endpoints.values():
                with contextlib.suppress(Exception):
                    await supervisor.stop(one.id, mode="immediate")
            await supervisor.close()
        data_dirs = [one.spec.data_dir for one in self.endpoints.values()]
        inside = [one for one in process.postgres_processes() if Path(one.cwd_path) in data_dirs]
        for one in inside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        assert process.kill_all(one.pid for one in inside) == []
        self.spare += data_dirs

    def send(self, message: ToGateway) -> None:
        assert self._writer is not None
        self._writer.write(link.to_gateway(message))

    async def ask(self, message: SetRoutes | SetRoute | DropRoute) -> Done:
        future = self._done[message.seq] = asyncio.get_running_loop().create_future()
        self.send(message)
        async with asyncio.timeout(20):
            return await future

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            match message := link.read_by_platform(line):
                case Welcome():
                    self.welcome = message
                case Done(seq=seq):
                    self._done.pop(seq).set_result(message)
                case Wake(endpoint_id=endpoint_id):
                    self.wakes[endpoint_id] += 1
                    if self.answer_wakes:
                        self._later(self.wake(endpoint_id))
                case AskVerifier():
                    self._later(self._verify(message))
                case Report(traffic=traffic, refused=refused):
                    self.refused.update(refused)
                    for one in traffic:
                        self._add(one)

    def _add(self, one: Traffic) -> None:
        """Sums, but for what is open."""
        had = self.traffic.get(one.endpoint_id, Traffic(one.endpoint_id, 0, 0, 0, 0))
        self.traffic[one.endpoint_id] = Traffic(
            one.endpoint_id,
            one.open,
            had.accepted + one.accepted,
            had.bytes_in + one.bytes_in,
            had.bytes_out + one.bytes_out,
        )

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    # Endpoints

    def supervisor(self, one: Endpoint) -> Supervisor:
        return self.secure if one.tls else self.plain

    async def add(self, name: str, *, tls: bool = True, **values: Any) -> Endpoint:
        """An endpoint that sleeps, with a role and a database. Its id begins with `name`."""
        endpoint_id = f"{name}-{next(self._numbers)}"
        if self.spare:
            data_dir = self.spare.pop()
        else:
            data_dir = self.prepared.with_name(f"data-{secrets.token_hex(4)}")
            await asyncio.to_thread(copy_data, self.prepared, data_dir, self.owner)
        values = {"state": "asleep", "port": free_port()} | values
        route = Route(endpoint_id=endpoint_id, project_id="a-project", **values)
        one = Endpoint(route, ComputeSpec(id=endpoint_id, major=17, data_dir=data_dir), tls)
        self.endpoints[endpoint_id] = one
        await self.set(endpoint_id)
        return one

    async def _start(self, one: Endpoint) -> Backend:
        one.private = free_port()
        await self.supervisor(one).start(replace(one.spec, port=one.private))
        return Backend("127.0.0.1", one.private, one.tls)

    async def set(self, endpoint_id: str, **changes: Any) -> Done:
        """Change a route, and tell the gateway."""
        one = self.endpoints[endpoint_id]
        one.route = replace(one.route, **changes)
        return await self.ask(SetRoute(self._next(), one.route))

    async def wake(self, endpoint_id: str) -> None:
        await self.set(endpoint_id, state="holding")
        backend = await self._start(self.endpoints[endpoint_id])
        await self.set(endpoint_id, state="awake", compute=backend)

    async def suspend(self, endpoint_id: str) -> None:
        await self.set(endpoint_id, state="holding")
        await self.supervisor(self.endpoints[endpoint_id]).stop(endpoint_id)
        await self.set(endpoint_id, state="asleep", compute=None)

    async def drop(self, endpoint_id: str) -> None:
        del self.endpoints[endpoint_id]
        await self.ask(DropRoute(self._next(), endpoint_id))

    def fail(self, endpoint_id: str, code: str, message: str, detail: str = "", hint: str = "") -> None:
        self.send(WakeFailed(endpoint_id, code, message, detail, hint))

    def drain(self) -> None:
        self.send(Drain())

    async def _verify(self, ask: AskVerifier) -> None:
        one = self.endpoints[ask.endpoint_id]
        connection = await self.supervisor(one).connect(one.id)
        async with connection:
            row = await (
                await connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ask.role])
            ).fetchone()
        self.send(Verifier(ask.ask, row[0] if row else None))

    def open_of(self, endpoint_id: str) -> int:
        """Connections, as the last report has it."""
        return self.traffic[endpoint_id].open if endpoint_id in self.traffic else -1


def copy_data(seed: Path, target: Path, owner: SystemUser) -> None:
    shutil.copytree(seed, target, symlinks=True)
    if os.geteuid() == 0:
        for path in (target, *target.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)
    target.chmod(0o700)
