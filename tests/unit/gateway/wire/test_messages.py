"""Messages: that what is written is read again, in whatever pieces it comes, and that nothing grows."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.wire import messages
from lamplighter.gateway.wire.errors import Malformed, TooLarge, WireError
from lamplighter.gateway.wire.messages import Frames, Message
from support.wire import password_message

kinds = st.binary(min_size=1, max_size=1)
streams = st.lists(st.builds(Message, kinds, st.binary(max_size=40)), max_size=8)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def body(data: bytes) -> bytes:
    """Of exactly one whole message."""
    (one,) = Frames().feed(data)
    return one.body


@given(streams, st.lists(st.integers(0, 400), max_size=20))
def test_messages_come_out_whole_however_they_are_cut(stream, cuts):
    data = b"".join(message.render() for message in stream)
    frames = Frames(100)
    found = [message for piece in pieces_of(data, cuts) for message in frames.feed(piece)]
    assert found == stream
    assert frames.rest() == b""


@given(streams, streams, st.binary(max_size=20))
def test_what_is_behind_a_message_is_handed_over_untouched(before, behind, more):
    frames = Frames(100)
    rest = b"".join(message.render() for message in behind)
    frames.push(b"".join(message.render() for message in before) + rest)
    assert [frames.pop() for _ in before] == before
    assert frames.rest() == rest
    assert len(frames) == 0
    frames.push(more)
    assert len(frames) == len(more)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_bytes_are_messages_or_an_error_and_never_pile_up(pieces):
    frames = Frames(100)
    try:
        for piece in pieces:
            for message in frames.feed(piece):
                assert len(message.body) <= 95
            assert len(frames) < 100
    except WireError:
        assert len(frames) <= 100 + 300


def test_a_long_message_is_refused_by_its_length_before_it_is_there():
    with pytest.raises(TooLarge) as caught:
        Frames(100).feed(b"p" + struct.pack("!I", 100))
    assert caught.value.limit == 100
    assert Frames(100).feed(b"p" + struct.pack("!I", 99) + bytes(95)) == [Message(b"p", bytes(95))]


def test_whoever_does_not_pop_cannot_push_for_ever():
    frames = Frames(100)
    frames.push(bytes(101))
    with pytest.raises(TooLarge):
        frames.push(b"x")


@pytest.mark.parametrize("length", [0, 3])
def test_a_length_that_does_not_count_itself_is_malformed(length):
    with pytest.raises(Malformed):
        Frames().feed(b"p" + struct.pack("!I", length))


@given(text, text, st.none() | text, st.none() | text)
def test_an_error_is_read_as_it_was_written(severity, said, detail, hint):
    read = messages.parse_error(body(messages.error_response(severity, "57P03", said, detail=detail, hint=hint)))
    told = {"severity": severity, "severity_nonlocalized": severity, "code": "57P03", "message": said}
    told |= {name: value for name, value in (("detail", detail), ("hint", hint)) if value is not None}
    assert read == told


def test_a_nul_in_an_error_does_not_make_other_fields():
    read = messages.parse_error(body(messages.error_response("FATAL", "XX000", "a\0C00000\0\0")))
    assert read["code"] == "XX000"
    assert read["message"].startswith("a")


def test_every_field_that_postgres_documents_has_a_name_and_others_keep_their_letter():
    assert "".join(messages.FIELDS) == "SVCMDHPpqWstcdnFLR"
    assert messages.parse_error(b"Zx\0Mtext\0\0") == {"Z": "x", "message": "text"}


def test_an_error_of_a_name_that_there_is_not_is_a_mistake_of_the_caller():
    with pytest.raises(KeyError):
        messages.error_response("FATAL", "XX000", "x", hints="y")


@pytest.mark.parametrize("data", [b"", b"M", b"Mtext", b"Mtext\0", b"Mtext\0\0\0", b"\0\0"])
def test_an_error_that_does_not_end_where_it_should_is_malformed(data):
    with pytest.raises(Malformed):
        messages.parse_error(data)


@given(st.binary(max_size=60))
def test_any_body_is_read_or_malformed(data):
    for read in (
        messages.parse_error,
        messages.parse_authentication,
        messages.parse_password,
        messages.parse_sasl_initial,
        messages.parse_sasl_response,
        messages.parse_backend_key,
    ):
        try:
            read(data)
        except Malformed:
            continue


def test_what_a_server_asks_for_is_read_again():
    ok = messages.parse_authentication(body(messages.authentication_ok()))
    assert (ok.code, ok.data) == (messages.AUTH_OK, b"")
    clear = messages.parse_authentication(body(messages.authentication_cleartext()))
    assert clear.code == messages.AUTH_CLEARTEXT
    offer = messages.parse_authentication(body(messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])))
    assert (offer.code, offer.mechanisms) == (messages.AUTH_SASL, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))
    for code, made in (
        (messages.AUTH_SASL_CONTINUE, messages.authentication_sasl_continue(b"r=1")),
        (messages.AUTH_SASL_FINAL, messages.authentication_sasl_final(b"r=1")),
    ):
        read = messages.parse_authentication(body(made))
        assert (read.code, read.data) == (code, b"r=1")


def test_the_bytes_of_messages_are_those_of_the_protocol():
    """As the documentation of PostgreSQL gives them, byte by byte."""
    assert messages.authentication_ok() == b"R\0\0\0\x08\0\0\0\0"
    assert messages.authentication_cleartext() == b"R\0\0\0\x08\0\0\0\x03"
    assert messages.authentication_sasl(["A", "B"]) == b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0"
    assert password_message(b"pw") == b"p\0\0\0\x07pw\0"
    assert messages.sasl_initial("A", b"xy") == b"p\0\0\0\x0cA\0\0\0\0\x02xy"
    assert messages.sasl_response(b"xy") == b"p\0\0\0\x06xy"
    assert messages.error_response("E", "C", "M") == b"E\0\0\0\x11SE\0VE\0CC\0MM\0\0"


@given(st.binary(max_size=30))
def test_what_a_client_answers_is_read_again(data):
    assert messages.parse_sasl_initial(body(messages.sasl_initial("SCRAM-SHA-256", data))) == ("SCRAM-SHA-256", data)
    plain = data.replace(b"\0", b"")
    assert messages.parse_password(body(password_message(plain))) == plain
    assert messages.parse_sasl_response(body(messages.sasl_response(plain))) == plain


def test_a_first_sasl_message_may_be_without_data():
    assert messages.parse_sasl_initial(b"X\0\xff\xff\xff\xff") == ("X", None)


@pytest.mark.parametrize("data", [b"", b"pw", b"p\0w\0", b"pw\0\0"])
def test_a_password_that_does_not_end_where_its_message_does_is_malformed(data):
    with pytest.raises(Malformed):
        messages.parse_password(data)


@given(st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=256))
def test_the_key_of_a_session_has_any_length_that_protocol_three_allows(pid, secret):
    assert messages.parse_backend_key(struct.pack("!I", pid) + secret) == (pid, secret)
