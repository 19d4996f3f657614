"""Verifiers as Postgres stores them. That they let people in is shown with a real login elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute import scram


def test_the_verifier_of_a_known_exchange():
    """The example of RFC 7677: from its verifier follows its proof."""
    made = scram.verifier("pencil", b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81", iterations=4096)
    assert made == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), st.binary(min_size=16, max_size=16))
def test_a_password_matches_its_own_verifier_only(password, salt):
    stored = scram.verifier(password, salt, iterations=2)
    assert scram.matches(password, stored)
    assert not scram.matches(password + "x", stored)


@pytest.mark.parametrize("stored", ["", "md5abc", "SCRAM-SHA-256$x:y$z", "SCRAM-SHA-1$2:AAAA$a:b", "$$", "a$1:%%$b"])
def test_what_is_no_verifier_matches_nothing(stored):
    assert not scram.matches("x", stored)


def test_passwords_are_prepared_as_libpq_prepares_them():
    """RFC 4013: spaces become one kind, invisible characters go, compatibility forms are composed."""
    salt = bytes(16)
    assert scram.verifier("I\u00adX", salt) == scram.verifier("IX", salt)
    assert scram.verifier("\u2168", salt) == scram.verifier("IX", salt)
    assert scram.verifier("a\u00a0b", salt) == scram.verifier("a b", salt)
    # Forbidden, so used as it is.
    assert scram.verifier("\u0007", salt) != scram.verifier("", salt)
    assert scram.verifier("\u06271", salt) == scram.verifier("\u06271", salt)
