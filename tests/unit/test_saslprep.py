"""Passwords as SCRAM hashes them. That libpq and Postgres agree is shown on a real server elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.saslprep import prepare


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
    ],
)
def test_the_examples_of_rfc_4013(password, prepared):
    assert prepare(password.encode()) == prepared.encode()


@pytest.mark.parametrize(
    "password",
    ["\u0007", "\u06271", "\u00ad", "a\u0000\u00e9", "\ue000", "\U0001fae0", "\u0627a\u0627"],
)
def test_what_is_forbidden_is_taken_as_it_is(password):
    assert prepare(password.encode()) == password.encode()


def test_what_is_forbidden_only_before_it_is_normalized_is_taken_as_it_is():
    """Nothing that U+FE70 is normalized to is from right to left, so that by the book it may stand beside an "a"."""
    assert prepare("\ufe70a".encode()) == "\ufe70a".encode()
    assert prepare("\ufe70".encode()) == " \u064b".encode()


@given(st.binary(max_size=20))
def test_any_bytes_are_prepared(password):
    prepared = prepare(password)
    try:
        password.decode()
    except UnicodeDecodeError:
        assert prepared == password
