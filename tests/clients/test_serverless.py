"""Neon's serverless driver (npm `@neondatabase/serverless`) and node-postgres, unmodified, on one Postgres."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lamplighter.compute.binaries import Build
from support.npm import bundled_node, installed
from support.serverless import PASSWORD, USER, Door, running_postgres, served

HERE = Path(__file__).parent / "serverless"
RUN_SECONDS = 90

Case = Callable[..., Any]


@pytest.fixture(scope="module")
def door(build17: Build) -> Iterator[Door]:
    with running_postgres(build17) as server, served(server) as running:
        yield running


@pytest.fixture(scope="module")
def case(door: Door) -> Case:
    """`case(name, *arguments)`: what a function of cases.mjs gives."""
    node = bundled_node()
    modules = installed(HERE, name="serverless-tests", node=node)
    login = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}"
    env = {
        "PATH": os.environ["PATH"],
        "TZ": "UTC",
        "MODULES": str(modules),
        "SQL_URL": door.url,
        "WS_HOST": f"127.0.0.1:{door.port}",
        "DATABASE_URL": door.uri(query="?sslmode=require&channel_binding=require"),
        "PG_URL": f"postgresql://{login}@127.0.0.1:{door.server.port}/neondb",
    }

    def run(name: str, *arguments: str, **more: str) -> Any:
        done = subprocess.run(
            [node.program, HERE / "cases.mjs", name, *arguments],
            env={**env, **more},
            check=False,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_tagged_queries(case: Case):
    """Values of all kinds go in and come out as they were."""
    said = case("tagged")
    (row,) = said["values"]
    assert row == {
        "word": 'it\'s "quoted" \\ ☃',
        "number": 42,
        "nothing": None,
        "yes": True,
        "list": [1, 2, 3],
        "object": {"a": [1, {"b": None}]},
        "big": "12345678901234567890",
        "moment": "1970-01-01T00:00:00.000Z",
        "bytes": {"type": "Buffer", "data": [0, 1, 255]},
    }
    assert said["composed"] == []
    assert said["query"] == [{"x": 1.5, "nan": None}]
    assert said["full"]["rows"] == [[1, 2]]
    assert [said["full"][name] for name in ("command", "rowCount", "rowAsArray")] == ["SELECT", 1, True]
    assert said["empty"] == []


def test_types_are_those_of_node_postgres(case: Case):
    """Rows and columns' facts over HTTP are what node-postgres gets from Postgres itself."""
    said = case("types")
    assert said["over"]["rows"] == said["direct"]["rows"]
    assert said["over"]["fields"] == said["direct"]["fields"]


def test_transactions(case: Case):
    """A batch runs at the level that is asked for, all of it or nothing."""
    said = case("transaction")
    assert said["levels"] == {
        "ReadUncommitted": "read uncommitted",
        "ReadCommitted": "read committed",
        "RepeatableRead": "repeatable read",
        "Serializable": "serializable",
    }
    assert said["settings"] == [[{"ro": "on"}], [{"d": "on"}]]
    assert said["wrote"] == [[], [{"count": "2"}]]
    assert (said["rolledBack"]["code"], said["rolledBack"]["constraint"]) == ("23505", "moves_pkey")
    assert said["readOnly"]["code"] == "25006"
    assert said["arrays"][0]["rows"] == [[1], [2]]
    assert said["left"] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("pipelined", ["password", "false"])
def test_pool_over_websocket(case: Case, pipelined: str):
    """Sessions are whole: transactions, prepared statements, notices, long values; pipelined or not."""
    said = case("pool", pipelined)
    assert said["first"] == [{"n": 42, "who": USER}]
    assert said["many"] == list(range(12))
    assert said["inside"] == [{"sum": 3}]
    assert said["broken"]["code"] == "42P01"
    assert said["after"] == [{"gone": None}]
    assert said["notices"] == ["heard"]
    assert said["several"] == [[{"a": 1}], [{"b": 2}]]
    assert said["big"] == [5_000_000, 3_000_000]


def test_pool_over_http(case: Case):
    """`poolQueryViaFetch`: one query of a pool needs no session, and opens none."""
    assert case("viaFetch") == {"n": 7, "isDate": True, "command": "SELECT"}


def test_notifications_over_websocket(case: Case):
    """What a session listens to, it hears, be it sent over HTTP."""
    assert case("listen") == ["ears", "from http"]


@pytest.mark.parametrize("pipelined", ["password", "false"])
def test_refused_logins(case: Case, pipelined: str):
    """The driver gets an error that says what was wrong, by either way."""
    said = case("wrong", pipelined)
    refused = f'password authentication failed for user "{USER}"'
    for way in ("http", "ws"):
        assert (said["password"][way]["message"], said["password"][way]["code"]) == (refused, "28P01")
        assert said["database"][way]["message"] == 'database "missing" does not exist'
        assert said["database"][way]["code"] == "3D000"
        assert said["host"][way]["message"].startswith("The requested endpoint could not be found")
    assert "JWT" in said["token"]["message"]
    assert "not available" in said["token"]["message"]


#: Each fails in another way, or has other fields set.
FAILING: list[tuple[str, list[str]]] = [
    ("select 1/0", []),
    ("select * from nowhere", []),
    ("select nothing from pg_class", []),
    ("selec 1", []),
    ("select nofunc($1)", ["1"]),
    ("select 'x'::int", []),
    ("select $1::int", ["ten"]),
    ("insert into parents values (1, 'again')", []),
    ("insert into parents values (2, null)", []),
    ("insert into children values (1, 99)", []),
    ("delete from parents where id = 1", []),
    ("insert into parents values (-1, 'x')", []),
    ("insert into parents values (3, repeat('x', 50))", []),
    ("insert into ranged values ('[1,5)'), ('[3,9)')", []),
    ("select cast('abc' as positive)", []),
    ("select (-1)::positive", []),
    ("select raise_all()", []),
    ("select deep()", []),
    ("create table parents (id int)", []),
    ("select $1::jsonb", ["{bad"]),
    ("drop table parents", []),
    ("select pg_catalog.pg_read_file('/etc/passwd')", []),
    ("select 1; select 2", ["unused"]),
    ("set transaction isolation level nonsense", []),
    ("select generate_series(1, 100000000) limit -1", []),
]

_SETUP = """
create table parents (id int primary key check (id > 0), name varchar(20) not null);
create table children (id int primary key, parent int references parents);
insert into parents values (1, 'one'); insert into children values (7, 1);
create table ranged (r int4range, exclude using gist (r with &&));
create domain positive as int constraint above_zero check (value > 0);
create function raise_all() returns int language plpgsql as $$ begin
  raise exception 'own words' using errcode = 'LL001', detail = 'the detail', hint = 'the hint', column = 'c',
    constraint = 'k', datatype = 'd', table = 't', schema = 's'; end $$;
create function deep() returns int language plpgsql as $$ begin
  execute 'select * from missing_inside'; return 1; end $$;
"""


def test_errors_are_those_of_node_postgres(case: Case, door: Door):
    """Every field of an error is what node-postgres has of it, over HTTP and over WebSocket."""
    with door.server.connect(user=USER, password=PASSWORD) as connection:
        connection.execute(_SETUP)
    said = case("errors", STATEMENTS=json.dumps(FAILING))
    assert len(said) == len(FAILING)
    for one in said:
        direct = one["direct"]
        assert "succeeded" not in direct, one["query"]
        assert {**one["ws"], "name": None} == {**direct, "name": None}, one["query"]
        assert {**one["http"], "name": None} == {**direct, "name": None}, one["query"]
        assert one["http"]["name"] == "NeonDbError"
