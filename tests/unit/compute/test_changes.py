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
    neon_superuser_statements,
    parse_state,
    plan,
)
from lamplighter.compute.errors import ChangeFailed, ReservedName, is_permanent
from lamplighter.compute.ports import Changes, DatabaseSpec, RoleSpec
from lamplighter.compute.template import seed_statements

EMPTY = State(17, {NEON_SUPERUSER: RoleState(complete=False)}, {})


def salt() -> bytes:
    return bytes(16)


def statements(state, changes):
    steps = plan(state, changes, salt)
    return [statement.as_string(None) for statement in (*steps.together, *steps.singly)]


def test_a_new_role_gets_a_verifier_and_never_its_password():
    statement, mark = statements(EMPTY, Changes(roles=(RoleSpec('o"dd', "s3cret"),)))
    assert mark == """COMMENT ON ROLE "o""dd" IS 'Made by Lamplighter'"""
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
    after = State(17, EMPTY.roles, {"app": DatabaseState("a")})
    assert statements(after, changes) == []


def test_a_renaming_takes_no_database_that_users_made():
    both = State(17, EMPTY.roles, {"neondb": DatabaseState("b"), "app": DatabaseState("a")})
    with pytest.raises(ChangeFailed, match="exists already, made by SQL") as caught:
        plan(both, Changes(databases=(DatabaseSpec("app", "a", was="neondb"),)), salt)
    assert caught.value.permanent


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_renamings_wait_for_the_names_that_others_free(order):
    specs = (DatabaseSpec("b", "o", was="a"), DatabaseSpec("c", "o", was="b"), DatabaseSpec("a", "o", new=True))
    state = State(17, EMPTY.roles, {"a": DatabaseState("o"), "b": DatabaseState("o")})
    said = statements(state, Changes(databases=tuple(specs[at] for at in order)))
    assert [each for each in said if each.startswith(("ALTER", "CREATE"))] == [
        'ALTER DATABASE "b" RENAME TO "c"',
        'ALTER DATABASE "a" RENAME TO "b"',
        'CREATE DATABASE "a" OWNER "o" TEMPLATE template1',
    ]


def test_names_in_a_circle_are_refused():
    specs = (DatabaseSpec("b", "o", was="a"), DatabaseSpec("a", "o", was="b"))
    with pytest.raises(ChangeFailed):
        plan(State(17, EMPTY.roles, {"a": DatabaseState("o"), "b": DatabaseState("o")}), Changes(databases=specs), salt)


def test_a_new_database_is_the_platforms_or_its_owners_and_no_one_elses():
    changes = Changes(databases=(DatabaseSpec("app", "a", was="app", new=True),))
    for owner, expected in (("a", 0), ("cloud_admin", 2)):
        assert len(statements(State(17, EMPTY.roles, {"app": DatabaseState(owner)}), changes)) == expected
    taken = State(17, EMPTY.roles, {"app": DatabaseState("b")})
    with pytest.raises(ChangeFailed, match='"app"'):
        plan(taken, changes, salt)
    # An owner is changed in the same way, but of what is not new.
    assert statements(taken, Changes(databases=(DatabaseSpec("app", "a"),)))


def test_a_new_role_is_not_one_that_users_made():
    """Even with the same attributes: whoever made it knows its password, or is in it."""
    by_sql = State(17, {**EMPTY.roles, "a": RoleState(complete=True)}, {})
    with pytest.raises(ChangeFailed, match="made by SQL") as caught:
        plan(by_sql, Changes(roles=(RoleSpec("a", None, new=True),)), salt)
    assert caught.value.permanent
    ours = State(17, {**EMPTY.roles, "a": RoleState(complete=True, marked=True)}, {})
    assert statements(ours, Changes(roles=(RoleSpec("a", None, new=True),))) == []


@pytest.mark.parametrize("major", [14, 15, 16, 17, 18])
def test_the_template_and_a_cluster_without_neon_superuser_get_the_same(major):
    made = statements(State(major, {}, {}), Changes(roles=(RoleSpec("a", None),)))
    wanted = neon_superuser_statements(major, subscriptions=False)
    assert tuple(made[: len(wanted)]) == wanted
    assert set(wanted) <= set(seed_statements(major, subscriptions=False))
    assert ("pg_execute_server_program" in " ".join(wanted)) == (major < 16)


@given(st.text(min_size=1, max_size=20), st.booleans(), st.text(max_size=20))
def test_a_superuser_never_inherits(role, owner_is_superuser, owner):
    found = heir(role, owner, owner_is_superuser=owner_is_superuser)
    assert found != role or role == NEON_SUPERUSER
    assert found == NEON_SUPERUSER if owner_is_superuser or owner == role else found == owner


@pytest.mark.parametrize(
    "name", ["cloud_admin", "cloud_copier", "postgres", "neon_superuser", "pg_monitor", "public", "none"]
)
def test_reserved_roles(name):
    assert is_reserved_role(name)
    with pytest.raises(ReservedName):
        plan(EMPTY, Changes(drop_roles=(name,)), salt)


def test_postgres_tells_letter_case_and_so_do_we():
    assert not is_reserved_role("Postgres")


@pytest.mark.parametrize(
    ("sqlstate", "permanent"),
    [
        *(("42704", True), ("3D000", True), ("23505", True), ("55P03", False), ("57014", False), ("53300", False)),
        *(("40001", False), (None, False), ("XX000", False)),
    ],
)
def test_what_another_attempt_may_mend(sqlstate, permanent):
    assert is_permanent(sqlstate) == permanent


def test_a_cluster_without_neon_superuser_gets_it():
    first, *_ = statements(State(16, {}, {}), Changes(roles=(RoleSpec("a", None),)))
    assert first.startswith("CREATE ROLE")
    assert "neon_superuser" in first
    assert "NOLOGIN" in first


def test_the_state_is_parsed():
    state = parse_state(
        {
            "version": "170011",
            "roles": [{"name": "a", "complete": True, "verifier": None, "marked": True, "replication": True}],
            "databases": [{"name": "app", "owner": "a", "template": False}],
        }
    )
    assert state == State(
        17, {"a": RoleState(complete=True, marked=True, replication=True)}, {"app": DatabaseState("a")}
    )
