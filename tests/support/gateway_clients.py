"""Clients of Postgres, unmodified, as their users run them: each goes to an address and asks for one value.

They need psql and Node, which the tests bring, and a JDK with Debian's libpostgresql-jdbc-java.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlencode, urlsplit

import asyncpg
import psycopg

from lamplighter.compute.binaries import Build
from support.npm import bundled_node, installed
from support.waiting import eventually

CLIENTS = Path(__file__).parent.parent / "clients"
JDBC = Path("/usr/share/java/postgresql.jar")
RUN_SECONDS = 60


class Failed(Exception):
    """What the client said when it did not get what it asked for."""


@dataclass(frozen=True)
class Address:
    """Where a client is to go. `at` is what the host's name stands for, if no DNS knows it.

    `authority` is what it trusts, for sslmode=verify-full. `options` are those of the startup packet.
    """

    host: str
    port: int
    role: str
    password: str = field(repr=False)
    database: str
    sslmode: str = "require"
    authority: Path | None = None
    at: str | None = None
    options: str | None = None

    @classmethod
    def of(cls, uri: str, **given: Any) -> Address:
        """The address in a connection string of the API's, but for its parameters."""
        parts = urlsplit(uri)
        assert parts.hostname is not None
        role, password = unquote(parts.username or ""), unquote(parts.password or "")
        database = unquote(parts.path.removeprefix("/"))
        return cls(parts.hostname, parts.port or 5432, role, password, database, **given)

    @property
    def parameters(self) -> dict[str, str]:
        """By libpq's names, which most clients know."""
        given = {"sslmode": self.sslmode}
        if self.sslmode == "verify-full":
            assert self.authority is not None
            given["sslrootcert"] = str(self.authority)
        if self.options is not None:
            given["options"] = self.options
        return given

    def uri(self, **more: str) -> str:
        login = f"{quote(self.role, safe='')}:{quote(self.password, safe='')}"
        # Not every client takes a plus for a blank.
        query = urlencode(self.parameters | more, quote_via=quote)
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(self.database, safe='')}?{query}"

    def libpq_uri(self, **more: str) -> str:
        """For those who can be told the address of a name, and insist on channel binding where there is TLS."""
        if self.at is not None:
            more["hostaddr"] = self.at
        return self.uri(**more)


class Client(Protocol):
    """Answers the only value of a query's only row, as text. Raises Failed."""

    def __call__(self, address: Address, query: str) -> str: ...


def run(command: list[Any], env: Mapping[str, str], **options: Any) -> str:
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=RUN_SECONDS, **options)
    if done.returncode != 0:
        raise Failed(done.stderr)
    return done.stdout.strip()


class Libpq(Protocol):
    """The same, with further parameters of libpq."""

    def __call__(self, address: Address, query: str, **more: str) -> str: ...


class Clients:
    """All of them by name. `home` is for what they write: a home without settings or keys of anybody's, and classes."""

    def __init__(self, build: Build, home: Path) -> None:
        self._build = build
        self._home = home
        self._bare = {"PATH": os.environ["PATH"], "HOME": str(home), "TZ": "UTC"}
        self._classes: Path | None = None
        self.of_libpq: dict[str, Libpq] = {
            "psql": self.psql,
            "psycopg": self.psycopg,
            "psycopg-async": self.psycopg_async,
        }
        self.by_name: dict[str, Client] = {
            **self.of_libpq,
            "asyncpg": self.asyncpg,
            "node-postgres": self.node_postgres,
            "jdbc": self.jdbc,
        }

    def pgbench(self, address: Address, *arguments: str | Path) -> str:
        """Its report. Raises Failed."""
        env = {**self._bare, **self._build.environment()}
        return run([self._build.program("pgbench"), *arguments, address.libpq_uri()], env)

    def psql(self, address: Address, query: str, **more: str) -> str:
        command = [self._build.program("psql"), address.libpq_uri(**more), "-XAtqc", query]
        return run(command, {**self._bare, **self._build.environment()})

    def psycopg(self, address: Address, query: str, **more: str) -> str:
        try:
            with psycopg.connect(address.libpq_uri(connect_timeout="30", **more)) as connection:
                return _first(connection.execute(query.encode()).fetchone())
        except psycopg.Error as error:
            raise Failed(str(error)) from error

    def psycopg_async(self, address: Address, query: str, **more: str) -> str:
        async def ask() -> str:
            uri = address.libpq_uri(connect_timeout="30", **more)
            async with await psycopg.AsyncConnection.connect(uri) as connection:
                return _first(await (await connection.execute(query.encode())).fetchone())

        try:
            return asyncio.run(ask())
        except psycopg.Error as error:
            raise Failed(str(error)) from error

    def asyncpg(self, address: Address, query: str) -> str:
        async def ask() -> str:
            # PgBouncer gives each transaction another session, which does not know the statements of the last.
            connection = await asyncpg.connect(address.uri(), timeout=30, statement_cache_size=0)
            try:
                return str(await connection.fetchval(query))
            finally:
                await connection.close()

        loop = _Loop(address)
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                try:
                    return runner.run(ask())
                finally:
                    # It does not wait for the end of TLS when its login fails.
                    runner.run(loop.all_closed())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise Failed(str(error)) from error

    def node_postgres(self, address: Address, query: str) -> str:
        node = bundled_node()
        modules = installed(CLIENTS / "serverless", name="serverless-tests", node=node)
        settings: dict[str, Any] = {"connectionString": address.uri(uselibpqcompat="true")}
        if address.at is not None:
            # What it connects to by address it still verifies, and names in its hello, as told.
            login = {"user": address.role, "password": address.password, "database": address.database}
            ssl = {"servername": address.host, "ca": address.authority and address.authority.read_text()}
            settings = {"host": address.at, "port": address.port, **login, "ssl": ssl}
        command = [node.program, CLIENTS / "gateway" / "ask.mjs", json.dumps(settings), query]
        return run(command, {**self._bare, "MODULES": str(modules)})

    def jdbc(self, address: Address, query: str) -> str:
        login = {"user": address.role, "password": address.password}
        place = f"{address.host}:{address.port}/{quote(address.database, safe='')}"
        url = f"jdbc:postgresql://{place}?{urlencode(login | address.parameters, quote_via=quote)}"
        hosts = self._home / f"{address.host}.hosts"
        hosts.write_text(f"{address.at or address.host} {address.host}\n")
        # A virtual machine for one query: compiling what runs once does not pay.
        quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
        where = ["-cp", f"{self.classes}{os.pathsep}{JDBC}", f"-Djdk.net.hosts.file={hosts}"]
        named = where if address.at is not None else where[:2]
        return run(["java", *quick, *named, "Ask", url, query], self._bare)

    @property
    def classes(self) -> Path:
        """The program that uses JDBC, compiled once."""
        if self._classes is None:
            assert shutil.which("javac"), "no javac: apt-get install default-jdk-headless"
            assert JDBC.exists(), f"no {JDBC}: apt-get install libpostgresql-jdbc-java"
            run(["javac", "-d", self._home, CLIENTS / "gateway" / "Ask.java"], self._bare)
            self._classes = self._home
        return self._classes


def _first(row: tuple[Any, ...] | None) -> str:
    assert row is not None
    return str(row[0])


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that knows one more name than DNS does, and what it has connected."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        self._sockets: list[Any] = []

    async def getaddrinfo(self, host: Any, port: Any, **kind: Any) -> Any:
        known = self._address.at is not None and host == self._address.host
        return await super().getaddrinfo(self._address.at if known else host, port, **kind)

    async def create_connection(self, *place: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(*place, **options)
        self._sockets.append(transport.get_extra_info("socket"))
        return transport, protocol

    async def all_closed(self) -> None:
        await eventually(lambda: all(one.fileno() == -1 for one in self._sockets), what="the end of its connections")
