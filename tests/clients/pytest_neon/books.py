"""What the parent branch has is on the branch of the tests."""

from __future__ import annotations

import psycopg
import pytest

pytestmark = pytest.mark.usefixtures("visit")


def test_rows_of_the_parent_are_there(neon_connection_psycopg):
    rows = neon_connection_psycopg.execute("select title from books where id <= 3 order by id").fetchall()
    assert rows == [("Emma",), ("Ulysses",), ("Walden",)]


def test_constraints_of_the_parent_hold(neon_connection_psycopg):
    with pytest.raises(psycopg.errors.UniqueViolation):
        neon_connection_psycopg.execute("insert into books (id, title) values (1, 'Emma')")


def test_what_is_not_committed_is_rolled_back(neon_connection_psycopg):
    neon_connection_psycopg.execute("insert into books (id, title) values (1000, 'Nobody')")


@pytest.mark.parametrize("number", [10, 11])
def test_what_is_committed_stays(neon_connection_psycopg, number):
    neon_connection_psycopg.execute("insert into books (id, title) values (%s, 'new')", [number])
    neon_connection_psycopg.commit()
    assert neon_connection_psycopg.execute("select 1 from books where id = %s", [number]).fetchone() == (1,)
