"""SQL over HTTP as it is on the wire: statuses, headers, bodies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx2
import pytest

from support.serverless import ENDPOINT, USER, Door

Ask = Callable[..., httpx2.Response]

RAW = {"neon_raw_text_output": "true", "neon_array_mode": "true"}


def test_one_statement(ask: Ask):
    """As the driver asks for it: raw text, arrays, and all that is known of the columns."""
    answer = ask({"query": "select oid, $1::text as word from pg_class where oid = 1259", "params": ["x"]}, **RAW)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert said == {
        "command": "SELECT",
        "rowCount": 1,
        "rows": [["1259", "x"]],
        "fields": [
            {
                "name": "oid",
                "dataTypeID": 26,
                "tableID": 1259,
                "columnID": 1,
                "dataTypeSize": 4,
                "dataTypeModifier": -1,
                "format": "text",
            },
            {
                "name": "word",
                "dataTypeID": 25,
                "tableID": 0,
                "columnID": 0,
                "dataTypeSize": -1,
                "dataTypeModifier": -1,
                "format": "text",
            },
        ],
        "rowAsArray": True,
    }


@pytest.mark.parametrize(
    ("query", "command", "count", "rows"),
    [
        ("create temp table x (n int)", "CREATE", None, []),
        ("select 1 where false", "SELECT", 0, []),
        ("", "", None, []),
        ("-- nothing", "", None, []),
        ("listen ears", "LISTEN", None, []),
        ("show server_encoding", "SHOW", None, [{"server_encoding": "UTF8"}]),
        ("values (1), (2)", "SELECT", 2, [{"column1": 1}, {"column1": 2}]),
        ("select from generate_series(1, 3)", "SELECT", 3, [{}, {}, {}]),
    ],
)
def test_commands_and_counts(ask: Ask, query: str, command: str, count: int | None, rows: list[Any]):
    said = ask({"query": query}).json()
    assert (said["command"], said["rowCount"], said["rows"]) == (command, count, rows)


def test_more_rows_than_libpq_hands_over_at_once(ask: Ask):
    said = ask({"query": "select n, repeat('x', 100) from generate_series(1, 5000) n"}, **RAW).json()
    assert said["rowCount"] == 5000
    assert [row[0] for row in said["rows"]] == [str(n) for n in range(1, 5001)]


def test_a_batch_and_its_headers(ask: Ask):
    """`arrayMode` of one statement goes before the header's; what was asked for is said again."""
    body = {"queries": [{"query": "select 1 as a", "arrayMode": False}, {"query": "select $1::int", "params": [2]}]}
    answer = ask(
        body,
        neon_array_mode="true",
        neon_batch_isolation_level="Serializable",
        neon_batch_read_only="true",
        neon_batch_deferrable="true",
    )
    first, second = answer.json()["results"]
    assert (first["rows"], first["rowAsArray"]) == ([{"a": 1}], False)
    assert (second["rows"], second["rowAsArray"]) == ([[2]], True)
    assert answer.headers["neon-batch-isolation-level"] == "Serializable"
    assert answer.headers["neon-batch-read-only"] == "true"
    assert answer.headers["neon-batch-deferrable"] == "true"


def test_a_batch_that_fails_at_its_end_is_rolled_back(ask: Ask, door: Door):
    """Also when only the commit fails."""
    ask({"query": "create table late (n int unique deferrable initially deferred)"})
    body = {"queries": [{"query": "insert into late values (1), (1)"}, {"query": "select 1"}]}
    answer = ask(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "23505")
    assert door.server.run("select count(*) from late") == [(0,)]
    assert ask({"queries": []}).json() == {"results": []}


def test_every_answer_can_be_read_by_a_page_of_another_origin(ask: Ask, http: httpx2.Client, door: Door):
    for answer in (
        ask({"query": "select 1"}),
        ask({"query": "selec"}),
        ask({}),
        http.get(door.url),
        http.post(door.url.replace("/sql", "/other")),
        http.options(door.url),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        UUID(answer.headers["neon-request-id"])


def test_preflight(http: httpx2.Client, door: Door):
    answer = http.options(door.url, headers={"origin": "https://example.org", "access-control-request-method": "POST"})
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["allow"] == "OPTIONS, POST"
    assert answer.headers["access-control-max-age"] == "86400"
    allowed = answer.headers["access-control-allow-headers"].lower()
    for name in ("neon-connection-string", "neon-raw-text-output", "neon-array-mode", "authorization"):
        assert name in allowed


def test_other_paths_and_methods(http: httpx2.Client, door: Door):
    for answer in (http.get(door.url), http.put(door.url), http.post(door.url + "/more"), http.get(door.url[:-4])):
        assert (answer.status_code, answer.json()) == (400, "query is not supported")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "could not parse the HTTP request body"),
        (b"{", "could not parse the HTTP request body"),
        (b'{"query": 1}', "`query` must be a string"),
        (b'{"query": "select \\u0000"}', "zero byte"),
        (json.dumps({"query": "select 1", "params": ["1"] * 65536}).encode(), "parameters"),
    ],
)
def test_bodies_that_are_none(door: Door, http: httpx2.Client, body: bytes, why: str):
    answer = http.post(door.url, content=body, headers={"neon-connection-string": door.uri()})
    assert answer.status_code == 400
    assert why in answer.json()["message"]
    assert answer.json()["code"] is None


def test_headers_that_are_wrong(door: Door, http: httpx2.Client, ask: Ask):
    missing = http.post(door.url, json={"query": "select 1"})
    assert (missing.status_code, missing.json()["message"]) == (400, "invalid header: neon-connection-string")
    scheme = ask({"query": "select 1"}, uri="mysql://u:p@h/d")
    assert (scheme.status_code, scheme.json()["message"]) == (400, "incorrect scheme")
    level = ask({"queries": []}, neon_batch_isolation_level="Chaos")
    assert (level.status_code, level.json()["message"]) == (400, "invalid isolation level")
    token = ask({"query": "select 1"}, authorization="Bearer ey.ey.ey")
    assert token.status_code == 400
    assert "not available" in token.json()["message"]


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1:5432", "localhost:22", "169.254.169.254"])
def test_no_other_host_is_connected_to(door: Door, ask: Ask, host: str):
    """A caller cannot make us talk to what is no endpoint."""
    answer = ask({"query": "select 1"}, uri=f"postgresql://u:p@{host}/d")
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("The requested endpoint could not be found")
    name, _, port = host.partition(":")
    assert door.resolved[-1] == (name, int(port) if port else None)


def test_what_a_session_begins_with(door: Door, ask: Ask):
    """Name and options of the connection string hold; those that are for Neon's proxy do no harm."""
    query = f"?options=endpoint%3D{ENDPOINT}%20-c%20work_mem%3D7MB&application_name=mine&sslmode=require"
    said = ask(
        {"query": "select current_setting('work_mem') w, current_setting('application_name') a"}, door.uri(query=query)
    )
    assert said.json()["rows"] == [{"w": "7MB", "a": "mine"}]


def test_refused_logins_have_their_fields(door: Door, ask: Ask):
    wrong = ask({"query": "select 1"}, door.uri(password="no"))
    assert (wrong.status_code, wrong.json()["code"], wrong.json()["severity"]) == (400, "28P01", "FATAL")
    assert wrong.json()["message"] == f'password authentication failed for user "{USER}"'
    missing = ask({"query": "select 1"}, door.uri(database="missing"))
    assert (missing.status_code, missing.json()["code"]) == (400, "3D000")
    options = ask({"query": "select 1"}, door.uri(query="?options=-c%20nonsense%3D1"))
    assert options.status_code == 400
    assert options.json()["message"] == 'unrecognized configuration parameter "nonsense"'


def test_copy_is_refused_and_the_next_is_served(ask: Ask):
    """As Neon: no message of COPY fits into HTTP."""
    for query in ("copy pg_class to stdout", "create table c (n int)", "copy c from stdin"):
        answer = ask({"query": query})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("unexpected message from server")
    assert ask({"query": "select 1 as a"}).json()["rows"] == [{"a": 1}]


def test_a_statement_that_ends_its_own_connection(ask: Ask):
    answer = ask({"query": "select pg_terminate_backend(pg_backend_pid())"})
    assert (answer.status_code, answer.json()["code"]) == (400, "57P01")
    assert answer.json()["message"] == "terminating connection due to administrator command"
    assert ask({"query": "select 1 as a"}).json()["rows"] == [{"a": 1}]


def test_a_text_that_is_no_utf8(ask: Ask):
    """A caller that asked for another encoding gets no wrong letters."""
    answer = ask({"queries": [{"query": "set client_encoding = 'LATIN1'"}, {"query": "select chr(233) as c"}]})
    assert (answer.status_code, answer.json()["message"]) == (500, "could not parse postgres response")
    assert ask({"query": "select chr(233) as c"}).json()["rows"] == [{"c": "é"}]
