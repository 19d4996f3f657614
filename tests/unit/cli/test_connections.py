"""Connection strings, taken apart and put together."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.connections import Parts, at_point, environment, for_prisma, parts_of, with_ssl

NEON = "postgresql://app:s3cret@ep-a-b-12345678.us-east-2.aws.neon.tech/shop?sslmode=require&channel_binding=require"
LOCAL = "postgresql://app:p%40ss%2Fw%3Ard@127.0.0.1:20001/my%20db?sslmode=disable"


def test_parts() -> None:
    parts = parts_of(LOCAL)
    assert (parts.role, parts.password, parts.host, parts.port) == ("app", "p@ss/w:rd", "127.0.0.1", "20001")
    assert (parts.database, parts.parameters) == ("my db", (("sslmode", "disable"),))
    assert parts.uri == LOCAL


def test_what_is_no_connection_string_is_not_repeated() -> None:
    for text in ("", "s3cret", "http://u:s3cret@h/d", "postgresql://h/s3cret", "postgresql://u:s3cret@[/d",
                 "postgresql://u:s3cret@h:notaport/d"):  # fmt: skip
        with pytest.raises(ValueError, match="cannot be read") as caught:
            parts_of(text)
        assert "s3cret" not in str(caught.value)


def test_the_password_is_in_no_repr() -> None:
    assert "s3cret" not in repr(parts_of(NEON))


printable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
parameters = st.lists(
    st.tuples(st.sampled_from(["sslmode", "options", "application_name"]), printable),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(tuple)


@given(
    st.builds(Parts, printable, printable, st.just("h.example"), st.sampled_from(["", "5432"]), printable, parameters)
)
def test_there_and_back(parts: Parts) -> None:
    assert parts_of(parts.uri) == parts


@given(printable, printable, printable)
def test_libpq_reads_the_same(role: str, password: str, database: str) -> None:
    parts = Parts(role, password, "127.0.0.1", "20001", database, (("application_name", "a b+c&d=e"),))
    read = psycopg.conninfo.conninfo_to_dict(parts.uri)
    assert (read["user"], read["password"], read["dbname"]) == (role, password, database)
    assert read["application_name"] == "a b+c&d=e"


def test_ssl_modes() -> None:
    parts = parts_of(NEON)
    assert with_ssl(parts, None) == parts
    assert with_ssl(parts, "omit").parameters == ()
    assert dict(with_ssl(parts, "verify-full").parameters) == {"sslmode": "verify-full", "channel_binding": "require"}


def test_prisma() -> None:
    assert for_prisma(parts_of(NEON), pooled=False).uri.endswith("&connect_timeout=30")
    assert for_prisma(parts_of(NEON), pooled=True).uri.endswith("&connect_timeout=30&pool_timeout=30&pgbouncer=true")


def test_a_past_point_has_the_branch_for_host() -> None:
    past = {"endpoint_id": "ep-a-b-12345678", "branch_id": "br-c-d-12345678"}
    at_lsn = at_point(parts_of(NEON), **past, point="0/1A")
    assert at_lsn.host == "br-c-d-12345678.us-east-2.aws.neon.tech"
    assert dict(at_lsn.parameters)["options"] == "neon_lsn:0/1A"
    at_time = at_point(parts_of(NEON), **past, point=datetime(2026, 1, 31, 12, tzinfo=UTC))
    assert dict(at_time.parameters)["options"] == "neon_timestamp:2026-01-31T12:00:00.000Z"
    with pytest.raises(ValueError, match="not available on this server"):
        at_point(parts_of(LOCAL), **past, point="0/1A")


def test_the_environment_of_a_program() -> None:
    """What the user's own environment says of another server does not count."""
    elsewhere = {"PGHOSTADDR": "10.0.0.1", "PGSERVICE": "prod", "PGPORT": "6000", "PGPASSWORD": "other"}
    ways = {"PGOPTIONS": "-c x=1", "PGSSLMODE": "disable"}
    mine = {"PATH": "/bin", **elsewhere, **ways, "PGCLIENTENCODING": "latin1"}
    env = environment(parts_of(NEON), mine)
    assert env == {
        "PATH": "/bin",
        "PGHOST": "ep-a-b-12345678.us-east-2.aws.neon.tech",
        "PGPORT": "5432",
        "PGUSER": "app",
        "PGPASSWORD": "s3cret",
        "PGDATABASE": "shop",
        "PGSSLMODE": "require",
        "PGCHANNELBINDING": "require",
        "PGCLIENTENCODING": "latin1",
    }
    assert environment(parts_of(LOCAL), {})["PGPORT"] == "20001"
    assert "PGPASSWORD" not in environment(parts_of("postgresql://app@h/d"), mine)
