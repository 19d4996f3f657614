"""Logical replication is the project's switch: who asked for it gets it, nobody else does."""

from __future__ import annotations

import psycopg
import pytest

from support.lamp import Lamp, sql, uri_of, wait_for


def replicates(uri: str) -> bool:
    """Whether a replication connection to the database is let in."""
    try:
        with psycopg.connect(f"{uri}&replication=database", autocommit=True):
            return True
    except psycopg.OperationalError as error:
        if "WAL sender" in str(error):
            return False
        raise


def test_roles_replicate_once_the_project_has_it_enabled(lamp: Lamp):
    made = lamp.project()
    project_id, uri = made["project"]["id"], uri_of(made)
    assert sql(uri, "show wal_level") == [("replica",)]
    assert not replicates(uri)

    changed = lamp.call(
        "PATCH", f"/projects/{project_id}", {"project": {"settings": {"enable_logical_replication": True}}}
    )
    assert [one["action"] for one in changed["operations"]] == ["apply_config"]
    lamp.settle(project_id)
    wait_for(lambda: sql(uri, "show wal_level") == [("logical",)], what="the new WAL level")
    assert replicates(uri)

    branch = lamp.branch(project_id, "child")
    assert replicates(uri_of(branch))
    with pytest.raises(AssertionError, match="400"):
        lamp.call("PATCH", f"/projects/{project_id}", {"project": {"settings": {"enable_logical_replication": False}}})
    lamp.call("DELETE", f"/projects/{project_id}")
