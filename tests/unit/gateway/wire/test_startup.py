"""The first bytes of a connection, and the startup packet."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamplighter.gateway.wire.errors import Malformed
from lamplighter.gateway.wire.startup import (
    GSSENC_REQUEST,
    LONGEST,
    SSL_REQUEST,
    CancelRequest,
    Kind,
    Opening,
    Startup,
    classify,
    endpoint_of_options,
    parse_cancel,
    parse_startup,
    render_cancel,
    render_startup,
)
from support.wire import PROTOCOL_3_0

# What a client may write, bytes that are no UTF-8 among it: they become surrogates.
octets = st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"?"))
values = octets.map(lambda raw: raw.decode("utf-8", "surrogateescape"))
names = values.filter(bool) | st.sampled_from(["user", "database", "options"])
startups = st.builds(
    lambda minor, user, pairs: Startup(PROTOCOL_3_0 | minor, (*pairs, ("user", user))),
    st.integers(0, 0xFFFF),
    values.filter(bool),
    st.lists(st.tuples(names, values), max_size=6).map(tuple),
)
heads = st.sampled_from(
    [b"", b"\x16", b"\x16\x03", b"GET ", b"OPTIONS", b"\0\0\0\x08\x04\xd2\x16", b"\0\0\0", SSL_REQUEST, GSSENC_REQUEST]
)
beginnings = st.tuples(heads, st.binary(max_size=24)).map(b"".join)


def packet(body: bytes, version: int = PROTOCOL_3_0) -> bytes:
    return struct.pack("!II", 8 + len(body), version) + body


@given(beginnings)
def test_eight_bytes_decide_and_later_ones_change_nothing(data):
    decided = classify(data)
    assert decided is not None or len(data) < 8
    if len(data) >= 8:
        assert all(classify(data[:size]) in {None, decided} for size in range(8))
        assert classify(data[:8]) == decided


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (SSL_REQUEST, Kind.SSL_REQUEST),
        (GSSENC_REQUEST, Kind.GSSENC_REQUEST),
        (b"\x16\x03", Kind.TLS_HELLO),
        (b"\x16\x02", Kind.UNKNOWN),
        (b"GET ", Kind.HTTP),
        (b"POST /sql HTTP/1.1", Kind.HTTP),
        (b"OPTIONS ", Kind.HTTP),
        (b"HEAD ", Kind.HTTP),
        (b"PUT /", Kind.HTTP),
        (b"DELETE /", Kind.HTTP),
        (b"PATCH /", Kind.HTTP),
        (b"GETS", Kind.UNKNOWN),
        (b"SSH-2.0-", Kind.UNKNOWN),
        (b"\xff", Kind.UNKNOWN),
        (b"\0\0\0\x08\x00\x02\x00\x00", Kind.UNKNOWN),
        (b"\0\0\0\x07\x00\x03\x00\x00", Kind.UNKNOWN),
        (b"\0\x01\0\0\x00\x03\x00\x00", Kind.UNKNOWN),
        (b"\0\0\0\x0f\x04\xd2\x16\x2e", Kind.UNKNOWN),
        (b"\0\0\x02\0\x04\xd2\x16\x2e", Kind.UNKNOWN),
        (b"\0\0\0\x09\x04\xd2\x16\x2f", Kind.UNKNOWN),
    ],
)
def test_what_a_connection_begins_with(first, kind):
    opening = classify(first)
    assert opening is not None
    assert opening.kind is kind


@pytest.mark.parametrize("minor", [0, 1, 2, 9999])
def test_every_minor_version_of_protocol_three_is_a_startup(minor):
    assert classify(packet(b"user\0a\0\0", PROTOCOL_3_0 | minor)) == Opening(Kind.STARTUP, 16)


@given(startups)
def test_a_startup_is_read_as_it_was_written(startup):
    data = render_startup(startup)
    assert parse_startup(data) == startup
    assert classify(data) == Opening(Kind.STARTUP, len(data))


@given(st.binary(max_size=60).map(packet) | st.binary(max_size=60))
@example(packet(b""))
@example(b"\0\0\0\x08")
def test_any_packet_is_read_or_malformed(data):
    try:
        startup = parse_startup(data)
    except Malformed:
        return
    assert render_startup(startup) == data


@pytest.mark.parametrize(
    "body",
    [b"", b"user\0a", b"user\0a\0", b"user\0", b"\0user\0a\0\0", b"user\0a\0\0\0", b"user\0a\0x\0\0"],
)
def test_a_layout_that_postgres_refuses_is_refused(body):
    with pytest.raises(Malformed, match="layout"):
        parse_startup(packet(body))


def test_a_length_that_is_not_the_packets_is_refused():
    with pytest.raises(Malformed, match="length"):
        parse_startup(packet(b"user\0a\0\0") + b"\0")


def test_a_packet_may_be_as_long_as_postgres_takes_it_and_no_longer():
    def of(size: int) -> bytes:
        return packet(b"user\0" + b"a" * (size - 8 - 7) + b"\0\0")

    assert len(parse_startup(of(LONGEST)).user) == LONGEST - 15
    with pytest.raises(Malformed, match="length"):
        parse_startup(of(LONGEST + 1))
    assert classify(of(LONGEST + 1)) == Opening(Kind.UNKNOWN)


def test_a_startup_without_a_user_is_told_what_postgres_tells():
    with pytest.raises(Malformed, match="no PostgreSQL user name") as caught:
        parse_startup(packet(b"database\0x\0\0"))
    assert caught.value.code == "28000"


def test_another_protocol_is_refused_by_its_number():
    with pytest.raises(Malformed, match=r"unsupported frontend protocol 2\.1") as caught:
        parse_startup(packet(b"user\0a\0\0", 2 << 16 | 1))
    assert caught.value.code == "0A000"


def test_the_last_of_duplicates_holds():
    startup = parse_startup(packet(b"user\0a\0database\0x\0user\0b\0database\0\0\0"))
    assert (startup.user, startup.get("database"), startup.options) == ("b", "", None)


@given(startups, names, st.none() | values)
def test_a_parameter_is_replaced_and_nothing_else(startup, name, value):
    changed = startup.with_parameter(name, value)
    assert changed.get(name) == value
    assert [key for key, _ in changed.parameters].count(name) == (value is not None)
    assert [pair for pair in changed.parameters if pair[0] != name] == [
        pair for pair in startup.parameters if pair[0] != name
    ]


@pytest.mark.parametrize("pair", [("user", "a\0b"), ("", "x"), ("us\0er", "x"), ("user", "x" * LONGEST)])
def test_a_startup_that_cannot_be_sent_is_not_written(pair):
    with pytest.raises(Malformed):
        render_startup(Startup(PROTOCOL_3_0, (pair,)))


@given(st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=256))
def test_a_cancel_request_is_read_as_it_was_written(pid, secret):
    data = render_cancel(CancelRequest(pid, secret))
    assert parse_cancel(data) == CancelRequest(pid, secret)
    with pytest.raises(Malformed):
        parse_cancel(data[:-1])
    with pytest.raises(Malformed):
        parse_cancel(data + b"\0")


@pytest.mark.parametrize(
    ("options", "endpoint", "rest"),
    [
        (None, None, None),
        ("", None, ""),
        ("-c geqo=off", None, "-c geqo=off"),
        ("endpoint=ep-x", "ep-x", None),
        ("project=ep-x", "ep-x", None),
        ("  endpoint=ep-x\t-c  geqo=off ", "ep-x", "-c geqo=off"),
        ("-c search_path=a\\ b endpoint=ep-x", "ep-x", "-c search_path=a\\ b"),
        ("-c search_path=a\\\\ endpoint=ep-x", "ep-x", "-c search_path=a\\\\"),
        ("-c a=\\ endpoint=ep-x", None, "-c a=\\ endpoint=ep-x"),
        ("end\\point=ep-x", "ep-x", None),
        ("endpoint=ep-x endpoint=ep-x", "ep-x", None),
        ("endpoint=", "", None),
        ("-c endpoint=ep-x", None, "-c endpoint=ep-x"),
        ("--endpoint=ep-x", None, "--endpoint=ep-x"),
        ("-ckey=1 endpoint=bar -c geqo=off", "bar", "-ckey=1 -c geqo=off"),
    ],
)
def test_the_endpoint_is_taken_out_of_the_options(options, endpoint, rest):
    assert endpoint_of_options(options) == (endpoint, rest)


def test_two_endpoints_in_the_options_are_one_too_many():
    with pytest.raises(Malformed, match="more than one endpoint"):
        endpoint_of_options("endpoint=a project=b")


words = st.text("ab-=\\ \t", min_size=1, max_size=8).map(lambda word: "x" + word)


@given(st.lists(words, max_size=4), st.integers(0, 4))
def test_what_is_left_of_the_options_means_the_same_to_postgres(plain, place):
    """Whatever words there are, written as Postgres wants them: they are left, and only the endpoint's is gone."""
    written = ["".join("\\" + char if char in "\\ \t" else char for char in word) for word in plain]
    with_endpoint = [*written[:place], "endpoint=ep-x", *written[place:]]
    assert endpoint_of_options(" ".join(with_endpoint)) == ("ep-x", " ".join(written) or None)
