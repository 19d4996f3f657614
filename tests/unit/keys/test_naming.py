"""Names of keys: found again by their rotation id, and never longer than Neon takes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.keys.errors import PolicyError
from lamplighter.keys.naming import MAX_NAME, RID_LENGTH, Naming, check_lineage, make_rid

PATTERNS = ("{prefix}.{lineage}.{rid}", "knowledge-engineering-{year}-Q{quarter}", "{lineage} {day}.{month} ({rid})")
TIMES = st.datetimes(timezones=st.just(UTC))


@given(pattern=st.sampled_from(PATTERNS), random=st.binary(min_size=7, max_size=7), at=TIMES)
def test_the_rotation_id_is_found_in_every_name(pattern: str, random: bytes, at: datetime) -> None:
    naming, rid = Naming("ci", pattern=pattern), make_rid(random)
    name = naming.name(rid=rid, at=at)
    assert len(rid) == RID_LENGTH
    assert len(name) <= MAX_NAME
    assert naming.rid_of(name) == rid


def test_a_pattern_without_the_id_gets_it_at_its_end() -> None:
    name = Naming("ci", pattern=PATTERNS[1]).name(rid="abcdefghij", at=datetime(2026, 11, 22, tzinfo=UTC))
    assert name == "knowledge-engineering-2026-Q4.abcdefghij"


@pytest.mark.parametrize(
    "other",
    [
        "lamp.ci2.abcdefghij",
        "lamp.ci.abcdefghi1",
        "lamp.ci.abcdefghijk",
        "xlamp.ci.abcdefghij",
        "lamp.ci.",
        "lampXciXabcdefghij",
    ],
)
def test_names_of_others_are_not_ours(other: str) -> None:
    assert Naming("ci").rid_of(other) is None


@pytest.mark.parametrize(
    "pattern",
    ["{who}", "{rid", "rid}", "{rid}{rid}", "{}", "x" * 60, "a\nb", "{rid!r}", "{year:}"],
)
def test_a_pattern_that_cannot_be_meant_is_refused(pattern: str) -> None:
    with pytest.raises(PolicyError):
        Naming("ci", pattern=pattern)


@pytest.mark.parametrize("lineage", ["", "CI", "a.b", "-a", "a-", "a" * 41, "a b", "ä"])
def test_a_lineage_has_a_plain_name(lineage: str) -> None:
    with pytest.raises(PolicyError):
        check_lineage(lineage)


def test_the_longest_parts_do_not_fit_together() -> None:
    """20 for the prefix, 40 for the lineage and the id are more than 64."""
    with pytest.raises(PolicyError, match="64"):
        Naming("a" * 40, prefix="b" * 20)
