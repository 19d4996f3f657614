"""The header `Neon-Connection-String`."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.serverless.connection_string import Connection, host_and_port, options_for_postgres, parse
from lamplighter.gateway.serverless.errors import BadConnectionString

#: What may be in a name: Postgres takes all but the zero byte; half of a pair is no character.
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(names, names, names, st.none() | st.integers(1, 65535))
def test_names_of_any_characters_come_through(user: str, password: str, database: str, port: int | None):
    where = "ep-a-1.example.org" + (f":{port}" if port else "")
    parts = [quote(part, safe="") for part in (user, password, database)]
    found = parse(f"postgresql://{parts[0]}:{parts[1]}@{where}/{parts[2]}")
    assert found == Connection("ep-a-1.example.org", port, user, password, database)


def test_what_neon_sends():
    text = (
        "postgresql://u:p@ep-a-1-pooler.us-east-2.aws.neon.tech/db?sslmode=require&channel_binding=require"
        "&options=endpoint%3Dep-a-1%20-c%20search_path%3Dmine&application_name=pkg:npm/%40neondatabase/serverless@1.2.0"
    )
    found = parse(text)
    assert found.host == "ep-a-1-pooler.us-east-2.aws.neon.tech"
    assert found.application_name == "pkg:npm/@neondatabase/serverless@1.2.0"
    assert found.options == "-c search_path=mine"


def test_a_password_shows_in_no_repr():
    assert "sesame" not in repr(parse("postgres://u:sesame@h/d"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mysql://u:p@h/d", "incorrect scheme"),
        ("u:p@h/d", "incorrect scheme"),
        ("postgres://u:p@h", "missing database name"),
        ("postgres://u:p@h/", "missing database name"),
        ("postgres://:p@h/d", "missing username"),
        ("postgres://h/d", "missing username"),
        ("postgres://u@h/d", "required password"),
        ("postgres://u:@h/d", "required password"),
        ("postgres://u:p@/d", "missing hostname"),
        ("postgres://u:p@h:0/d", "port"),
        ("postgres://u:p@h:99999/d", "invalid connection string"),
        ("postgres://u:p@h:x/d", "invalid connection string"),
        ("postgres://u:p@[::1/d", "invalid connection string"),
        ("postgres://u%00:p@h/d", "invalid username"),
        ("postgres://u:p%00@h/d", "invalid password"),
        ("postgres://u:p@h/d%ff", "invalid database name"),
        ("postgres://u:p@h/d?options=%00", "zero byte"),
        ("postgres://u:p@h/d?options=endpoint%3Da%20endpoint%3Db", "more than one endpoint"),
        ("postgres://ü:p@h/d", "invalid header"),
        ("postgres://u:p@h/" + "d" * 9000, "invalid header"),
        ("postgres://u:p@h/" + "d" * 2000, "invalid database name"),
    ],
)
def test_what_is_wrong_is_said(text: str, why: str):
    with pytest.raises(BadConnectionString, match=why):
        parse(text)


@given(st.text(max_size=100))
def test_random_text_raises_nothing_else(text: str):
    for read in (parse, host_and_port):
        with suppress(BadConnectionString):
            read(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:5433", ("127.0.0.1", 5433)),
        ("ep-a-1.example.org", ("ep-a-1.example.org", None)),
        ("[::1]:5433", ("::1", 5433)),
        ("Localhost:1", ("localhost", 1)),
    ],
)
def test_hosts_and_ports(text: str, found: tuple[str, int | None]):
    assert host_and_port(text) == found


@pytest.mark.parametrize("text", ["", ":1", "u@h", "h/x", "h?x", "h#x", "h:99999", "ü"])
def test_what_is_no_host_is_refused(text: str):
    with pytest.raises(BadConnectionString):
        host_and_port(text)


def test_options_of_neon_are_not_for_postgres():
    assert options_for_postgres("endpoint=ep-x neon_read:only -c a=b") == "-c a=b"
    assert options_for_postgres("-c  work_mem=1MB") == "-c  work_mem=1MB"
    assert options_for_postgres("") == ""
