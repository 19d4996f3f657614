"""A real Postgres behind a relay of either kind: clients and pgbench see what they see without one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lamplighter.compute.binaries import Build
from lamplighter.compute.tls import TlsFiles, ensure_tls
from lamplighter.compute.user import SystemUser
from support.waiting import eventually, wait_for

from .conftest import Bench

HBA = "local all all trust\nhost all all 127.0.0.1/32 trust\n"


@pytest.fixture(scope="module")
def certificates(session_place: Path, owner: SystemUser) -> TlsFiles:
    return ensure_tls(session_place / "relay-tls", owner)


@pytest.fixture(scope="module")
def postgres(
    run: Callable[..., AbstractContextManager[Any]],
    postgres17: Build,
    seed17: Path,
    session_place: Path,
    certificates: TlsFiles,
) -> Iterator[int]:
    """Its TCP port."""
    place = session_place / "relay-postgres"
    place.mkdir(mode=0o755)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = int(free.getsockname()[1])
    # A backend that is killed makes Postgres sync the whole directory, and it hears of no stop meanwhile.
    settings = {
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": str(certificates.certificate),
        "ssl_key_file": str(certificates.key),
    }
    with run(postgres17, seed17, place, hba=HBA, listen_addresses="127.0.0.1", port=str(port), **settings):
        yield port


@pytest.fixture
async def uri(bench: Bench, postgres: int) -> AsyncIterator[str]:
    """Leads through the relay: a front that does the least that one can."""
    loop, numbers = asyncio.get_running_loop(), itertools.count(1)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)

    async def accept() -> None:
        while True:
            client, _ = await loop.sock_accept(listening)
            backend = socket.socket()
            backend.setblocking(False)
            await loop.sock_connect(backend, ("127.0.0.1", postgres))
            bench.relay.hand_over(next(numbers), client, backend)

    accepting = asyncio.create_task(accept())
    yield f"postgresql://cloud_admin@127.0.0.1:{listening.getsockname()[1]}/neondb"
    accepting.cancel()
    listening.close()


def _serves(port: int) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(f"postgresql://cloud_admin@127.0.0.1:{port}/neondb").close()
        return True
    return False


class PostgresContract:
    @pytest.mark.parametrize("sslmode", ["disable", "require"])
    async def test_queries_and_copies(self, bench: Bench, uri: str, sslmode: str) -> None:
        """Several megabytes out and in again, unchanged, with TLS from end to end or without."""

        def talk() -> tuple[bool, str, str]:
            with psycopg.connect(f"{uri}?sslmode={sslmode}", autocommit=True) as conn:
                conn.execute(
                    "create temp table a as select n, repeat(md5(n::text), 10) from generate_series(1, 20000) n"
                )
                conn.execute("create temp table b (like a)")
                with conn.cursor().copy("copy a to stdout") as out:
                    content = b"".join(out)
                with conn.cursor().copy("copy b from stdin") as in_:
                    in_.write(content)
                with conn.cursor().copy("copy b to stdout") as out:
                    again = b"".join(out)
                digests = [hashlib.sha256(each).hexdigest() for each in (content, again)]
                return conn.pgconn.ssl_in_use, *digests

        ssl, there, again = await asyncio.to_thread(talk)
        assert ssl is (sslmode == "require")
        assert there == again
        await eventually(lambda: bench.relay.open == 0, what="the report")
        assert all(ended.out > 6_000_000 < ended.in_ for ended in bench.closed.values())
        # with TLS each side may meet the other's farewell with a reset
        assert ssl or {ended.reason for ended in bench.closed.values()} == {"ended"}

    async def test_pgbench(self, bench: Bench, uri: str, postgres17: Build) -> None:
        """Eight clients, reading and writing: no transaction fails, and every connection is told of."""

        def pgbench(*arguments: str) -> str:
            argv = [str(postgres17.program("pgbench")), *arguments, f"{uri}?sslmode=disable"]
            env = {**os.environ, **postgres17.environment()}
            return subprocess.run(argv, env=env, check=True, capture_output=True, text=True, timeout=100).stdout

        await asyncio.to_thread(pgbench, "-i", "-q")
        said = await asyncio.to_thread(pgbench, "-c", "8", "-t", "100", "-n")
        assert "number of transactions actually processed: 800/800" in said
        assert "number of failed transactions: 0 " in said
        await eventually(lambda: bench.relay.open == 0, what="the reports")
        assert {ended.reason for ended in bench.closed.values()} == {"ended"}

    @pytest.mark.parametrize(
        ("end", "expected"),
        [
            (
                lambda admin, pid: admin.execute("select pg_terminate_backend(%s)", [pid]),
                "terminating connection due to",
            ),
            (lambda _, pid: os.kill(pid, signal.SIGKILL), "closed the connection unexpectedly|reset by peer"),
        ],
    )
    async def test_an_end_by_the_server(self, uri: str, postgres: int, end: Callable[..., Any], expected: str) -> None:
        """The client gets the server's own last words, or, if it had none, what libpq says to a lost connection."""

        def talk() -> str:
            with psycopg.connect(f"{uri}?sslmode=disable") as conn:
                with psycopg.connect(f"postgresql://cloud_admin@127.0.0.1:{postgres}/neondb", autocommit=True) as admin:
                    end(admin, conn.info.backend_pid)
                with pytest.raises(psycopg.OperationalError) as caught:
                    conn.execute("select pg_sleep(60)")
                return str(caught.value)

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGCONNECT_TIMEOUT", "20")
            assert re.search(expected, await asyncio.to_thread(talk))
        # One backend that is killed takes all others with it.
        await asyncio.to_thread(wait_for, lambda: _serves(postgres), what="the recovery")

    async def test_cancel(self, uri: str) -> None:
        """A cancel request is a connection as any other."""

        def talk() -> None:
            with psycopg.connect(f"{uri}?sslmode=disable", autocommit=True) as conn:
                pid = conn.info.backend_pid
                with psycopg.connect(uri, autocommit=True) as other:
                    conn.pgconn.send_query(b"select pg_sleep(60)")
                    while other.execute("select state from pg_stat_activity where pid = %s", [pid]).fetchone() != (
                        "active",
                    ):
                        pass
                conn.cancel_safe(timeout=20)
                result = conn.pgconn.get_result()
                assert result is not None
                assert b"canceling statement due to user request" in result.error_message
                assert conn.pgconn.get_result() is None

        await asyncio.to_thread(talk)


class TestCompiled(PostgresContract):
    @pytest.fixture
    def argv(self, compiled: Path) -> list[str]:
        return [str(compiled)]


class TestPython(PostgresContract):
    @pytest.fixture
    def argv(self, fallback: list[str]) -> list[str]:
        return fallback
