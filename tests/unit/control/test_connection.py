"""Connection strings: what clients read out of them is what was put in."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from lamplighter.control.features.endpoints.connection import render_uri

HOST = "127.0.0.1:20000"

#: Wider than `check_role_name` allows; NUL cannot be in any string that libpq reads.
words = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=30),
    st.text("aé/@:?#%&=+ [](),'\"\\", min_size=1, max_size=10),
)


@given(role=words, password=words, database=words)
def test_libpq_reads_the_parts_again(role, password, database):
    uri = render_uri(role=role, password=password, host=HOST, database=database)
    read = conninfo_to_dict(uri)
    assert read["user"] == role
    assert read["password"] == password
    assert read["dbname"] == database
    assert (read["host"], read["port"]) == ("127.0.0.1", "20000")


@given(role=words, password=words, database=words)
def test_a_parser_of_urls_reads_the_same_parts(role, password, database):
    parts = urlsplit(render_uri(role=role, password=password, host=HOST, database=database))
    assert (parts.scheme, parts.hostname, parts.port, parts.fragment) == ("postgresql", "127.0.0.1", 20000, "")
    assert unquote(parts.username or "") == role
    assert unquote(parts.password or "") == password
    assert unquote(parts.path) == "/" + database
    assert parts.path.count("/") == 1
    assert parse_qs(parts.query) == {"sslmode": ["require"], "channel_binding": ["require"]}


def test_a_string_is_plain_where_nothing_has_to_be_quoted():
    uri = render_uri(role="app_owner", password="npg_0aA", host=HOST, database="neon-db")
    assert uri == f"postgresql://app_owner:npg_0aA@{HOST}/neon-db?sslmode=require&channel_binding=require"


@pytest.mark.parametrize("database", ["sslmode=disable", "a?sslmode=disable", "a&channel_binding=disable"])
def test_no_name_talks_a_client_out_of_tls(database):
    read = conninfo_to_dict(render_uri(role="a", password="b", host=HOST, database=database))
    assert (read["sslmode"], read["channel_binding"]) == ("require", "require")
    assert read["dbname"] == database
