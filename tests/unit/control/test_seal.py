"""Passwords at rest."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.control.errors import SealBroken
from lamplighter.control.seal import NONCE, Sealer

KEY, OTHER = bytes(32), bytes(31) + b"\1"
OWNER = "br-a/app"

texts = st.text(max_size=60)


@given(texts, texts)
def test_what_was_sealed_opens_for_its_owner(text, owner):
    sealed = Sealer(KEY).seal(text, belongs_to=owner)
    assert Sealer(KEY).open(sealed, belongs_to=owner) == text


@given(texts, texts, texts)
def test_it_opens_for_no_other_owner(text, owner, other):
    sealed = Sealer(KEY).seal(text, belongs_to=owner)
    if owner != other:
        with pytest.raises(SealBroken) as broken:
            Sealer(KEY).open(sealed, belongs_to=other)
        assert broken.value.belongs_to == other


def test_it_does_not_open_with_another_key():
    sealed = Sealer(KEY).seal("secret", belongs_to=OWNER)
    with pytest.raises(SealBroken, match="restore it from a backup"):
        Sealer(OTHER).open(sealed, belongs_to=OWNER)


@given(st.integers(0, 200))
def test_a_changed_bit_anywhere_is_noticed(place):
    sealed = bytearray(Sealer(KEY).seal("npg_0123456789", belongs_to=OWNER))
    sealed[place % len(sealed)] ^= 1 << place % 8
    with pytest.raises(SealBroken):
        Sealer(KEY).open(bytes(sealed), belongs_to=OWNER)


def test_a_truncated_one_does_not_open():
    sealed = Sealer(KEY).seal("npg_0123456789", belongs_to=OWNER)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            Sealer(KEY).open(sealed[:length], belongs_to=OWNER)


@given(st.binary(max_size=60))
def test_any_bytes_that_were_not_sealed_do_not_open(raw):
    with pytest.raises(SealBroken):
        Sealer(KEY).open(raw, belongs_to=OWNER)


def test_the_same_text_is_never_sealed_the_same_way_and_does_not_show():
    sealed = {Sealer(KEY).seal("npg_0123456789", belongs_to=OWNER) for _ in range(100)}
    assert len({one[:NONCE] for one in sealed}) == 100
    assert not any(b"npg_" in one for one in sealed)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_a_new_key_file_is_for_its_owner_alone_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        Sealer.from_file(tmp_path / "seal.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "seal.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["seal.key"]


def test_a_key_file_is_made_once_and_read_from_then_on(tmp_path):
    path = tmp_path / "seal.key"
    sealed = Sealer.from_file(path).seal("secret", belongs_to=OWNER)
    key = path.read_bytes()
    assert len(key) == 32
    assert Sealer.from_file(path).open(sealed, belongs_to=OWNER) == "secret"
    assert path.read_bytes() == key


def test_two_platforms_have_different_keys(tmp_path):
    for name in ("one", "two"):
        Sealer.from_file(tmp_path / name)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()
