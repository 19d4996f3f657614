"""Migrations have run, once."""

from __future__ import annotations

import os

import psycopg
import pytest

pytestmark = pytest.mark.usefixtures("visit")


def test_the_migrated_column_is_there(neon_connection_psycopg):
    found = neon_connection_psycopg.execute("select count(*) from books where not lent and id <= 3").fetchone()
    assert found == (3,)


def test_migrations_ran_once(neon_connection_psycopg):
    assert neon_connection_psycopg.execute("select count(*) from migrations").fetchone() == (1,)


@pytest.mark.parametrize("book", [20, 21])
def test_a_transaction(neon_branch, book):
    with psycopg.connect(neon_branch.connection_string) as connection:
        with connection.transaction():
            connection.execute("insert into books (id, title, lent) values (%s, 'lent', true)", [book])
        assert connection.execute("select lent from books where id = %s", [book]).fetchone() == (True,)


def test_the_environment_names_the_branch(neon_branch):
    assert os.environ["DATABASE_URL"] == neon_branch.connection_string
