"""Names of WAL files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute.backup import first_wal_file, parse_lsn, wal_file

MB16 = 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("lsn", "name"),
    [
        ("0/1000001", "000000010000000000000001"),
        ("0/2000000", "000000010000000000000001"),
        ("0/2000001", "000000010000000000000002"),
        ("1/1", "000000010000000100000000"),
        ("1/0", "0000000100000000000000FF"),
        ("16/B374D848", "0000000100000016000000B3"),
    ],
)
def test_known_names(lsn, name):
    assert wal_file(1, parse_lsn(lsn), MB16) == name


@given(st.integers(1, 2**63), st.sampled_from([2**power for power in range(20, 31)]))
def test_names_grow_with_positions(lsn, size):
    assert wal_file(1, lsn, size) <= wal_file(1, lsn + 1, size) <= wal_file(1, lsn + size, size)


def test_the_first_file_is_read_from_the_label():
    label = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"
    assert first_wal_file(label) == "000000010000000000000002"
    with pytest.raises(ValueError, match="LABEL"):
        first_wal_file(b"LABEL: x\n")
