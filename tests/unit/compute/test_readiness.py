"""Reading a server's answer byte by byte."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute.readiness import Answer, judge, opening


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def error(code: str, text: str = "why") -> bytes:
    return message(b"E", f"SFATAL\0C{code}\0M{text}\0\0".encode())


OK = message(b"R", b"\0\0\0\0")
STATUS = message(b"S", b"server_version\x0017\0") + message(b"K", b"\0" * 8) + message(b"Z", b"I")
ROW = message(b"T", b"\0\x01?column?\0" + b"\0" * 18) + message(b"D", b"\0\x01\0\0\0\x011")


@given(st.integers(0, len(OK + STATUS + ROW)))
def test_a_row_and_nothing_less_is_readiness(cut):
    whole = OK + STATUS + ROW
    verdict = judge(whole[:cut])
    assert (verdict is not None and verdict.answer is Answer.READY) == (cut == len(whole))


def test_errors_tell_apart_who_waits_and_who_refuses():
    assert judge(error("57P03")).answer is Answer.STARTING
    assert judge(error("53300")).answer is Answer.READY
    refused = judge(OK + error("3D000", "no such database"))
    assert (refused.answer, refused.message) == (Answer.REFUSED, "no such database")


def test_a_server_that_asks_for_a_password_refuses_us():
    assert judge(message(b"R", b"\0\0\0\x0a" + b"SCRAM-SHA-256\0\0")).answer is Answer.REFUSED


def test_what_is_no_message_of_postgres_refuses_us():
    assert judge(b"H\0\0\0\0T").answer is Answer.REFUSED


@given(st.binary(max_size=200))
def test_any_bytes_are_judged_or_waited_for(received):
    judge(received)


def test_the_opening_is_a_startup_packet_and_a_query():
    sent = opening()
    (length, version) = struct.unpack_from("!II", sent)
    assert version == 196608
    assert sent[length - 2 : length] == b"\0\0"
    assert sent[length:] == message(b"Q", b"SELECT 1\0")
