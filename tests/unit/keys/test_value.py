"""A value is never seen, never copied, and gone when it is wiped."""

from __future__ import annotations

import copy
import hmac
import io
import json
import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.traceback import Traceback

from lamplighter.keys.value import MAX_LENGTH, KeyBuffer

CANARY = b"napi_canary_0123456789abcdefghijklmnopqrstuvwxyz"
TEXT = CANARY.decode()


@given(content=st.binary(min_size=1, max_size=300), salt=st.binary(min_size=1, max_size=64))
def test_it_holds_the_bytes_and_their_mac_and_takes_them_from_the_source(content: bytes, salt: bytes) -> None:
    source = bytearray(content)
    buffer = KeyBuffer(source)
    assert source == bytes(len(content))
    with buffer.reveal() as view:
        assert view.readonly
        assert hmac.compare_digest(bytes(view), content)
    assert buffer.mac(salt) == hmac.new(salt, content, "sha256").hexdigest()
    assert buffer.matches(buffer.mac(salt), salt)
    assert not buffer.matches(buffer.mac(salt + b"x"), salt)


def test_once_wiped_nothing_is_left() -> None:
    buffer = KeyBuffer(bytearray(CANARY))
    page = buffer._page
    with buffer:
        assert buffer
        assert CANARY in page[:]
    assert not buffer
    assert page[:] == bytes(len(page))
    buffer.wipe()
    with pytest.raises(ValueError), buffer.reveal():
        pass


@pytest.mark.parametrize("size", [0, MAX_LENGTH + 1])
def test_a_source_of_no_sensible_size_is_refused_and_wiped(size: int) -> None:
    source = bytearray(b"x" * size)
    with pytest.raises(ValueError):
        KeyBuffer(source)
    assert source == bytes(size)


def fail(buffer: KeyBuffer) -> None:
    raise RuntimeError(buffer)


def test_it_shows_itself_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Neither printed, nor formatted, nor logged, nor in a traceback that shows locals."""
    buffer = KeyBuffer(bytearray(CANARY))
    shown = [
        repr(buffer),
        str(buffer),
        f"{buffer}",
        f"{buffer!r:>40}",
        f"{buffer:>9}",
        repr([buffer]),
        repr({1: buffer}),
    ]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("anything").debug("%s %r", buffer, buffer)
    screen = io.StringIO()
    try:
        with buffer.reveal() as view:
            assert view
            fail(buffer)
    except RuntimeError:
        Console(file=screen, width=200).print(Traceback(show_locals=True))
    assert "Traceback" in screen.getvalue()
    leaked = [text for text in [*shown, caplog.text, screen.getvalue()] if TEXT[5:17] in text]
    assert leaked == []


def test_it_cannot_be_copied_or_pickled_or_compared() -> None:
    buffer = KeyBuffer(bytearray(CANARY))
    for take in (copy.copy, copy.deepcopy, pickle.dumps, json.dumps):
        with pytest.raises(TypeError):
            take(buffer)
    same = buffer == KeyBuffer(bytearray(CANARY))
    assert not same
    assert not hasattr(buffer, "__dict__")
