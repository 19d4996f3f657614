"""SQL over HTTP and WebSocket on one Postgres with passwords, served by uvicorn, without the rest of a gateway."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import uvicorn

from lamplighter.compute.binaries import Build
from lamplighter.compute.user import current_or_system_user, drop_prefix
from lamplighter.gateway.serverless import UVICORN, Limits, Serverless, Target, UnknownHost, Warmth, app
from support.waiting import wait_for

ENDPOINT = "ep-test-lamp-12345678"
#: The name and its password need escaping wherever they are written.
USER, PASSWORD = "app@user", "pa:ss/w@rd %1\\'"


@dataclass(frozen=True)
class Postgres:
    """`postgres` is the superuser; all roles log in by SCRAM over TCP."""

    port: int
    log: Path

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        given = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "password": "super", "dbname": "neondb"}
        return psycopg.connect(**(given | options), autocommit=True)

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement."""
        with self.connect() as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running_postgres(build: Build, **settings: str) -> Iterator[Postgres]:
    owner = current_or_system_user()
    # pytest's own directories are 0700, and so closed to the user that root runs Postgres as
    place = Path(tempfile.mkdtemp(prefix="lamp-serverless-"))
    os.chown(place, *owner)
    try:
        with _postmaster(build, place, owner, settings) as server:
            yield server
    finally:
        shutil.rmtree(place)


@contextmanager
def _postmaster(build: Build, place: Path, owner: Any, settings: dict[str, str]) -> Iterator[Postgres]:
    secret = place / "pw"
    secret.write_text("super\n")
    os.chown(secret, *owner)
    data = place / "data"
    prepare = ["-D", str(data), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8"]
    subprocess.run(
        [*drop_prefix(owner), build.program("initdb"), *prepare, "--locale=C", "--no-sync"],
        env=build.environment(),
        cwd=place,
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(place), "fsync": "off", **settings}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    log = place / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*drop_prefix(owner), build.program("postgres"), "-D", data, "-p", str(port), *words],
            env=build.environment(),
            cwd=place,
            stdout=out,
            stderr=out,
        )
    server = Postgres(port, log)
    try:
        wait_for(lambda: _prepared(server, process), what="an answer of Postgres")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _prepared(server: Postgres, process: subprocess.Popen[bytes]) -> bool:
    try:
        with server.connect(dbname="postgres") as connection:
            role = psycopg.sql.Identifier(USER)
            connection.execute(psycopg.sql.SQL("create role {} login password {}").format(role, PASSWORD))
            connection.execute(psycopg.sql.SQL("create database neondb owner {}").format(role))
    except psycopg.OperationalError:
        assert process.poll() is None, server.log.read_text()
        return False
    return True


@dataclass(frozen=True)
class Door:
    """The app as it is served. `resolved` are the hosts and ports that it asked for."""

    port: int
    serverless: Serverless
    server: Postgres
    resolved: list[tuple[str, int | None]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/sql"

    def uri(self, user: str = USER, password: str = PASSWORD, database: str = "neondb", query: str = "") -> str:
        from urllib.parse import quote

        host = f"{ENDPOINT}.us-east-2.aws.neon.tech"
        return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{host}/{database}{query}"


@contextmanager
def served(
    server: Postgres,
    *,
    limits: Limits | None = None,
    warmth: Warmth | None = None,
    **target: Any,
) -> Iterator[Door]:
    """Serve it in a thread of its own, as the gateway does: uvloop, h11, websockets."""
    resolved: list[tuple[str, int | None]] = []

    async def resolve(host: str, port: int | None) -> Target:
        resolved.append((host, port))
        if not (host.startswith(ENDPOINT) or host == "127.0.0.1"):
            raise UnknownHost(host)
        return Target(**({"address": "127.0.0.1", "port": server.port} | target))

    serverless = app(resolve, limits=limits, warmth=warmth)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        config = uvicorn.Config(serverless, loop="uvloop", lifespan="on", log_config=None, access_log=False, **UVICORN)
        running = uvicorn.Server(config)
        running.capture_signals = _no_signals  # type: ignore[method-assign]
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, name="serverless")
        thread.start()
        try:
            wait_for(lambda: running.started, what="uvicorn")
            yield Door(listener.getsockname()[1], serverless, server, resolved)
        finally:
            running.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def _no_signals() -> Iterator[None]:
    yield
