"""Bodies and headers of requests."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.serverless.errors import BadRequest
from lamplighter.gateway.serverless.statements import Manner, Statement, Work, json_text, manner, read_body


def one(parameter: Any) -> str | None:
    return read_body(json.dumps({"query": "q", "params": [parameter]}).encode()).statements[0].parameters[0]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, None),
        (True, "true"),
        (7, "7"),
        ("x", "x"),
        ({"a": [1, None, True, "é"]}, '{"a":[1,null,true,"é"]}'),
        ([1, 'a"b\\', None, True, {"k": 1.5}], '{1,"a\\"b\\\\",NULL,true,"{\\"k\\":1.5}"}'),
        ([[1, 2], []], "{{1,2},{}}"),
        (["NULL", ""], '{"NULL",""}'),
    ],
)
def test_parameters_become_text(given: Any, text: str | None):
    """As Neon does: arrays become Postgres arrays, objects JSON."""
    assert one(given) == text


def test_digits_of_numbers_are_kept():
    body = b'{"query": "q", "params": [1.10, 123456789012345678901234567890, 1e400, {"n": 1.10}]}'
    assert read_body(body).statements[0].parameters == ("1.10", "123456789012345678901234567890", "1e400", '{"n":1.10}')


def test_single_and_batch():
    assert read_body(b'{"query": "a"}') == Work((Statement("a"),), batch=False)
    body = b'{"queries": [{"query": "a", "params": ["1"]}, {"query": "b", "arrayMode": true}]}'
    assert read_body(body) == Work((Statement("a", ("1",)), Statement("b", (), array_mode=True)), batch=True)
    assert read_body(b'{"queries": []}') == Work((), batch=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"query": 1}',
        b'{"query": null}',
        b'{"query": "a", "params": {}}',
        b'{"query": "a", "params": [NaN]}',
        b'{"query": "a\\u0000b"}',
        b'{"query": "a", "params": ["\\u0000"]}',
        b'{"query": "a", "params": [["x", {"\\u0000": 1}], "\\ud800"]}',
        b'{"query": "a", "arrayMode": 1}',
        b'{"queries": {}}',
        b'{"queries": ["a"]}',
        b"\xff\xfe",
        b'{"query": "a", "params": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b'{"query": "a", "params": [' + b",".join([b"1"] * 65536) + b"]}",
    ],
)
def test_what_is_no_request_is_refused(body: bytes):
    with pytest.raises(BadRequest, match="could not parse the HTTP request body"):
        read_body(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=15,
)


@given(values)
def test_json_is_written_as_it_was_read(value: Any):
    assert json.loads(json_text(value)) == value


@given(st.binary(max_size=200))
def test_random_bodies_raise_nothing_else(body: bytes):
    with suppress(BadRequest):
        read_body(body)


def test_the_manner_of_a_batch():
    assert manner({}) == Manner()
    assert Manner().begin == "START TRANSACTION"
    headers = {
        "neon-batch-isolation-level": "RepeatableRead",
        "neon-batch-read-only": "true",
        "neon-batch-deferrable": "false",
        "neon-raw-text-output": "true",
        "neon-array-mode": "yes",
    }
    how = manner(headers)
    assert how == Manner(raw_text=True, isolation="RepeatableRead", read_only=True)
    assert how.begin == "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    assert how.echoed == {"neon-batch-read-only": "true", "neon-batch-isolation-level": "RepeatableRead"}


def test_an_unknown_isolation_level_is_refused():
    with pytest.raises(BadRequest, match="invalid isolation level"):
        manner({"neon-batch-isolation-level": "serializable; drop table x"})
