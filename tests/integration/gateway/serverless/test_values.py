"""What Postgres writes, read by our own eyes and by its."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamplighter.gateway.serverless.values import BUILT_IN, FIRST_UNKNOWN, ArrayType, converter
from support.serverless import PASSWORD, USER, Door, Postgres

Ask = Callable[..., httpx2.Response]

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@pytest.fixture(scope="module")
def connection(server: Postgres):
    with server.connect() as connection:
        yield connection


def shaped(depth: int, leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Arrays as Postgres has them: of one shape."""
    if depth == 0:
        return leaves
    return st.integers(1, 3).flatmap(lambda size: _level(depth, size, leaves))


def _level(depth: int, size: int, leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    sizes = st.tuples(*[st.integers(1, 3)] * (depth - 1))
    return sizes.flatmap(lambda inner: _filled((size, *inner), leaves))


def _filled(sizes: tuple[int, ...], leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if not sizes:
        return leaves
    return st.lists(_filled(sizes[1:], leaves), min_size=sizes[0], max_size=sizes[0])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 3).flatmap(lambda depth: shaped(depth, st.none() | texts)))
def test_arrays_as_postgres_writes_them(connection: psycopg.Connection[Any], value: Any):
    """Text arrays of any depth: what went into Postgres is what JSON says."""
    row = connection.execute("select %s::text[]::text", [value]).fetchone()
    assert json.loads(converter(1009, {})(row[0])) == value


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.none() | st.dictionaries(texts, texts | st.none() | st.booleans(), max_size=2), min_size=1, max_size=4)
)
def test_arrays_of_json_as_postgres_writes_them(connection: psycopg.Connection[Any], value: list[Any]):
    given_json = [None if one is None else json.dumps(one) for one in value]
    row = connection.execute("select %s::text[]::jsonb[]::text", [given_json]).fetchone()
    assert json.loads(converter(3807, {})(row[0])) == value


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.none() | st.floats(), min_size=1, max_size=5))
def test_arrays_of_floats_as_postgres_writes_them(connection: psycopg.Connection[Any], value: list[float | None]):
    row = connection.execute("select %s::float8[]::text", [value]).fetchone()
    got = json.loads(converter(1022, {})(row[0]))
    assert [float(one) if isinstance(one, str) else one for one in got] == pytest.approx(value, nan_ok=True)


def test_the_table_of_array_types_is_the_catalog_s(connection: psycopg.Connection[Any]):
    """Every built-in array type is in it, with its delimiter, and nothing else."""
    rows = connection.execute(
        "select t.oid::int, e.oid::int, e.typdelim from pg_type t join pg_type e on e.oid = t.typelem "
        "and e.typarray = t.oid where t.oid < %s",
        [FIRST_UNKNOWN],
    ).fetchall()
    assert {oid for oid, _, _ in rows} == set(BUILT_IN)
    for oid, element, delimiter in rows:
        assert BUILT_IN[oid].delimiter == delimiter
        assert BUILT_IN[oid].element in {0, element}
        same = converter(oid, {})("{}") == converter(99999, {99999: ArrayType(element, delimiter)})("{}")
        assert same


def test_types_that_a_user_made(door: Door, ask: Ask):
    """Arrays of enums, domains and rows are arrays; domains are what is below them."""
    with door.server.connect(user=USER, password=PASSWORD) as connection:
        connection.execute(
            "create type mood as enum ('so, so', 'good'); create domain small as int check (value < 10);"
            "create type pair as (a int, b text)"
        )
    query = """select array['good', null, 'so, so']::mood[] as moods, 3::small as small, array[1, 2]::small[] as smalls,
        row(1, 'x "y"')::pair as pair, array[row(1, 'x "y"')::pair] as pairs, array['(1,1),(0,0)'::box, null] as boxes,
        '{}'::mood[] as none, '[2:3]={7,8}'::int[] as bound"""
    said = ask({"query": query}).json()
    assert said["rows"] == [
        {
            "moods": ["good", None, "so, so"],
            "small": 3,
            "smalls": ["1", "2"],
            "pair": '(1,"x ""y""")',
            "pairs": ['(1,"x ""y""")'],
            "boxes": ["(1,1),(0,0)", None],
            "none": [],
            "bound": [7, 8],
        }
    ]
