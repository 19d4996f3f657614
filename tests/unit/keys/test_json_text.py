"""JSON strings as bytes: what Python's own parser makes of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamplighter.keys.sinks.json_text import decoded, escaped

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, st.binary(max_size=5), st.binary(max_size=5))
@example('"\\/\b\f\n\r\t\x00\x1f\x7f\u2028\U0001f511', b"", b"")
def test_what_is_escaped_is_what_json_reads(text: str, before: bytes, after: bytes):
    whole = escaped(memoryview(text.encode()), before=before, after=after)
    assert whole.startswith(before)
    assert whole.endswith(after)
    inner = bytes(whole[len(before) : len(whole) - len(after)])
    assert json.loads(b'"' + inner + b'"') == text


@given(TEXTS, st.booleans())
@example("\U0001f511\ud7ff\ue000", True)
def test_what_json_writes_is_decoded(text: str, ascii_only: bool):
    quoted = json.dumps(text, ensure_ascii=ascii_only).encode()
    assert bytes(decoded(memoryview(quoted))) == text.encode()


@given(st.binary())
def test_bytes_are_escaped_exactly_when_they_are_utf8(data: bytes):
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(ValueError, match="no UTF-8"):
            escaped(memoryview(data))
    else:
        assert bytes(decoded(memoryview(b'"' + bytes(escaped(memoryview(data))) + b'"'))) == data


@given(st.text('"\\/bfnrtu0dD89aAx\n', max_size=16))
def test_what_json_does_not_read_is_refused(inner: str):
    """And what it reads as half of a character, which no UTF-8 can hold."""
    quoted = f'"{inner}"'.encode()
    try:
        expected = json.loads(quoted).encode()
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            decoded(memoryview(quoted))
    else:
        assert bytes(decoded(memoryview(quoted))) == expected


@pytest.mark.parametrize(
    "quoted", [b"", b'"', b"null", b"7", b'"a', b'a"', b'"\xc3"', b'"\\ud83d"', b'"\\udd11\\ud83d"']
)
def test_what_is_no_string(quoted: bytes):
    with pytest.raises(ValueError, match=r"."):
        decoded(memoryview(quoted))


@given(st.text("napi_0123456789", min_size=8, max_size=40))
def test_errors_hold_nothing_of_the_text(text: str):
    for action in (
        lambda: escaped(memoryview(text.encode() + b"\xff")),
        lambda: decoded(memoryview(f'"{text}'.encode())),
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            action()
        assert text not in f"{caught.value!r} {vars(caught.value)} {caught.value.__context__!r}"
