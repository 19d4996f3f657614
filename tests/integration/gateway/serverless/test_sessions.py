"""Connections that are kept: nothing of one caller is met by the next, and they do not stay long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import anyio
import httpx2
import pytest

from lamplighter.gateway.serverless import Limits, Warmth
from support.serverless import PASSWORD, USER, Door, Postgres, served
from support.waiting import wait_for

Ask = Callable[..., httpx2.Response]


class Caller:
    """One who asks at a door. All share a client of HTTP, which the tests of this file have open."""

    client: ClassVar[httpx2.Client]

    def __init__(self, door: Door, **uri: str) -> None:
        self.door = door
        self._headers = {"neon-connection-string": door.uri(**uri)}

    def answer(self, query: str, *params: Any) -> httpx2.Response:
        return self.client.post(self.door.url, json={"query": query, "params": params}, headers=self._headers)

    def value(self, query: str, *params: Any) -> Any:
        """The first column of the first row; the connection is back at its place when this returns."""
        answer = self.answer(query, *params)
        assert answer.status_code == 200, answer.text
        wait_for(lambda: backends(self.door.server, active=True) == 0, what="the end of all statements")
        return next(iter(answer.json()["rows"][0].values()))


@pytest.fixture(autouse=True, scope="module")
def client() -> Iterator[None]:
    with httpx2.Client(timeout=60) as Caller.client:
        yield


def backends(server: Postgres, *, active: bool = False) -> int:
    """How many connections this folder's role has; `active`: those that do something."""
    condition = "and (state <> 'idle' or query <> 'DISCARD ALL')" if active else ""
    ((count,),) = server.run(f"select count(*) from pg_stat_activity where usename = '{USER}' {condition}")
    return int(count)


@pytest.fixture
def own(server: Postgres) -> Iterator[Door]:
    """A door of this test alone, so that its connections can be counted."""
    wait_for(lambda: backends(server) == 0, seconds=60, what="the end of other tests' connections")
    with served(server) as running:
        yield running
    wait_for(lambda: backends(server) == 0, what="the end of all connections")


@pytest.fixture
def caller(own: Door) -> Caller:
    return Caller(own)


def test_a_connection_is_used_again(caller: Caller):
    first = caller.value("select pg_backend_pid()")
    assert [caller.value("select pg_backend_pid()") for _ in range(5)] == [first] * 5
    assert backends(caller.door.server) == 1


@pytest.mark.parametrize(
    ("leave", "look", "clean"),
    [
        ("set search_path = evil", "show search_path", '"$user", public'),
        ("set role pg_monitor", "select current_user::text", USER),
        ("create temp table secrets (x int)", "select to_regclass('secrets')::text", None),
        ("prepare stolen as select 1", "select count(*)::int from pg_prepared_statements", 0),
        ("select pg_advisory_lock(7)", "select count(*)::int from pg_locks where locktype = 'advisory'", 0),
        ("listen ears", "select count(*)::int from pg_listening_channels()", 0),
        ("declare held cursor with hold for select 1", "select count(*)::int from pg_cursors where name = 'held'", 0),
        ("select set_config('my.secret', 'x', false)", "select nullif(current_setting('my.secret', true), '')", None),
        ("set client_encoding = 'LATIN1'", "show client_encoding", "UTF8"),
        ("set statement_timeout = 1", "show statement_timeout", "0"),
    ],
)
def test_nothing_is_left_of_a_session(caller: Caller, leave: str, look: str, clean: Any):
    """The next request of the same caller, on the same connection, finds it as new."""
    caller.door.server.run(f'grant pg_monitor to "{USER}"')
    first = caller.value("select pg_backend_pid()")
    assert caller.answer(leave).status_code == 200
    assert caller.value(look) == clean
    assert caller.value("select pg_backend_pid()") == first


@pytest.mark.parametrize("statement", ["begin", "select 1/0 from (select 1) x; ", "begin isolation level serializable"])
def test_a_transaction_that_is_left_open_is_nobody_s(caller: Caller, statement: str):
    """It is rolled back with its connection; the next request is in none."""
    caller.answer(statement)
    caller.answer("create table orphan (x int)")
    assert caller.value("select pg_current_xact_id_if_assigned()::text") is None
    assert caller.value("select to_regclass('orphan')::text") == "orphan"
    caller.answer("drop table orphan")


def test_a_wrong_password_meets_no_open_connection(own: Door, caller: Caller):
    """However warm it is there."""
    caller.value("select 1")
    assert own.serverless.warm.kept == 1
    refused = Caller(own, password="wrong").answer("select 1")
    assert (refused.status_code, refused.json()["code"]) == (400, "28P01")


def test_callers_that_differ_share_no_connection(own: Door, caller: Caller):
    """Another database, role, name or option is another session."""
    own.server.run("create role other login password 'other'", "create database second")
    others = [
        Caller(own, user="other", password="other"),
        Caller(own, database="second"),
        Caller(own, query="?application_name=x"),
        Caller(own, query="?options=-c%20work_mem%3D1MB"),
    ]
    pids = {one.value("select pg_backend_pid()") for one in (caller, *others)}
    assert len(pids) == 5
    own.server.run("drop database second with (force)", "drop role other")


def test_connections_are_kept_no_longer_than_they_may(server: Postgres):
    """So that they do not keep an endpoint awake."""
    with served(server, warmth=Warmth(keep_seconds=0.2)) as door:
        Caller(door).value("select 1")
        wait_for(lambda: backends(server) == 0, what="the end of the connection")
        assert door.serverless.warm.kept == 0


def test_a_connection_in_use_all_the_time_is_not_kept_for_ever(server: Postgres):
    """A password that was changed must not live on in it."""
    with served(server, warmth=Warmth(life_seconds=0.5)) as door:
        caller = Caller(door)
        first = caller.value("select pg_backend_pid()")
        wait_for(lambda: caller.value("select pg_backend_pid()") != first, what="another connection")


def test_a_connection_that_the_server_ends_is_not_used(caller: Caller):
    """A caller does not notice that its endpoint was restarted meanwhile."""
    first = caller.value("select pg_backend_pid()")
    caller.door.server.run(f"select pg_terminate_backend({first})")
    wait_for(lambda: caller.door.serverless.warm.kept == 0, what="the end of the connection")
    assert caller.value("select pg_backend_pid()") != first


def test_few_are_kept_of_many(own: Door):
    """A hundred requests at once are all served, by as many connections as one endpoint may have."""
    caller = Caller(own)
    most = 0

    def ask(number: int) -> Any:
        return caller.answer("select $1::int as n, pg_sleep(0.02)", number).json()["rows"][0]["n"]

    def count(over: threading.Event) -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, backends(own.server))

    over = threading.Event()
    counting = threading.Thread(target=count, args=(over,))
    counting.start()
    with ThreadPoolExecutor(100) as pool:
        said = list(pool.map(ask, range(100)))
    over.set()
    counting.join()
    assert said == list(range(100))
    assert 1 < most <= Warmth().at_once
    wait_for(lambda: backends(own.server) <= Warmth().kept, what="the end of most")


def test_one_who_calls_under_many_names_keeps_no_more(server: Postgres):
    """Connections that wait take places that Postgres has for others."""
    with served(server, warmth=Warmth(kept_at_once=3)) as door:
        for number in range(8):
            assert Caller(door, query=f"?application_name=n{number}").answer("select 1").status_code == 200
        wait_for(lambda: backends(server) <= 3, what="the end of some")
        assert Caller(door, query="?application_name=n0").value("select 1") == 1
        assert door.serverless.warm.kept == 3


def test_who_waits_too_long_is_told(server: Postgres):
    """All places are taken by statements that do not end."""
    with served(server, warmth=Warmth(at_once=1, wait_seconds=0.2)) as door, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(Caller(door).answer, "select pg_sleep(30)")
        wait_for(lambda: backends(server, active=True) == 1, what="the slow statement")
        refused = Caller(door).answer("select 1")
        assert refused.status_code == 503
        server.run(f"select pg_cancel_backend(pid) from pg_stat_activity where usename = '{USER}'")
        assert slow.result().json()["code"] == "57014"


async def test_a_caller_that_leaves_takes_its_statement_with_it(own: Door):
    """It is cancelled, not run to its end."""
    body = {"query": "select pg_sleep(100)"}
    async with httpx2.AsyncClient() as client, anyio.create_task_group() as group:

        async def ask() -> None:
            await client.post(own.url, json=body, headers={"neon-connection-string": own.uri()}, timeout=60)

        group.start_soon(ask)
        await anyio.to_thread.run_sync(
            lambda: wait_for(lambda: backends(own.server, active=True) == 1, what="the statement")
        )
        group.cancel_scope.cancel()
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(
            lambda: wait_for(lambda: backends(own.server) == 0, seconds=10, what="the end of the statement")
        )


def test_a_batch_that_is_left_is_rolled_back(own: Door):
    caller = Caller(own)
    caller.answer("create table half (n int)")
    body = {"queries": [{"query": "insert into half values (1)"}, {"query": "select pg_sleep(100)"}]}
    with pytest.raises(httpx2.ReadTimeout), httpx2.Client(timeout=0.5) as client:
        client.post(own.url, json=body, headers={"neon-connection-string": own.uri()})
    wait_for(lambda: backends(own.server, active=True) == 0, what="the end of the batch")
    assert caller.value("select count(*)::int from half") == 0
    caller.answer("drop table half")


@pytest.fixture(scope="module")
def small(server: Postgres) -> Iterator[Door]:
    """A door where little is much."""
    with served(server, limits=Limits(request=100_000, response=1_000_000, together=2_500_000)) as running:
        yield running


class TestSizes:
    """Memory is bounded, and who asks for more is told."""

    def test_a_body_that_is_too_long(self, small: Door):
        refused = Caller(small).answer("select $1", "x" * 100_000)
        assert refused.status_code == 413
        assert refused.json()["message"] == "request is too large (max is 100000 bytes)"

    def test_a_body_that_does_not_tell_its_length(self, small: Door):
        def pieces() -> Iterator[bytes]:
            for _ in range(1000):
                yield b" " * 1000

        with httpx2.Client() as client:
            headers = {"neon-connection-string": small.uri()}
            assert client.post(small.url, content=pieces(), headers=headers).status_code == 413

    @pytest.mark.parametrize(
        "query",
        [
            "select repeat('x', 1000) from generate_series(1, 1000)",
            "select repeat('x', 1000), generate_series(1, 100000000)",
            "select repeat('x', 1000001)",
            "select repeat('x', 60000000)",
            "select null::int, generate_series(1, 100000000)",
        ],
    )
    def test_an_answer_that_is_too_long(self, small: Door, query: str):
        """Rows without end, or one row that has no end; the statement is cancelled."""
        refused = Caller(small).answer(query)
        assert refused.status_code == 507
        assert refused.json()["message"] == "response is too large (max is 1000000 bytes)"
        wait_for(lambda: backends(small.server, active=True) == 0, what="the end of the statement")

    def test_a_batch_counts_as_one(self, small: Door):
        query = {"query": "select repeat('x', 1000) from generate_series(1, 600)"}
        headers = {"neon-connection-string": small.uri()}
        with httpx2.Client() as client:
            assert client.post(small.url, json={"queries": [query]}, headers=headers).status_code == 200
            assert client.post(small.url, json={"queries": [query] * 2}, headers=headers).status_code == 507

    def test_the_longest_that_fits(self, small: Door):
        answer = Caller(small).answer("select repeat('\x01', 999996) as x")
        assert len(answer.json()["rows"][0]["x"]) == 999_996

    def test_all_together(self, small: Door):
        """Several long answers at once share what there is; afterwards all of it is there again."""
        query = "select repeat('x', 900000), pg_sleep(0.3)"
        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(pool.map(lambda _: Caller(small).answer(query).status_code, range(8)))
        assert set(statuses) <= {200, 503}
        assert Caller(small).answer(query).status_code == 200


def test_an_address_that_may_not_come_in(server: Postgres):
    """`allowed_ips` hold for the caller's address, not for ours."""
    with served(server, admits=lambda client: client == "10.9.8.7") as door:
        refused = Caller(door).answer("select 1")
        assert refused.status_code == 400
        assert refused.json()["message"].startswith("This IP address 127.0.0.1 is not allowed to connect")


def test_by_a_unix_socket(server: Postgres):
    """A target may be a directory, where the door can tell us from the callers."""
    with served(server, address=str(server.log.parent)) as door:
        assert Caller(door).value("select inet_client_addr()::text") is None


def test_an_endpoint_that_is_not_there(server: Postgres):
    with served(server, port=1) as door:
        answer = Caller(door).answer("select 1")
        assert answer.status_code == 500
        assert answer.json()["message"] == "the endpoint does not answer: Connection refused"


def test_a_changed_password_ends_what_is_kept(server: Postgres):
    """After the life of a connection at the latest."""
    server.run("create role fickle login password 'old'")
    with served(server, warmth=Warmth(life_seconds=0.3)) as door:
        caller = Caller(door, user="fickle", password="old")
        assert caller.answer("select 1").status_code == 200
        server.run("alter role fickle password 'new'")
        wait_for(lambda: caller.answer("select 1").status_code == 400, what="the end of the old password")
        assert Caller(door, user="fickle", password="new").answer("select 1").status_code == 200
        assert Caller(door, user=USER, password=PASSWORD).answer("select 1").status_code == 200
    server.run("drop role fickle")
