"""What a terminal may be given."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lamplighter.cli.harmless import clean, escape_json, is_harmless
from lamplighter.cli.terminal import cut, pad, width

#: Text with more of what matters here than chance would bring: controls, marks, wide and combined characters.
SPECIAL = "\x00\x07\x08\t\n\r\x1b[]31m\x7f\x85\x9b\u200b\u200d\u202e\u2028\u2066\ufeff\ud800漢字e\u0301👨\u200d👩🏽é …"
TEXTS = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters()), max_size=60)


def obeyed(character: str) -> bool:
    """Whether a terminal may do something else than show it: controls, formats, separators of lines, surrogates."""
    # Joiners make one sign of several; soft hyphens and Arabic number signs are shown or not, and do no harm.
    harmless_format = "\u200c\u200d\u00ad\u070f\u08e2\u180e\u110bd\u110cd"
    category = unicodedata.category(character)
    if category == "Cf":
        return character not in harmless_format and not (
            "\u0600" <= character <= "\u0605"
            or character == "\u06dd"
            or "\u0890" <= character <= "\u0891"
            or ord(character) > 0xFFFF
        )
    return category in ("Cc", "Zl", "Zp", "Cs")


@given(TEXTS)
def test_nothing_that_a_terminal_would_obey_gets_through(text: str) -> None:
    assert not [character for character in clean(text) if obeyed(character)]


@given(TEXTS)
def test_clean_text_stays_as_it_is(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    if not any(obeyed(character) for character in text):
        assert once == text


def test_an_escape_sequence_is_shown_and_not_obeyed() -> None:
    assert clean("dev\x1b[31m\nmain\x9b2J") == "dev\\x1b[31m\\nmain\\x9b2J"


@given(TEXTS.map(clean), st.integers(0, 80))
def test_a_cut_text_fits(text: str, columns: int) -> None:
    shown = cut(text, columns)
    assert cell_len(shown) <= columns
    if cell_len(text) <= columns:
        assert shown == text
    elif columns:
        assert shown.endswith("…")
        assert text.startswith(shown[:-1])


@given(TEXTS.map(clean), st.integers(0, 80), st.booleans())
def test_a_padded_text_fills_its_columns(text: str, columns: int, right: bool) -> None:
    shown = pad(text, columns, right=right)
    assert width(shown) == max(columns, width(text))
    assert shown.strip(" ") == text.strip(" ")


@pytest.mark.parametrize(("text", "columns"), [("", 0), ("dev", 3), ("漢字", 4), ("e\u0301", 1)])
def test_width_is_in_columns(text: str, columns: int) -> None:
    assert width(text) == columns


@given(st.recursive(TEXTS | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_escaped_json_means_the_same(value: object) -> None:
    text = escape_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(text) == value
    assert is_harmless(text)
