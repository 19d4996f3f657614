"""What a platform must stand: many requests at once, changes that Postgres refuses, another platform's catalog."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import psycopg

from support.lamp import Lamp, sql, temporary_lamp, uri_of, wait_for


def test_projects_made_at_once_all_succeed(lamp: Lamp):
    """Ten requests choose ten ports, ids and names without getting into each other's way."""
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda n: lamp.request("POST", "/projects", {"project": {"name": f"p{n}"}}), range(10)))
    assert [reply.status_code for reply in replies] == [201] * 10
    made = [reply.json() for reply in replies]
    assert len({one["endpoints"][0]["host"] for one in made}) == 10
    for one in made:
        lamp.settle(one["project"]["id"])
    assert sql(uri_of(made[-1]), "select 1") == [(1,)]
    for one in made:
        lamp.call("DELETE", f"/projects/{one['project']['id']}")


def test_a_change_that_postgres_refuses_is_withdrawn(lamp: Lamp):
    """A database that somebody made by SQL is not taken over, and the API lists what there is."""
    made = lamp.project()
    project_id, branch_id = made["project"]["id"], made["branch"]["id"]
    place = f"/projects/{project_id}/branches/{branch_id}/databases"
    sql(uri_of(made), "create table kept ()")
    sql(uri_of(made), "create database foo")
    lamp.call("PATCH", f"{place}/neondb", {"database": {"name": "foo"}})
    operations = lamp.settle(project_id)
    assert operations[0]["status"] == "failed"
    assert "foo" in operations[0]["error"]
    assert [one["name"] for one in lamp.call("GET", place)["databases"]] == ["neondb"]
    assert sql(uri_of(made), "select count(*) from kept") == [(0,)]
    lamp.call("DELETE", f"/projects/{project_id}")


def test_a_rename_moves_the_data(lamp: Lamp):
    made = lamp.project()
    project_id, branch_id = made["project"]["id"], made["branch"]["id"]
    place = f"/projects/{project_id}/branches/{branch_id}/databases"
    sql(uri_of(made), "create table kept ()")
    lamp.call("PATCH", f"{place}/neondb", {"database": {"name": "renamed"}})
    assert lamp.settle(project_id)[0]["status"] == "finished"
    assert sql(uri_of(made).replace("/neondb?", "/renamed?"), "select count(*) from kept") == [(0,)]
    lamp.call("DELETE", f"/projects/{project_id}")


def test_another_catalog_is_refused_and_nothing_is_removed(lamp: Lamp):
    """An empty catalog knows of no branch: a platform that believed it would remove them all."""
    empty = lamp.project()
    with temporary_lamp() as platform:
        made = platform.project()
        sql(uri_of(made), "create table kept ()")
        platform.stop()
        command = [*platform.command(), "--catalog-url", uri_of(empty)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert "the catalog is not that of" in ended.stderr
        platform.start()
        wait_for(lambda: answers(uri_of(made)), what="the branch")
        assert sql(uri_of(made), "select count(*) from kept") == [(0,)]


def test_a_catalog_of_the_operators_own(lamp: Lamp):
    """The catalog may live in any Postgres; the platform then runs none for itself, and finds it again."""
    catalog = uri_of(lamp.project())
    with temporary_lamp(options=("--catalog-url", catalog)) as platform:
        made = platform.project()
        platform.stop()
        platform.start()
        assert platform.call("GET", f"/projects/{made['project']['id']}")["project"]["name"]
        wait_for(lambda: answers(uri_of(made)), what="the branch")
        assert sql(catalog, "select count(*) from projects") == [(2,)]


def answers(uri: str) -> bool:
    try:
        return sql(uri, "select 1") == [(1,)]
    except psycopg.OperationalError:
        return False
