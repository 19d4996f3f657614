"""What the console's proxy answers to a client's first bytes."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamplighter.platform.console_request import (
    BUSY,
    CONSOLE,
    ELSEWHERE,
    LONGEST,
    MALFORMED,
    NOT_CONNECT,
    TOO_LATE,
    TOO_LONG,
    UNREACHED,
    Granted,
    Refusal,
    judge,
)

ASKED = b"CONNECT console.neon.tech:443 HTTP/1.1\r\nHost: console.neon.tech:443\r\nUser-Agent: curl/8\r\n\r\n"

#: Bytes as they come: requests, pieces of requests in any order, anything.
WORDS = (b"CONNECT", b"GET", b"console.neon.tech:443", b"example.org:443", b"HTTP/1.1", b"a: b")
PIECES = st.sampled_from((*WORDS, b" ", b"\r", b"\n", b"\r\n"))
STREAMS = st.one_of(
    st.binary(max_size=200),
    st.lists(PIECES, max_size=12).map(b"".join),
    st.tuples(st.just(ASKED), st.binary(max_size=50)).map(b"".join),
    st.binary(max_size=20).map(lambda end: b"CONNECT console.neon.tech:443 HTTP/1.1\r\n" + b"a: b\r\n" * 1400 + end),
)


@pytest.mark.parametrize(
    "asked",
    [
        ASKED,
        b"CONNECT console.neon.tech:443 HTTP/1.0\r\n\r\n",
        b"CONNECT Console.NEON.tech.:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"CONNECT console.neon.tech:443 HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
    ],
)
def test_the_console_is_granted(asked: bytes):
    assert judge(asked) == Granted(len(asked))


@pytest.mark.parametrize(
    "place",
    [
        "example.org:443",
        "console.neon.tech:80",
        "console.neon.tech:4430",
        "127.0.0.1:443",
        "[::1]:443",
        "xconsole.neon.tech:443",
        "console.neon.tech.example.org:443",
        "console-neon.tech:443",
        "api.neon.tech:443",
    ],
)
def test_any_other_place_is_refused(place: str):
    """As soon as its line is there."""
    assert judge(f"CONNECT {place} HTTP/1.1\r\n".encode()) is ELSEWHERE


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "CONNECTS", "PRI"])
@pytest.mark.parametrize("target", ["/", "http://console.neon.tech/api/v2", "console.neon.tech:443", "*"])
def test_any_other_method_is_refused(method: str, target: str):
    assert judge(f"{method} {target} HTTP/1.1\r\n".encode()) is NOT_CONNECT


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01",  # TLS, of who was told that this is an https:// proxy
        b"\x05\x01\x00",  # SOCKS
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # Postgres
        b"connect console.neon.tech:443 HTTP/1.1",
        b"CONNECT console.neon.tech:443 HTTP/1.1\n",
        b"CONNECT console.neon.tech:443\r\n",
        b"CONNECT console.neon.tech:443 HTTP/2\r\n",
        b"CONNECT console.neon.tech HTTP/1.1\r\n",
        b"CONNECT console.neon.tech:https HTTP/1.1\r\n",
        b"CONNECT https://console.neon.tech:443 HTTP/1.1\r\n",
        b"CONNECT  console.neon.tech:443 HTTP/1.1\r\n",
        b"CONNECT me@console.neon.tech:443 HTTP/1.1\r\n",
        b"CONNECT console.neon.tech:443 HTTP/1.1 \r\n",
        b"\r\n\r\n",
        b" ",
    ],
)
def test_what_is_no_request_is_told_so_at_once(said: bytes):
    assert judge(said) is MALFORMED


def test_a_long_line_costs_no_more_than_its_bytes():
    """As it grows, and with a byte in it that no request has: with a try for each two of its bytes this never ends."""
    for length in range(LONGEST - 1000, LONGEST - 3):
        line = b"A " + b"a" * length
        assert judge(line) is None
        assert judge(line + b"\0") is MALFORMED


@given(st.integers(0, len(ASKED) - 1))
def test_a_request_is_waited_for(length: int):
    assert judge(ASKED[:length]) is None


@given(STREAMS, st.binary(max_size=50))
@example(b"CONNECT console.neon.tech:443 HTTP/1.1\r", b"\n\r\n")
def test_an_answer_does_not_change_with_what_follows(said: bytes, more: bytes):
    """So it does not matter in which pieces a request comes."""
    answer = judge(said)
    if answer is not None:
        assert judge(said + more) == answer


@given(STREAMS)
def test_what_is_waited_for_is_bounded(said: bytes):
    assert len(said) < LONGEST or judge(said) is not None


@given(STREAMS)
def test_nothing_else_is_granted(said: bytes):
    answer = judge(said)
    if isinstance(answer, Granted):
        assert re.match(rb"CONNECT console\.neon\.tech:443 HTTP/1\.\d\r\n", said)
        assert said[: answer.length].endswith(b"\r\n\r\n")
        assert said.index(b"\r\n\r\n") + 4 == answer.length <= LONGEST


@pytest.mark.parametrize(
    "said",
    [
        b"CONNECT " + b"a" * LONGEST,
        b"CONNECT console.neon.tech:443 HTTP/1.1\r\n" + b"a: b\r\n" * LONGEST,
        b"CONNECT console.neon.tech:443 HTTP/1.1\r\na: " + b"b" * (LONGEST - 45) + b"\r\n\r\n",
    ],
)
def test_a_head_without_an_end_is_too_long(said: bytes):
    assert judge(said) is TOO_LONG


@given(st.binary(max_size=300))
def test_bytes_behind_the_head_are_left(tls: bytes):
    assert judge(ASKED + tls) == Granted(len(ASKED))


@pytest.mark.parametrize("refusal", [MALFORMED, ELSEWHERE, NOT_CONNECT, TOO_LATE, TOO_LONG, UNREACHED, BUSY])
def test_a_refusal_is_an_answer_of_http(refusal: Refusal):
    """A sentence is its body, which names the host wherever the client has asked for something else."""
    head, _, body = refusal.render().decode("ascii").partition("\r\n\r\n")
    line, *fields = head.split("\r\n")
    assert re.fullmatch(r"HTTP/1\.1 [45]\d\d [ -~]+", line)
    assert f"content-length: {len(body)}" in fields
    assert "connection: close" in fields
    assert ("allow: CONNECT" in fields) == (refusal is NOT_CONNECT)
    assert CONSOLE in body or refusal.status >= 500
