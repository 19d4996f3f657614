"""What real clients begin with (`openings.jsonl`: recorded from a socket), and what must not be taken for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.wire.hello import read_hello
from lamplighter.gateway.wire.startup import (
    SSL_REQUEST,
    Kind,
    classify,
    endpoint_of_options,
    parse_cancel,
    parse_startup,
    render_cancel,
    render_startup,
)

ROWS = [json.loads(line) for line in Path(__file__).with_name("openings.jsonl").read_text().splitlines()]


def rows(what: str):
    found = [row for row in ROWS if row["what"] == what]
    assert found
    return pytest.mark.parametrize(
        ("data", "expect"),
        [(bytes.fromhex(row["bytes"]), row.get("expect")) for row in found],
        ids=[row["client"] for row in found],
    )


@rows("startup")
def test_a_startup_of_a_real_client(data, expect):
    opening = classify(data[:8])
    assert opening is not None
    assert (opening.kind, opening.length) == (Kind.STARTUP, len(data))
    startup = parse_startup(data)
    assert f"{startup.version >> 16}.{startup.version & 0xFFFF}" == expect["version"]
    assert [list(pair) for pair in startup.parameters] == expect["parameters"]
    assert (startup.user, startup.get("database")) == ("alice", "neondb")
    assert render_startup(startup) == data


def test_the_endpoint_in_the_options_of_real_clients():
    named = {
        row["client"]: endpoint_of_options(parse_startup(bytes.fromhex(row["bytes"])).options)
        for row in ROWS
        if row["what"] == "startup" and "options" in row["client"]
    }
    assert named == {
        "psql 15, options": ("ep-cool-rain-123456", "-c geqo=off"),
        "JDBC 42.5, options": ("ep-cool-rain-123456", None),
    }


@rows("cancel")
def test_a_cancel_request_of_a_real_client(data, expect):
    opening = classify(data[:8])
    assert opening is not None
    assert (opening.kind, opening.length) == (Kind.CANCEL_REQUEST, len(data))
    request = parse_cancel(data)
    assert (request.pid, request.secret.hex()) == (expect["pid"], expect["secret"])
    assert render_cancel(request) == data


@rows("ssl")
def test_a_request_for_tls_of_a_real_client(data, expect):
    assert data == SSL_REQUEST
    opening = classify(data)
    assert opening is not None
    assert (opening.kind, opening.length) == (Kind.SSL_REQUEST, 8)


@rows("hello")
def test_a_tls_hello_of_a_real_client(data, expect):
    opening = classify(data[:8])
    assert opening is not None
    assert opening.kind is Kind.TLS_HELLO
    hello = read_hello(data)
    assert hello is not None
    assert (hello.sni, list(hello.alpn)) == (expect["sni"], expect["alpn"])


@given(st.sampled_from(ROWS), st.data())
def test_a_part_of_an_opening_tells_the_same_or_nothing_yet(row, data):
    whole = bytes.fromhex(row["bytes"])
    part = whole[: data.draw(st.integers(0, len(whole)))]
    told = classify(part)
    assert told == classify(whole) if len(part) >= 8 else told in {None, classify(whole)}


@given(st.sampled_from([row for row in ROWS if row["what"] == "hello"]), st.data())
def test_a_part_of_a_hello_is_waited_on(row, data):
    whole = bytes.fromhex(row["bytes"])
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert read_hello(part) is None
