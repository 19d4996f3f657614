"""Reading what the kernel says of its connections."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.platform.census import parse_diag, parse_proc

HEAD = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ESTABLISHED, TIME_WAIT, CLOSE_WAIT, LISTEN = 1, 6, 8, 10

ports = st.integers(1, 65535)
sockets = st.lists(st.tuples(ports, ports, st.sampled_from([*range(1, 13)])), max_size=60)


def proc_line(number: int, local: int, remote: int, state: int, *, six: bool) -> bytes:
    address = "0" * 24 + "01000000" if six else "0100007F"
    tail = "00000000:00000000 00:00000000 00000000     0        0 137 1 0000000000000000 20 4 0 10 -1"
    return f"{number:4d}: {address}:{local:04X} {address}:{remote:04X} {state:02X} {tail}\n".encode()


def diag_message(local: int, remote: int, *, extra: int = 0) -> bytes:
    body = struct.pack("=BBBB", 2, ESTABLISHED, 0, 0) + struct.pack(">HH", local, remote) + bytes(64 + extra)
    message = struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 77) + body
    return message + bytes(-len(message) % 4)


DONE = struct.pack("=IHHIIi", 20, 3, 2, 1, 77, 0)


@given(sockets, st.booleans())
def test_open_ends_are_counted_by_their_local_port(rows: list[tuple[int, int, int]], six: bool) -> None:
    """Whatever the port of the other end is; ends that listen, or are over, do not count."""
    table = HEAD + b"".join(proc_line(number, *row, six=six) for number, row in enumerate(rows))
    wanted = Counter(local for local, _, state in rows if state in (ESTABLISHED, CLOSE_WAIT))
    assert parse_proc(table) == wanted


def test_an_empty_table_has_no_connections() -> None:
    assert parse_proc(HEAD) == {}
    assert parse_proc(b"") == {}


@given(st.lists(st.tuples(ports, ports, st.integers(0, 9)), max_size=40))
def test_a_datagram_tells_the_local_ports(rows: list[tuple[int, int, int]]) -> None:
    """In order and as they go over a network, whatever attributes follow an answer."""
    data = b"".join(diag_message(local, remote, extra=extra) for local, remote, extra in rows)
    wanted = [socket.htons(row[0]) for row in rows]
    assert parse_diag(data) == (wanted, True)
    assert parse_diag(data + DONE) == (wanted, False)


def test_the_kernels_refusal_is_raised() -> None:
    refusal = struct.pack("=IHHIIi16s", 36, 2, 0, 1, 77, -errno.ENOENT, bytes(16))
    with pytest.raises(OSError) as raised:
        parse_diag(refusal)
    assert raised.value.errno == errno.ENOENT


@given(st.binary(min_size=16, max_size=200))
def test_no_datagram_makes_it_go_round_for_ever(data: bytes) -> None:
    """An answer that is cut, or whose lengths are wrong, is an error or few ports, never a loop or a crash."""
    try:
        found, _ = parse_diag(data)
    except OSError:
        return
    assert len(found) <= len(data) // 16


def test_a_cut_answer_is_an_error() -> None:
    with pytest.raises(OSError, match="cut"):
        parse_diag(diag_message(5000, 6000)[:40])
