"""What is said to initdb and to a fresh cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamplighter.compute.template import initdb_arguments, seed_statements

MAJORS = (14, 15, 16, 17, 18)


@pytest.mark.parametrize("major", MAJORS)
def test_statements_can_be_fed_to_single_user_mode(major: int) -> None:
    """A statement there ends at a semicolon with an empty line, so none may hold one."""
    assert all(";" not in statement and "\n" not in statement for statement in seed_statements(major))


@pytest.mark.parametrize("major", MAJORS)
def test_before_16_the_roles_that_reach_the_host_cannot_be_granted(major: int) -> None:
    closed = [statement for statement in seed_statements(major) if "pg_execute_server_program" in statement]
    assert bool(closed) == (major < 16)


@pytest.mark.parametrize("major", MAJORS)
def test_subscriptions_are_granted_where_users_may_have_them(major: int) -> None:
    """The role came with 16, and is withheld where libpq would write files for its members."""
    assert ("pg_create_subscription" in " ".join(seed_statements(major))) == (major >= 16)
    assert "pg_create_subscription" not in " ".join(seed_statements(major, subscriptions=False))


@pytest.mark.parametrize("major", MAJORS)
def test_the_collation_never_depends_on_the_c_library(major: int) -> None:
    arguments = initdb_arguments(major, Path("/data"))
    assert ("--locale-provider=builtin" in arguments) == (major >= 17)
    assert "--data-checksums" in arguments
    assert arguments[arguments.index("--locale") + 1] == "C.UTF-8"
