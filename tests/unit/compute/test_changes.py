"""Planning changes: what is there already is left alone, what is reserved is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute import scram
from lamplighter.compute.changes import (
    NEON_SUPERUSER,
    DatabaseState,
    RoleState,
    State,
    heir,
    is_reserved_role,
    parse_state,
    plan,
)
from lamplighter.compute.errors import ReservedName
from lamplighter.compute.ports import Changes, DatabaseSpec, RoleSpec

EMPTY = State(17, {NEON_SUPERUSER: RoleState(complete=False)}, {})


def salt() -> bytes:
    return bytes(16)


def statements(state, changes):
    steps = plan(state, changes, salt)
    return [statement.as_string(None) for statement in (*steps.together, *steps.singly)]


def test_a_new_role_gets_a_verifier_and_never_its_password():
    (statement,) = statements(EMPTY, Changes(roles=(RoleSpec('o"dd', "s3cret"),)))
    assert statement.startswith('CREATE ROLE "o""dd" LOGIN')
    assert "s3cret" not in statement
    assert scram.verifier("s3cret", salt()) in statement
    assert statement.endswith('IN ROLE "neon_superuser"')


def test_what_is_there_costs_no_statement():
    stored = scram.verifier("s3cret", b"x" * 16)
    state = State(
        17,
        {NEON_SUPERUSER: RoleState(complete=False), "a": RoleState(complete=True, verifier=stored)},
        {"app": DatabaseState("a")},
    )
    changes = Changes(
        roles=(RoleSpec("a", "s3cret"), RoleSpec("a", None)),
        databases=(DatabaseSpec("app", "a", was="neondb"),),
        drop_databases=("gone",),
        drop_roles=("gone",),
    )
    assert statements(state, changes) == []
    steps = plan(state, changes, salt)
    assert (steps.drop_databases, steps.drop_roles) == ((), ())
    (changed,) = statements(state, Changes(roles=(RoleSpec("a", "other"),)))
    assert changed.startswith('ALTER ROLE "a"')


def test_a_renamed_database_keeps_being_renamed_once():
    changes = Changes(databases=(DatabaseSpec("app", "a", was="neondb"),))
    before = State(17, EMPTY.roles, {"neondb": DatabaseState("cloud_admin")})
    assert [each.split(" ")[0:3] for each in statements(before, changes)][1:] == [
        ["ALTER", "DATABASE", '"neondb"'],
        ["ALTER", "DATABASE", '"app"'],
        ["GRANT", "ALL", "ON"],
    ]
    both = State(17, EMPTY.roles, {"neondb": DatabaseState("b"), "app": DatabaseState("a")})
    assert statements(both, changes) == []


@given(st.text(min_size=1, max_size=20), st.booleans(), st.text(max_size=20))
def test_a_superuser_never_inherits(role, owner_is_superuser, owner):
    found = heir(role, owner, owner_is_superuser=owner_is_superuser)
    assert found != role or role == NEON_SUPERUSER
    assert found == NEON_SUPERUSER if owner_is_superuser or owner == role else found == owner


@pytest.mark.parametrize("name", ["cloud_admin", "neon_superuser", "pg_monitor", "public", "none"])
def test_reserved_roles(name):
    assert is_reserved_role(name)
    with pytest.raises(ReservedName):
        plan(EMPTY, Changes(drop_roles=(name,)), salt)


def test_a_cluster_without_neon_superuser_gets_it():
    first, *_ = statements(State(16, {}, {}), Changes(roles=(RoleSpec("a", None),)))
    assert first.startswith("CREATE ROLE")
    assert "neon_superuser" in first
    assert "NOLOGIN" in first


def test_the_state_is_parsed():
    state = parse_state(
        {
            "version": "170011",
            "roles": [{"name": "a", "complete": True, "verifier": None}],
            "databases": [{"name": "app", "owner": "a", "template": False}],
        }
    )
    assert state == State(17, {"a": RoleState(complete=True)}, {"app": DatabaseState("a")})
