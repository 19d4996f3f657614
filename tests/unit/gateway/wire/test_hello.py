"""TLS hellos: real ones of Python's ssl, cut and put together in any way, and what is none."""

from __future__ import annotations

import itertools
import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.wire.errors import Malformed
from lamplighter.gateway.wire.hello import LONGEST, MOST_RECORDS, read_hello


def real_hello(host: str | None, alpn: list[str], newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    if alpn:
        context.set_alpn_protocols(alpn)
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=host).do_handshake()
    return out.read()


HELLOS = {
    (host, alpn, newest): real_hello(host, list(alpn), newest)
    for host in (None, "ep-cool-rain-123456.db.example.org", "127.0.0.1")
    for alpn in ((), ("postgresql",), ("h2", "http/1.1"))
    for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
}
SOME = HELLOS["ep-cool-rain-123456.db.example.org", ("postgresql",), ssl.TLSVersion.TLSv1_3]


def records(message: bytes, cuts: list[int]) -> bytes:
    """A handshake message over several records."""
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(message)}), len(message)]
    return b"".join(
        b"\x16\x03\x01" + struct.pack("!H", end - start) + message[start:end]
        for start, end in itertools.pairwise(places)
    )


def hello(extensions: bytes | None) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    if extensions is not None:
        body += struct.pack("!H", len(extensions)) + extensions
    return records(b"\x01" + len(body).to_bytes(3, "big") + body, [])


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack("!HH", kind, len(body)) + body


def server_name(name: bytes, kind: int = 0) -> bytes:
    entry = struct.pack("!BH", kind, len(name)) + name
    return extension(0, struct.pack("!H", len(entry)) + entry)


@pytest.mark.parametrize("made", HELLOS, ids=str)
def test_the_name_and_the_protocols_of_a_hello(made):
    host, alpn, _ = made
    read = read_hello(HELLOS[made])
    assert read is not None
    # No client sends an address as a name.
    assert (read.sni, read.alpn) == (None if host == "127.0.0.1" else host, alpn)


@given(st.lists(st.integers(1, len(SOME) - 6), max_size=30), st.binary(max_size=10))
def test_a_hello_over_several_records_is_the_same(cuts, behind):
    split = records(SOME[5:], cuts)
    whole, one = read_hello(split + behind), read_hello(SOME)
    assert one is not None
    assert whole == one


@given(st.lists(st.integers(1, len(SOME) - 6), max_size=8), st.data())
def test_more_is_wanted_until_the_last_byte(cuts, data):
    split = records(SOME[5:], cuts)
    assert read_hello(split[: data.draw(st.integers(0, len(split) - 1))]) is None


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda raw: records(b"\x01\0" + raw, [])))
def test_any_bytes_are_a_hello_or_malformed_or_too_few(data):
    try:
        read_hello(data)
    except Malformed:
        return


@given(st.integers(0, len(SOME) - 1), st.integers(1, 255))
def test_a_damaged_hello_is_read_or_malformed_or_waited_on(at, flip):
    damaged = bytearray(SOME)
    damaged[at] ^= flip
    try:
        read_hello(bytes(damaged))
    except Malformed:
        return


@pytest.mark.parametrize("size", [600, 16_000])
def test_what_never_ends_is_refused_at_the_bound(size):
    """No more is ever waited for than `LONGEST` bytes."""
    body = bytes(LONGEST)
    endless = records(b"\x01" + (LONGEST - 4).to_bytes(3, "big") + body, list(range(size, LONGEST, size)))
    assert read_hello(endless[: LONGEST - 1]) is None
    with pytest.raises(Malformed, match="too long"):
        read_hello(endless[:LONGEST])


def test_a_hello_in_crumbs_is_refused():
    """Or a client could make each of its bytes cost thousands of steps."""
    crumbs = records(SOME[5:], list(range(len(SOME))))
    with pytest.raises(Malformed, match="too many pieces"):
        read_hello(crumbs)
    assert read_hello(crumbs[: 6 * (MOST_RECORDS - 1) + 5]) is None


def test_a_hello_that_says_it_is_too_long_is_refused_at_once():
    with pytest.raises(Malformed, match="too long"):
        read_hello(b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\x03")


@pytest.mark.parametrize(
    "data",
    [
        b"\x15",
        b"\x16\x02",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\0\x04\x02\0\0\0",
        b"\x16\x03\x01\0\x04\x01\0\0\0",
        hello(b"\0"),
        hello(server_name(b"a") + server_name(b"a")),
        hello(server_name(b"")),
        hello(server_name(b"a b")),
        hello(server_name(b"a\0b")),
        hello(server_name("ö.example".encode())),
        hello(server_name(b"a..b")),
        hello(server_name(b"-a.example")),
        hello(server_name(b"a" * 254)),
        hello(extension(0, struct.pack("!H", 8) + struct.pack("!BH", 0, 1) + b"a" + struct.pack("!BH", 0, 1) + b"b")),
        hello(extension(16, b"\0\x02\x05a")),
        hello(extension(16, b"\0\x01\0\0")),
    ],
)
def test_what_is_no_hello_is_malformed(data):
    with pytest.raises(Malformed):
        read_hello(data)


@pytest.mark.parametrize(
    ("extensions", "sni"),
    [
        (None, None),
        (b"", None),
        (server_name(b"EP-Cool.Example.ORG"), "ep-cool.example.org"),
        (server_name(b"ep-cool.example.org."), "ep-cool.example.org"),
        (server_name(b"whatever", kind=7), None),
    ],
)
def test_names_in_odd_forms(extensions, sni):
    read = read_hello(hello(extensions))
    assert read is not None
    assert read.sni == sni
