"""Control files, and the allow-list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute.extensions import ALLOWED_EXTENSIONS
from lamplighter.compute.providers.control_files import parse_control, parse_values, with_trusted

PGCRYPTO = """\
# pgcrypto extension
comment = 'cryptographic functions, it''s # not a comment'
default_version = '1.3'   # the newest
module_pathname = '$libdir/pgcrypto'
relocatable = true
trusted = true
"""

names = st.sampled_from(["comment", "default_version", "module_pathname", "relocatable", "schema", "requires"])
values = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)
comments = st.sampled_from(["", "# a comment", "#trusted = true", "   "])
trusted_lines = st.sampled_from(
    ["trusted = true", "trusted = false", "trusted='true'", "trusted on  # x", "trusted = no"]
)


def quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


@st.composite
def control_files(draw: st.DrawFn) -> str:
    lines = [f"{name} = {quoted(value)}" for name, value in draw(st.dictionaries(names, values)).items()]
    lines += draw(st.lists(comments, max_size=3)) + draw(st.lists(trusted_lines, max_size=2))
    return "\n".join(draw(st.permutations(lines))) + "\n"


def test_a_real_control_file() -> None:
    control = parse_control(PGCRYPTO)
    assert (control.version, control.module, control.trusted, control.superuser) == ("1.3", "pgcrypto", True, True)
    assert parse_values(PGCRYPTO)["comment"] == "cryptographic functions, it's # not a comment"


def test_what_a_control_file_does_not_say() -> None:
    control = parse_control("requires = 'cube, plpgsql'\nsuperuser = off\n")
    assert (control.version, control.module, control.trusted, control.superuser) == (None, None, False, False)
    assert control.requires == ("cube", "plpgsql")


@given(st.dictionaries(names, values))
def test_values_are_read_back(settings: dict[str, str]) -> None:
    assert parse_values("".join(f"{name} = {quoted(value)}\n" for name, value in settings.items())) == settings


@given(control_files(), st.booleans())
def test_trust_is_set_and_nothing_else_changes(text: str, trusted: bool) -> None:
    """Whatever the file said before, it says what was asked for, and every other setting stays."""
    changed = with_trusted(text, trusted=trusted)
    assert parse_control(changed).trusted == trusted
    before, after = parse_values(text), parse_values(changed)
    before.pop("trusted", None)
    after.pop("trusted", None)
    assert before == after


@given(control_files(), st.booleans())
def test_setting_trust_again_changes_nothing(text: str, trusted: bool) -> None:
    once = with_trusted(text, trusted=trusted)
    assert with_trusted(once, trusted=trusted) == once


@pytest.mark.parametrize(
    "name",
    [
        *("file_fdw", "adminpack", "pageinspect", "pg_surgery", "pg_walinspect", "pg_visibility", "old_snapshot"),
        *("plpython3u", "plperlu", "pltclu", "hstore_plpython3u", "xml2"),
    ],
)
def test_what_reaches_the_host_is_not_on_the_list(name: str) -> None:
    assert name not in ALLOWED_EXTENSIONS


@pytest.mark.parametrize("name", ["vector", "pgcrypto", "uuid-ossp", "citext", "hstore", "pg_trgm", "postgres_fdw"])
def test_what_migrations_ask_for_is_on_the_list(name: str) -> None:
    assert name in ALLOWED_EXTENSIONS
