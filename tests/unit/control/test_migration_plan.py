"""Which migrations are still to be applied, and when to refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.control.catalog.migrate import Applied, Migration, load_migrations, plan_migrations
from lamplighter.control.errors import CatalogDiverged, CatalogTooNew, MigrationChanged

KNOWN = [Migration(number, f"m{number}", f"select {number}".encode()) for number in range(1, 6)]


def applied(*numbers: int) -> list[Applied]:
    return [Applied(m.number, m.name, m.checksum) for m in KNOWN if m.number in numbers]


def test_the_files_are_numbered_from_one_without_a_gap():
    migrations = load_migrations()
    assert [m.number for m in migrations] == list(range(1, len(migrations) + 1))
    assert migrations[0].label == "0001_operations"


@given(st.integers(0, len(KNOWN)))
def test_what_follows_the_applied_ones_is_left(count):
    assert plan_migrations(KNOWN, applied(*range(1, count + 1))) == KNOWN[count:]


@given(st.integers(1, len(KNOWN)))
def test_a_catalog_newer_than_the_code_is_refused(count):
    with pytest.raises(CatalogTooNew, match="start the later version") as caught:
        plan_migrations(KNOWN[: count - 1], applied(*range(1, count + 1)))
    assert (caught.value.found, caught.value.known) == (count, count - 1)


@given(st.integers(1, len(KNOWN)))
def test_a_changed_file_is_refused(number):
    changed = [Migration(m.number, m.name, m.sql + b" ") if m.number == number else m for m in KNOWN]
    with pytest.raises(MigrationChanged, match=f"{number:04}_m{number}"):
        plan_migrations(changed, applied(1, 2, 3, 4, 5))


@given(st.integers(1, len(KNOWN) - 1))
def test_a_gap_in_what_was_applied_is_refused(missing):
    with pytest.raises(CatalogDiverged, match=f"{missing:04}_m{missing}"):
        plan_migrations(KNOWN, applied(*({1, 2, 3, 4, 5} - {missing})))
