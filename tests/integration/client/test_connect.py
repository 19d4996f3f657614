"""`neon.connect`: to a real branch, tried again while its endpoint comes up; and to a server that misbehaves."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest

import lamplighter
from lamplighter import AsyncNeon, Neon
from lamplighter.client.errors import ConnectionFailed, DeadlineExceeded
from support.lamp import Lamp
from support.waiting import wait_for

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def anyio_backend() -> str:
    """Psycopg knows no other."""
    return "asyncio"


@pytest.fixture
def neon(lamp: Lamp) -> Iterator[Neon]:
    with Neon(api_key=lamp.key, base_url=lamp.url) as client:
        yield client


class TestRealBranches:
    @KINDS
    async def test_a_project_is_connected_to_right_after_it_was_asked_for(self, lamp: Lamp, kind: str) -> None:
        """Its endpoint is still coming up then; everything but the project has a default."""
        if kind == "sync":
            assert await anyio.to_thread.run_sync(self.first_rows, lamp) == ("neondb", "neondb_owner")
            return
        async with AsyncNeon(api_key=lamp.key, base_url=lamp.url) as neon:
            made = await neon.projects.create(name="at once")
            async with await neon.connect(made.project.id) as conn:
                cursor = await conn.execute("select current_database(), current_user")
                assert await cursor.fetchone() == ("neondb", "neondb_owner")

    @staticmethod
    def first_rows(lamp: Lamp) -> Any:
        with Neon(api_key=lamp.key, base_url=lamp.url) as neon:
            made = neon.projects.create(name="at once")
            with neon.connect(made.project.id) as conn:
                return conn.execute("select current_database(), current_user").fetchone()

    def test_a_suspended_endpoint_is_waited_for(self, lamp: Lamp, neon: Neon) -> None:
        """It wakes by the connection itself. One that is disabled does not, and the error says so."""
        made = lamp.project()
        project_id, endpoint_id = made["project"]["id"], made["endpoints"][0]["id"]
        lamp.call("POST", f"/projects/{project_id}/endpoints/{endpoint_id}/suspend")
        lamp.settle(project_id)
        with neon.connect(project_id, autocommit=True) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        lamp.settle(project_id)
        lamp.call("PATCH", f"/projects/{project_id}/endpoints/{endpoint_id}", {"endpoint": {"disabled": True}})
        lamp.settle(project_id)
        with pytest.raises(ConnectionFailed, match="has been disabled"):
            neon.connect(project_id, timeout=1)

    def test_a_branch_with_a_password_of_its_own_is_named(self, lamp: Lamp, neon: Neon) -> None:
        made = lamp.project()
        project_id = made["project"]["id"]
        branch_id = lamp.branch(project_id, "dev")["branch"]["id"]
        with neon.connect(project_id) as conn:
            conn.execute("create table only_main ()")
        with neon.connect(project_id, branch=branch_id, database="neondb", role="neondb_owner") as conn:
            row = conn.execute("select to_regclass('only_main')").fetchone()
            assert row == (None,)

    @KINDS
    async def test_it_goes_where_the_server_says_whatever_the_environment(
        self, lamp: Lamp, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Variables for another Postgres, such as one of the user's own, lead to no other address."""
        made = lamp.project()
        project_id = made["project"]["id"]
        monkeypatch.setenv("PGHOSTADDR", "127.0.0.9")
        monkeypatch.setenv("PGPORT", "1")

        def address() -> str:
            with Neon(api_key=lamp.key, base_url=lamp.url) as neon, neon.connect(project_id, timeout=20) as conn:
                return conn.info.hostaddr

        if kind == "sync":
            assert await anyio.to_thread.run_sync(address) == "127.0.0.1"
            return
        async with (
            AsyncNeon(api_key=lamp.key, base_url=lamp.url) as neon,
            await neon.connect(project_id, timeout=20) as conn,
        ):
            assert conn.info.hostaddr == "127.0.0.1"

    def test_a_password_that_is_wrong_is_not_tried_again(self, lamp: Lamp, neon: Neon) -> None:
        """And is in no message and no frame."""
        made = lamp.project()
        project_id = made["project"]["id"]
        password = made["roles"][0]["password"]
        with neon.connect(project_id, autocommit=True) as conn:
            conn.execute("alter role neondb_owner password 'another-one-1234'")
        with pytest.raises(ConnectionFailed, match="password authentication failed") as caught:
            neon.connect(project_id)
        assert shown(caught.value, password) == []


def fatal(code: str, message: str) -> bytes:
    """A FATAL error as Postgres sends it."""
    fields = b"".join(
        kind + text.encode() + b"\0" for kind, text in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", code), (b"M", message))
    )
    return b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0"


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


WELCOME = (
    _message(b"R", struct.pack("!I", 0))
    + b"".join(
        _message(b"S", name + b"\0" + value + b"\0")
        for name, value in ((b"server_version", b"17.0"), (b"client_encoding", b"UTF8"), (b"integer_datetimes", b"on"))
    )
    + _message(b"Z", b"I")
)
NO_ROLE = fatal("28P01", 'password authentication failed for user "me"')
STARTING = fatal("57P03", "the database system is starting up")
SILENT = b""


class Postgres:
    """A server that answers each connection with the next of its replies, and then goes on with the last."""

    def __init__(self, replies: Sequence[bytes]) -> None:
        self.replies = list(replies)
        self.seen = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def uri(self, options: str = "sslmode=disable") -> str:
        return f"postgresql://me:sekret123@127.0.0.1:{self._listener.getsockname()[1]}/db?{options}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            reply = self.replies[min(self.seen, len(self.replies) - 1)]
            self.seen += 1
            self._open.append(connection)
            if reply == SILENT:
                continue
            connection.recv(8192)
            connection.sendall(reply)
            if reply != WELCOME:
                connection.close()

    def close(self) -> None:
        # Closing alone would leave the thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._open:
            connection.close()


@pytest.fixture
def postgres() -> Iterator[Callable[..., Postgres]]:
    made: list[Postgres] = []

    def make(*replies: bytes) -> Postgres:
        made.append(Postgres(replies))
        return made[-1]

    yield make
    for server in made:
        server.close()


def neon_of(uri: str, statuses: Sequence[str]) -> httpx2.MockTransport:
    """A server of which `connect` asks the address of its Postgres and, each time anew, how its operation stands."""
    left = list(statuses)

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/connection_uri"):
            return httpx2.Response(200, json={"uri": uri})
        status = left.pop(0) if len(left) > 1 else left[0]
        return httpx2.Response(200, json={"operations": [{**OPERATION, "status": status}]})

    return httpx2.MockTransport(answer)


OPERATION = {
    "id": "a07f8772-1877-4da9-a939-3a3ae62d1d8d",
    "project_id": "p",
    "action": "start_compute",
    "failures_count": 0,
    "created_at": "2026-01-31T12:00:00Z",
    "updated_at": "2026-01-31T12:00:00Z",
    "total_duration_ms": 0,
}


async def connect(kind: str, uri: str, *, statuses: Sequence[str] = ("finished",), **options: Any) -> None:
    """Connect, and close again."""
    transport = neon_of(uri, statuses)
    options = {"database": "db", "role": "me", **options}

    def in_a_thread() -> None:
        with Neon(api_key="napi_x", transport=transport) as neon:
            neon.connect("p", **options).close()

    if kind == "sync":
        await anyio.to_thread.run_sync(in_a_thread)
    else:
        async with AsyncNeon(api_key="napi_x", transport=transport) as neon:
            await (await neon.connect("p", **options)).close()


@KINDS
class TestScripted:
    async def test_a_server_that_starts_is_tried_again(self, kind: str, postgres: Callable[..., Postgres]) -> None:
        """Whether it says so, or just hangs up."""
        server = postgres(
            STARTING, STARTING, fatal("57P01", "terminating connection due to administrator command"), WELCOME
        )
        await connect(kind, server.uri())
        assert server.seen == 4

    async def test_a_refusal_that_will_last_is_not(self, kind: str, postgres: Callable[..., Postgres]) -> None:
        server = postgres(fatal("53300", "sorry, too many clients already"), WELCOME)
        with pytest.raises(ConnectionFailed, match="sorry, too many clients already") as caught:
            await connect(kind, server.uri())
        assert server.seen == 1
        assert shown(caught.value, "sekret") == []

    async def test_a_role_that_is_not_there_yet_is_waited_for(
        self, kind: str, postgres: Callable[..., Postgres]
    ) -> None:
        """As long as operations of the project are under way."""
        server = postgres(NO_ROLE, NO_ROLE, WELCOME)
        await connect(kind, server.uri(), statuses=("scheduling", "running", "finished"))
        assert server.seen == 3

    async def test_a_change_that_ends_between_attempts_is_not_missed(
        self, kind: str, postgres: Callable[..., Postgres]
    ) -> None:
        """When none is under way any more there is one more attempt, even if the time is over."""
        server = postgres(NO_ROLE, WELCOME)
        await connect(kind, server.uri(), timeout=0)
        assert server.seen == 2

    async def test_a_password_that_stays_wrong_is_not_tried_for_long(
        self, kind: str, postgres: Callable[..., Postgres]
    ) -> None:
        server = postgres(NO_ROLE)
        with pytest.raises(ConnectionFailed, match="password authentication failed") as caught:
            await connect(kind, server.uri(), statuses=("running", "finished"))
        assert server.seen == 3
        assert shown(caught.value, "sekret") == []

    async def test_tls_that_a_server_does_not_have_is_not(self, kind: str, postgres: Callable[..., Postgres]) -> None:
        server = postgres(b"N")
        with pytest.raises(ConnectionFailed, match="does not support SSL"):
            await connect(kind, server.uri("sslmode=require"))
        assert server.seen == 1

    async def test_it_ends_when_the_time_is_over(self, kind: str, postgres: Callable[..., Postgres]) -> None:
        """With what was said last, and without the password in any frame."""
        server = postgres(STARTING)
        with pytest.raises(DeadlineExceeded, match=r"within 0.5 s.*the database system is starting up") as caught:
            await connect(kind, server.uri(), timeout=0.5)
        assert server.seen > 1
        assert shown(caught.value, "sekret") == []

    async def test_without_any_time_it_is_tried_once(self, kind: str, postgres: Callable[..., Postgres]) -> None:
        server = postgres(STARTING)
        with pytest.raises(DeadlineExceeded):
            await connect(kind, server.uri(), timeout=0)
        assert server.seen == 1
        await connect(kind, postgres(WELCOME).uri(), timeout=0)

    async def test_a_server_that_says_nothing_is_given_up(self, kind: str, postgres: Callable[..., Postgres]) -> None:
        server = postgres(SILENT)
        with pytest.raises(DeadlineExceeded, match="timeout expired"):
            await connect(kind, server.uri(), timeout=0.1)

    async def test_an_address_that_cannot_be_read_is_not_repeated(self, kind: str) -> None:
        with pytest.raises(ConnectionFailed) as caught:
            await connect(kind, "postgresql://me:sekret@[::1")
        assert shown(caught.value, "sekret") == []


async def test_it_can_be_cancelled_and_tells_nothing_then(postgres: Callable[..., Postgres]) -> None:
    """Psycopg's own frames, which hold the password, are not in the traceback."""
    server = postgres(SILENT)
    told: list[str] = []

    async def connecting() -> None:
        try:
            await connect("async", server.uri())
        except BaseException as error:
            told.extend([type(error).__name__, *shown(error, "sekret")])
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(connecting)
        await anyio.to_thread.run_sync(lambda: wait_for(lambda: server.seen, what="the attempt"))
        group.cancel_scope.cancel()
    assert told == ["CancelledError"]


def test_without_psycopg_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from lamplighter import Neon, NeonError\n"
        "try: Neon(api_key='x', base_url='http://127.0.0.1:1').connect('p')\n"
        "except NeonError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigurationError ")
    assert done.stdout.endswith("pip install 'lamplighter[psycopg]'\n")


def shown(error: BaseException, secret: str) -> list[str]:
    """Where the secret is to be seen: in frames of ours or of psycopg, in texts of this error or of its causes."""
    found: list[str] = []
    ours = (str(Path(lamplighter.__file__).parent), "psycopg")
    each: BaseException | None = error
    while each is not None:
        told = traceback.TracebackException.from_exception(each, capture_locals=True)
        frames = [frame for frame in told.stack if any(place in frame.filename for place in ours)]
        found += [f"{frame.name}: {frame.locals}" for frame in frames if secret in str(frame.locals)]
        found += [text for text in (str(each), repr(each), repr(vars(each))) if secret in text]
        each = each.__cause__ or each.__context__
    return found
