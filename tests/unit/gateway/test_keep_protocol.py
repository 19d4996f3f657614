"""Messages about listening sockets: what is said is understood, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.keep_protocol import HEADER, LARGEST, LONGEST_ADDRESS, NOWHERE, At, Kind, pack, unpack

addresses = st.text(max_size=LONGEST_ADDRESS).filter(lambda text: len(text.encode()) <= LONGEST_ADDRESS)
places = st.builds(At, address=addresses, port=st.integers(0, 65535))


@given(st.sampled_from(Kind), places)
def test_what_is_packed_is_unpacked(kind, at):
    message = pack(kind, at)
    assert len(message) <= LARGEST
    assert unpack(message) == (kind, at)


@given(st.sampled_from(Kind))
def test_a_message_about_no_socket_is_its_header(kind):
    assert unpack(pack(kind)) == (kind, NOWHERE)
    assert len(pack(kind)) == HEADER.size


@given(
    st.binary(max_size=LARGEST + 10)
    | st.builds(lambda kind, rest: HEADER.pack(kind, 5432) + rest, st.integers(0, 30), st.binary(max_size=20))
)
def test_what_is_understood_could_have_been_packed(message):
    try:
        kind, at = unpack(message)
    except ValueError:
        return
    assert pack(kind, at) == message


def test_the_end_of_a_file_is_no_message():
    with pytest.raises(ValueError, match="0 bytes"):
        unpack(b"")


def test_an_address_that_does_not_fit_is_not_packed():
    with pytest.raises(ValueError, match="too long"):
        pack(Kind.HOLD, At("x" * (LONGEST_ADDRESS + 1), 5432))
