"""Reading what pg_dump and pg_restore write, and giving objects to their owners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute.copier import first_error, owner_statements, passes, split_list

LISTED = """;
; Archive created at 2026-01-01
;     dbname: app
6; 2615 16390 SCHEMA - s app_owner
2; 3079 16400 EXTENSION - pgcrypto
3400; 0 0 COMMENT - EXTENSION pgcrypto
215; 1259 16386 TABLE public ACL  app_owner
216; 1259 16387 TABLE public SCHEMA - x app_owner
3300; 0 0 COMMENT public TABLE t app_owner
3401; 0 0 ACL public TABLE t app_owner
3402; 826 16999 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES app_owner
3100; 6100 16888 SUBSCRIPTION - s app_owner
3101; 3466 16889 EVENT TRIGGER - e cloud_admin
"""


def test_the_list_is_sorted_by_kind_and_not_by_names():
    contents = split_list(LISTED)
    assert [line.split(";")[0] for line in contents.schemas] == ["6"]
    assert [line.split(";")[0] for line in contents.rest] == ["215", "216", "3300"]
    assert [line.split(";")[0] for line in contents.rights] == ["3401", "3402"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40))
def test_no_name_of_a_table_makes_it_something_else(name):
    line = f"215; 1259 16386 TABLE public {name} app_owner"
    assert split_list(line).rest == (line,)


def test_only_what_the_copier_made_changes_its_owner():
    source = [("table", 'public."a{}%s"', "o"), ("aggregate", "public.f()", 'q"x'), ("extension", "cube", "o")]
    target = [
        ("table", 'public."a{}%s"', "cloud_copier"),
        ("aggregate", "public.f()", "cloud_copier"),
        ("extension", "cube", "cloud_copier"),
        ("table", "public.gone", "cloud_copier"),
    ]
    assert [each.as_string(None) for each in owner_statements(source, target)] == [
        'ALTER TABLE public."a{}%s" OWNER TO "o"',
        'ALTER ROUTINE public.f() OWNER TO "q""x"',
    ]
    assert owner_statements(source, [("table", 'public."a{}%s"', "o")]) == []


def test_the_first_error_is_shown():
    said = (
        "pg_restore: warning: something\n"
        "pg_restore: error: could not execute query: ERROR:  permission denied\n"
        "Command was: CREATE TABLE t ()\n"
    )
    assert first_error(said) == "pg_restore: error: could not execute query: ERROR:  permission denied"
    assert first_error("only this\n") == "only this"
    assert first_error("") == ""


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ("pg_dump: error: connection to server on socket failed", True),
        ("ERROR:  canceling statement due to lock timeout", True),
        ("ERROR:  syntax error", False),
        ("ERROR:  permission denied for table t", False),
    ],
)
def test_whether_it_may_pass(said, again):
    assert passes(said) == again
