"""The `conftest.py` of a suite as its users write it: migrations, and a note of who did what."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest


@pytest.fixture(scope="session")
def neon_apply_migrations(_neon_test_branch):
    """Once for all workers: the worker that made the branch brings it up to date."""
    branch, is_creator = _neon_test_branch
    if is_creator:
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            connection.execute("create table migrations (worker text, at timestamptz default now())")
            connection.execute("insert into migrations (worker) values (%s)", [os.environ["PYTEST_XDIST_WORKER"]])
            connection.execute("alter table books add column lent boolean not null default false")
            connection.execute("create table visits (worker text not null, test text not null)")
    with Path(os.environ["SUITE_NOTES"]).open("a") as notes:
        notes.write(f"{os.environ['PYTEST_XDIST_WORKER']} {branch.branch_id} {is_creator}\n")


@pytest.fixture
def visit(neon_branch, request):
    """Leaves a row for each test, which all workers see."""
    with psycopg.connect(neon_branch.connection_string) as connection:
        connection.execute(
            "insert into visits values (%s, %s)", [os.environ["PYTEST_XDIST_WORKER"], request.node.nodeid]
        )
