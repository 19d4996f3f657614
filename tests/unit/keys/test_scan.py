"""Finding members of a JSON object in place agrees with a parser, and what is broken is refused without being shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.keys.scan import members, text_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DUMPS = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.none() | st.integers(0, 3), "separators": st.just((" ,\t", " : "))}
)


@given(known=st.dictionaries(st.text(), JSON, max_size=6), how=DUMPS)
def test_every_member_is_where_a_parser_finds_it(known: dict[str, Any], how: dict[str, Any]) -> None:
    content = json.dumps(known, **how).encode("utf-8", "surrogatepass")
    found = members(memoryview(content))
    assert {name: json.loads(content[start:end]) for name, (start, end) in found.items()} == known


@given(known=st.dictionaries(st.text(), JSON, min_size=1, max_size=4), data=st.data())
def test_an_object_that_breaks_off_is_refused(known: dict[str, Any], data: st.DataObject) -> None:
    content = json.dumps(known).encode()
    end = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ValueError):
        members(memoryview(content[:end]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'{"a":1}x',
        b'{"a":1,"a":2}',
        b'{"a" 1}',
        b'{"a":}',
        b"{a:1}",
        b'{"a":[}]}',
        b"<html>",
        b'{"a":1,}',
    ],
)
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        members(memoryview(content))


@given(text=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)), escaped=st.sets(st.integers(0, 40)))
def test_text_is_what_its_escapes_stand_for(text: str, escaped: set[int]) -> None:
    quoted = "".join(
        f"\\u{ord(letter):04X}" if at in escaped else json.dumps(letter)[1:-1] for at, letter in enumerate(text)
    )
    assert bytes(text_of(memoryview(f'"{quoted}"'.encode()))) == text.encode()


@pytest.mark.parametrize(
    "quoted", [b'"a b"', b'"\\n"', b'"\\u00e4"', b'"\xc3\xa4"', b'"\\x41"', b'"\\u00g1"', b"12", b'"']
)
def test_text_that_no_key_has_is_refused(quoted: bytes) -> None:
    with pytest.raises(ValueError):
        text_of(memoryview(quoted))
