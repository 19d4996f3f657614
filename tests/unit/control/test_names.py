"""Names of roles and databases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.errors import BadRequest
from lamplighter.control.features.names import (
    MAX_BYTES,
    RESERVED_DATABASES,
    RESERVED_ROLES,
    check_database_name,
    check_role_name,
)

CHECKS = pytest.mark.parametrize("check", [check_role_name, check_database_name])
#: Half of a surrogate pair is in it: JSON decoders of other languages let it through.
ANY_TEXT = st.text(st.characters(), max_size=70)


@CHECKS
@given(ANY_TEXT)
def test_any_text_is_given_back_unchanged_or_refused_as_a_bad_request(check, name):
    try:
        accepted = check(name)
    except BadRequest:
        return
    assert accepted == name
    assert 1 <= len(name.encode()) <= MAX_BYTES
    assert name.isprintable()


@CHECKS
@pytest.mark.parametrize(
    "name", ["app", "App User", 'quo"te', "it's", "a-b.c", "naïve", "数据库", "x" * 63, "é" * 31, "-", "a%b", "\\", "/"]
)
def test_a_name_that_postgres_can_hold_is_accepted(check, name):
    assert check(name) == name


@CHECKS
@pytest.mark.parametrize("name", ["x" * 64, "é" * 32, "数" * 22])
def test_the_length_is_counted_in_bytes(check, name):
    with pytest.raises(BadRequest, match=f"has {len(name.encode())}"):
        check(name)


@CHECKS
@pytest.mark.parametrize("name", ["", "\x00", "a\nb", "tab\t", "bell\x07", "\ud800", "rtl\u202e"])
def test_nothing_and_what_cannot_be_printed_is_refused(check, name):
    with pytest.raises(BadRequest):
        check(name)


@given(st.sampled_from(sorted(RESERVED_ROLES)), st.data())
def test_reserved_roles_are_refused_in_any_case(name, data):
    with pytest.raises(BadRequest) as refused:
        check_role_name(data.draw(cases(name)))
    assert refused.value.code == "RESERVED_NAME"


@given(st.sampled_from(sorted(RESERVED_DATABASES)), st.data())
def test_reserved_databases_are_refused_in_any_case(name, data):
    with pytest.raises(BadRequest) as refused:
        check_database_name(data.draw(cases(name)))
    assert refused.value.code == "RESERVED_NAME"


@pytest.mark.parametrize("name", ["pg_monitor", "PG_anything", "pg_"])
def test_postgres_keeps_a_prefix_of_roles_for_itself(name):
    with pytest.raises(BadRequest, match="reserved"):
        check_role_name(name)


@pytest.mark.parametrize("name", ["pg", "pgbouncer", "a_pg_b", "postgres2", "neondb_owner"])
def test_names_near_the_reserved_ones_are_free(name):
    assert check_role_name(name) == name


def test_what_is_reserved_for_a_role_is_free_for_a_database_and_the_other_way_round():
    assert check_database_name("cloud_admin") == "cloud_admin"
    assert check_role_name("template1") == "template1"


@pytest.mark.parametrize(("check", "field"), [(check_role_name, "role_name"), (check_database_name, "database_name")])
def test_the_refusal_names_the_field(check, field):
    with pytest.raises(BadRequest, match=field):
        check("")


def cases(name):
    """`name` with each letter in either case."""
    return st.tuples(*(st.sampled_from([letter.lower(), letter.upper()]) for letter in name)).map("".join)
