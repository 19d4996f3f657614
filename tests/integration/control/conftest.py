"""A catalog for each test, in one Postgres for all of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from lamplighter.compute.binaries import Build
from lamplighter.compute.user import SystemUser, drop_prefix
from lamplighter.control.catalog.migrate import migrate
from lamplighter.control.catalog.pool import Catalog, open_pool
from lamplighter.control.operations import store
from lamplighter.control.operations.engine import Engine, Recipe, Step
from lamplighter.control.operations.model import NewOperation, Operation
from lamplighter.control.operations.states import Retry

DEADLINE = 30.0
TEMPLATE = "catalog_template"
_numbers = count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def cluster(postgres17: Build, owner: SystemUser) -> Iterator[str]:
    """The conninfo, without a database, of a postmaster that lives as long as the test run."""
    home = Path(tempfile.mkdtemp(prefix="lamp-catalog-"))
    os.chown(home, *owner)
    prefix, env = drop_prefix(owner), postgres17.environment()
    data, log = home / "data", home / "log"
    options = ["-D", data, "-U", "cloud_admin", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
    subprocess.run([*prefix, postgres17.program("initdb"), *options], env=env, check=True, capture_output=True, cwd="/")
    # fsync is off because no test here cuts the power; what a killed engine leaves behind does not depend on it.
    settings = {"listen_addresses": "", "unix_socket_directories": home, "fsync": "off", "max_connections": 80}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with log.open("wb") as output:
        postmaster = subprocess.Popen(
            [*prefix, postgres17.program("postgres"), "-D", data, *arguments],
            env=env,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
    conninfo = f"host={home} user=cloud_admin"
    try:
        _wait_for_postmaster(postmaster, conninfo, log)
        yield conninfo
    finally:
        postmaster.send_signal(signal.SIGINT)
        try:
            postmaster.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            postmaster.kill()
            postmaster.wait()
        shutil.rmtree(home)


def _wait_for_postmaster(postmaster: subprocess.Popen[bytes], conninfo: str, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            psycopg.connect(f"{conninfo} dbname=postgres").close()
        except psycopg.OperationalError:
            assert postmaster.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        else:
            return


@pytest.fixture
def empty_database(cluster: str) -> Iterator[str]:
    """The conninfo of a database that holds nothing."""
    yield from _database(cluster, "template0")


@pytest.fixture(scope="session")
def template(cluster: str) -> str:
    with psycopg.connect(f"{cluster} dbname=postgres", autocommit=True) as conn:
        conn.execute(f"create database {TEMPLATE}")

    async def fill() -> None:
        async with await psycopg.AsyncConnection.connect(f"{cluster} dbname={TEMPLATE}") as conn:
            await migrate(conn)

    asyncio.run(fill())
    return TEMPLATE


@pytest.fixture
def database(cluster: str, template: str) -> Iterator[str]:
    """The conninfo of a migrated catalog."""
    yield from _database(cluster, template)


def _database(cluster: str, template: str) -> Iterator[str]:
    name = f"catalog_{next(_numbers)}"
    with psycopg.connect(f"{cluster} dbname=postgres", autocommit=True) as conn:
        conn.execute(f"create database {name} template {template}")
        yield f"{cluster} dbname={name}"
        conn.execute(f"drop database {name} with (force)")


@pytest.fixture
async def catalog(database: str) -> AsyncIterator[Catalog]:
    """A pool on a migrated catalog."""
    opened = await open_pool(database, max_size=20)
    try:
        yield opened
    finally:
        await opened.close()


class Bench:
    """What most tests of the engine do: schedule operations, run engines, look at rows."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    async def schedule(
        self,
        project: str,
        *kinds: str | NewOperation,
        running: int = 1,
        now: datetime | None = None,
        **arguments: object,
    ) -> list[Operation]:
        """As one request does: all in one transaction, bound together."""
        ops = [
            kind if isinstance(kind, NewOperation) else NewOperation(kind, kind, arguments=arguments) for kind in kinds
        ]
        async with self.catalog.transaction() as conn:
            return await store.enqueue(
                conn, project, ops, group_id=uuid4(), ids=uuid4, now=now or datetime.now(UTC), running=running
            )

    async def row(self, op: Operation | UUID) -> dict[str, object]:
        async with self.catalog.connection() as conn:
            cursor = await conn.execute("select * from operations where id = %s", (getattr(op, "id", op),))
            row = await cursor.fetchone()
        assert row is not None
        return row

    async def statuses(self, ops: list[Operation]) -> list[object]:
        return [(await self.row(op))["status"] for op in ops]

    async def execute(self, query: str, *parameters: object) -> None:
        async with self.catalog.connection() as conn:
            await conn.execute(query, parameters)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something that can only be seen by looking."""
        async with asyncio.timeout(DEADLINE):
            while not await condition():  # noqa: ASYNC110 - only the catalog can tell
                await asyncio.sleep(0)

    async def until_row(self, op: Operation, condition: Callable[[dict[str, object]], bool]) -> None:
        async def holds() -> bool:
            return condition(await self.row(op))

        await self.until(holds)

    @asynccontextmanager
    async def running(self, *engines: Engine) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(engine.run()) for engine in engines]
        try:
            yield
        finally:
            for engine in engines:
                await engine.drain(0)
            await asyncio.gather(*tasks)

    @asynccontextmanager
    async def engine(self, *recipes: Recipe, owner: str = "engine", **options: object) -> AsyncIterator[Engine]:
        """A running engine that never looks at the catalog by itself, so that what is not told to it is not done."""
        options = {"longest_wait": 3600.0, "retry_policy": retry_at_once, **options}
        engine = Engine(self.catalog, {recipe.kind: recipe for recipe in recipes}, owner=owner, **options)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.running(engine))
            yield engine


def retry_at_once(failures: int, now: datetime) -> Retry:
    return Retry(at=now)


@pytest.fixture
def bench(catalog: Catalog) -> Bench:
    return Bench(catalog)


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """Makes a recipe of functions: `recipe("kind", clone=f, start=g)`."""

    def make(kind: str, *, on_give_up: object = None, **steps: Callable[[Operation], Awaitable[None]]) -> Recipe:
        return Recipe(kind, tuple(Step(name, run) for name, run in steps.items()), on_give_up)

    return make
