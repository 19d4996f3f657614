"""What the endpoints of the API are as Postgres processes: states, sizes, settings, standbys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.lamp import Lamp, sql, uri_of, wait_for
from support.tidy import only_for_now


@pytest.fixture(autouse=True)
def tidy(lamp: Lamp) -> Iterator[None]:
    with only_for_now(lamp):
        yield


@pytest.fixture
def made(lamp: Lamp) -> Any:
    """The answer to the creation of a new project, which is ready."""
    return lamp.project()


@pytest.fixture
def project(made: Any) -> str:
    return f"/projects/{made['project']['id']}"


@pytest.fixture
def endpoint(project: str, made: Any) -> str:
    return f"{project}/endpoints/{made['endpoints'][0]['id']}"


def change(lamp: Lamp, method: str, path: str, body: Any = None) -> Any:
    """A request, and the end of the operations that it starts."""
    answer = lamp.call(method, path, body)
    operations = lamp.settle(path.split("/")[2])
    assert [one.get("error") for one in operations if one["status"] not in ("finished", "skipped")] == []
    return answer


def actions(answer: Any) -> list[tuple[str, str]]:
    return [(one["action"], one["status"]) for one in answer["operations"]]


def state(lamp: Lamp, endpoint: str) -> str:
    found = lamp.call("GET", endpoint)["endpoint"]
    assert "pending_state" not in found
    return str(found["current_state"])


def at(connection_uri: str, host: str) -> str:
    """The same connection string for another endpoint."""
    before = connection_uri.partition("@")[2].partition("/")[0]
    return connection_uri.replace(before, host)


def setting(connection_uri: str, name: str) -> str:
    return str(sql(connection_uri, "select current_setting(%s)", name)[0][0])


def test_suspend_and_start(lamp: Lamp, made: Any, endpoint: str):
    """A suspended compute is no process, and has all its data when it is back; doing either twice does nothing."""
    sql(uri_of(made), "create table bread as select 'rye' as name")
    assert state(lamp, endpoint) == "active"
    answer = change(lamp, "POST", f"{endpoint}/suspend")
    assert actions(answer) == [("suspend_compute", "running")]
    assert answer["endpoint"]["pending_state"] == "idle"
    assert state(lamp, endpoint) == "idle"
    assert lamp.call("GET", endpoint)["endpoint"]["suspended_at"]
    assert not [pid for pid in lamp.postmasters() if made["branch"]["id"] in Path(f"/proc/{pid}/cmdline").read_text()]
    assert actions(change(lamp, "POST", f"{endpoint}/suspend")) == []
    answer = change(lamp, "POST", f"{endpoint}/start")
    assert actions(answer) == [("start_compute", "running")]
    assert answer["endpoint"]["pending_state"] == "active"
    assert state(lamp, endpoint) == "active"
    found = lamp.call("GET", endpoint)["endpoint"]
    assert "suspended_at" not in found
    assert found["started_at"] == found["last_active"]
    assert sql(uri_of(made), "select name from bread") == [("rye",)]
    assert actions(change(lamp, "POST", f"{endpoint}/start")) == []


def test_restart(lamp: Lamp, made: Any, endpoint: str):
    """Another postmaster at the same address."""
    started = "select pg_postmaster_start_time()"
    before = sql(uri_of(made), started)
    answer = change(lamp, "POST", f"{endpoint}/restart")
    assert actions(answer) == [("suspend_compute", "running"), ("start_compute", "running")]
    assert state(lamp, endpoint) == "active"
    assert sql(uri_of(made), started) > before


def test_a_restart_starts_what_sleeps(lamp: Lamp, made: Any, endpoint: str):
    change(lamp, "POST", f"{endpoint}/suspend")
    change(lamp, "POST", f"{endpoint}/restart")
    assert sql(uri_of(made), "select 1") == [(1,)]


def test_another_size_takes_effect(lamp: Lamp, made: Any, endpoint: str):
    """A compute that runs is restarted with it, and nothing is lost."""
    sql(uri_of(made), "create table bread as select 'rye' as name")
    names = ("shared_buffers", "max_connections", "effective_cache_size")
    before = [setting(uri_of(made), name) for name in names]
    body = {"endpoint": {"autoscaling_limit_min_cu": 0.5, "autoscaling_limit_max_cu": 1}}
    answer = change(lamp, "PATCH", endpoint, body)
    assert actions(answer) == [("apply_config", "running")]
    after = [setting(uri_of(made), name) for name in names]
    assert all(old != new for old, new in zip(before, after, strict=True))
    found = lamp.call("GET", endpoint)["endpoint"]
    assert (found["autoscaling_limit_min_cu"], found["autoscaling_limit_max_cu"]) == (0.5, 1)
    assert sql(uri_of(made), "select name from bread") == [("rye",)]


def test_settings_take_effect(lamp: Lamp, made: Any, endpoint: str):
    """Those that are given; the rest is ours, and so are durability and access."""
    body = {"endpoint": {"settings": {"pg_settings": {"work_mem": "7MB", "default_statistics_target": "321"}}}}
    change(lamp, "PATCH", endpoint, body)
    assert setting(uri_of(made), "work_mem") == "7MB"
    assert setting(uri_of(made), "default_statistics_target") == "321"
    assert lamp.call("GET", endpoint)["endpoint"]["settings"] == body["endpoint"]["settings"]
    assert setting(uri_of(made), "fsync") == "on"
    for refused in ({"fsync": "off"}, {"work_mem": "plenty"}, {"no_such_setting": "1"}, {"hba_file": "/etc/passwd"}):
        answer = lamp.request("PATCH", endpoint, {"endpoint": {"settings": {"pg_settings": refused}}})
        assert answer.status_code == 400
        assert next(iter(refused)) in answer.json()["message"]
    assert setting(uri_of(made), "work_mem") == "7MB"
    # What was asked for is kept through sleep.
    change(lamp, "POST", f"{endpoint}/restart")
    assert setting(uri_of(made), "work_mem") == "7MB"


def test_a_change_that_postgres_need_not_know_of_restarts_nothing(lamp: Lamp, made: Any, endpoint: str):
    with psycopg.connect(uri_of(made)) as session:
        body = {"endpoint": {"name": "the oven", "suspend_timeout_seconds": 600}}
        answer = change(lamp, "PATCH", endpoint, body)
        assert answer["operations"] == []
        assert session.execute("select 1").fetchone() == (1,)
    found = lamp.call("GET", endpoint)["endpoint"]
    assert (found["name"], found["suspend_timeout_seconds"]) == ("the oven", 600)


def test_a_project_gives_its_endpoints_their_defaults(lamp: Lamp):
    defaults = {"autoscaling_limit_min_cu": 0.5, "autoscaling_limit_max_cu": 0.5, "pg_settings": {"work_mem": "9MB"}}
    made = lamp.project(default_endpoint_settings=defaults)
    assert setting(uri_of(made), "work_mem") == "9MB"
    assert made["endpoints"][0]["autoscaling_limit_max_cu"] == 0.5
    dev = lamp.branch(made["project"]["id"], "dev")
    assert setting(uri_of(dev), "work_mem") == "9MB"


def test_a_disabled_endpoint_does_not_start(lamp: Lamp, made: Any, endpoint: str):
    change(lamp, "PATCH", endpoint, {"endpoint": {"disabled": True}})
    assert state(lamp, endpoint) == "idle"
    for verb in ("start", "restart"):
        answer = lamp.request("POST", f"{endpoint}/{verb}")
        assert (answer.status_code, answer.json()["message"]) == (422, "endpoint is disabled; enable it first")
    change(lamp, "PATCH", endpoint, {"endpoint": {"disabled": False}})
    change(lamp, "POST", f"{endpoint}/start")
    assert sql(uri_of(made), "select 1") == [(1,)]


def test_a_branch_without_its_endpoint_gets_another(lamp: Lamp, made: Any, project: str, endpoint: str):
    """The data belongs to the branch."""
    sql(uri_of(made), "create table bread as select 'rye' as name")
    assert actions(change(lamp, "DELETE", endpoint)) == [("suspend_compute", "running")]
    assert lamp.request("GET", endpoint).status_code == 404
    assert lamp.call("GET", f"{project}/endpoints")["endpoints"] == []
    with pytest.raises(psycopg.OperationalError):
        sql(uri_of(made), "select 1")
    body = {"endpoint": {"branch_id": made["branch"]["id"], "type": "read_write"}}
    answer = change(lamp, "POST", f"{project}/endpoints", body)
    assert answer["endpoint"]["id"] != made["endpoints"][0]["id"]
    assert sql(at(uri_of(made), answer["endpoint"]["host"]), "select name from bread") == [("rye",)]


def test_the_endpoint_of_a_protected_branch_is_not_deleted(lamp: Lamp, made: Any, project: str, endpoint: str):
    lamp.call("PATCH", f"{project}/branches/{made['branch']['id']}", {"branch": {"protected": True}})
    answer = lamp.request("DELETE", endpoint)
    assert answer.status_code == 422
    assert "protected branch" in answer.json()["message"]
    assert sql(uri_of(made), "select 1") == [(1,)]


def test_a_read_only_endpoint_follows_its_branch_and_takes_no_writes(lamp: Lamp, made: Any, project: str):
    """It is a hot standby: what the primary commits it shows, what is written to it is refused."""
    sql(uri_of(made), "create table bread (name text)")
    body = {"endpoint": {"branch_id": made["branch"]["id"], "type": "read_only"}}
    answer = change(lamp, "POST", f"{project}/endpoints", body)
    standby = at(uri_of(made), answer["endpoint"]["host"])
    assert sql(standby, "select pg_is_in_recovery()") == [(True,)]
    assert sql(uri_of(made), "select pg_is_in_recovery()") == [(False,)]
    sql(uri_of(made), "insert into bread values ('rye')")
    rows = "select name from bread"
    wait_for(lambda: sql(standby, rows) == [("rye",)], what="the row on the standby")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        sql(standby, "insert into bread values ('spelt')")
    # A database and a role that the API makes are there too.
    branch = f"{project}/branches/{made['branch']['id']}"
    baker = change(lamp, "POST", f"{branch}/roles", {"role": {"name": "baker"}})["role"]
    as_baker = f"postgresql://baker:{baker['password']}@{answer['endpoint']['host']}/neondb?sslmode=require"

    def enters() -> bool:
        try:
            return sql(as_baker, "select current_user::text") == [("baker",)]
        except psycopg.OperationalError:
            return False

    wait_for(enters, what="the new role on the standby")


def test_a_read_only_endpoint_goes_on_after_its_primary_was_away(lamp: Lamp, made: Any, project: str, endpoint: str):
    """And it starts again after a sleep of its own with what happened meanwhile."""
    sql(uri_of(made), "create table bread (name text)")
    body = {"endpoint": {"branch_id": made["branch"]["id"], "type": "read_only"}}
    made_standby = change(lamp, "POST", f"{project}/endpoints", body)["endpoint"]
    standby, path = at(uri_of(made), made_standby["host"]), f"{project}/endpoints/{made_standby['id']}"
    change(lamp, "POST", f"{endpoint}/suspend")
    assert sql(standby, "select count(*) from bread") == [(0,)]
    change(lamp, "POST", f"{endpoint}/start")
    sql(uri_of(made), "insert into bread values ('rye')")
    wait_for(lambda: sql(standby, "select count(*) from bread") == [(1,)], what="the row on the standby")
    change(lamp, "POST", f"{path}/suspend")
    sql(uri_of(made), "insert into bread values ('spelt')")
    change(lamp, "POST", f"{path}/start")
    wait_for(lambda: sql(standby, "select count(*) from bread") == [(2,)], what="both rows on the standby")
    change(lamp, "DELETE", path)
    slots = "select count(*) from pg_replication_slots"
    assert sql(uri_of(made), slots) == [(0,)]


def test_two_read_only_endpoints_of_one_branch(lamp: Lamp, made: Any, project: str):
    """As many as wanted, but one that writes."""
    sql(uri_of(made), "create table bread as select 'rye' as name")
    branch = made["branch"]["id"]
    standbys = [
        change(lamp, "POST", f"{project}/endpoints", {"endpoint": {"branch_id": branch, "type": "read_only"}})
        for _ in range(2)
    ]
    for one in standbys:
        assert sql(at(uri_of(made), one["endpoint"]["host"]), "select name from bread") == [("rye",)]
    listed = lamp.call("GET", f"{project}/branches/{branch}/endpoints")["endpoints"]
    assert sorted(one["type"] for one in listed) == ["read_only", "read_only", "read_write"]


def test_a_branch_made_with_endpoints_has_them(lamp: Lamp, made: Any, project: str):
    """A read-write one and a read-only one in one request, with sizes of their own."""
    endpoints = [{"type": "read_write", "autoscaling_limit_max_cu": 0.5}, {"type": "read_only"}]
    sql(uri_of(made), "create table bread as select 'rye' as name")
    dev = change(lamp, "POST", f"{project}/branches", {"branch": {"name": "dev"}, "endpoints": endpoints})
    assert [one["action"] for one in dev["operations"]] == ["create_branch", "start_compute", "start_compute"]
    assert [one["type"] for one in dev["endpoints"]] == ["read_write", "read_only"]
    assert dev["endpoints"][0]["autoscaling_limit_max_cu"] == 0.5
    for one in dev["endpoints"]:
        assert sql(at(uri_of(dev), one["host"]), "select name from bread") == [("rye",)]


def test_logical_replication_is_switched_on_for_good(lamp: Lamp):
    made = lamp.project(settings={"enable_logical_replication": True})
    assert setting(uri_of(made), "wal_level") == "logical"
    sql(uri_of(made), "select pg_create_logical_replication_slot('s', 'pgoutput')")
    answer = lamp.request(
        "PATCH",
        f"/projects/{made['project']['id']}",
        {"project": {"settings": {"enable_logical_replication": False}}},
    )
    assert answer.status_code == 400
    assert setting(uri_of(lamp.project()), "wal_level") == "replica"


def test_a_deleted_project_takes_everything_along(lamp: Lamp, made: Any, project: str):
    """Its computes stop, its directories go, and it is unknown from then on."""
    dev = lamp.branch(made["project"]["id"], "dev")
    ids = [one["id"] for answer in (made, dev) for one in (answer["branch"], *answer["endpoints"])]
    assert traces(lamp.data_dir, ids)
    assert lamp.call("DELETE", project)["project"]["id"] == made["project"]["id"]
    assert lamp.request("GET", project).status_code == 404
    assert lamp.request("DELETE", project).status_code == 404
    wait_for(lambda: not traces(lamp.data_dir, ids), what="the end of all directories and files")
    assert not [one for one in (made, dev) if reachable(uri_of(one))]
    listed = lamp.call("GET", "/projects", limit=400)["projects"]
    assert made["project"]["id"] not in {one["id"] for one in listed}


def traces(place: Path, ids: list[str]) -> list[str]:
    """Everything below `place` that is named for one of `ids`. What vanishes meanwhile is none."""
    found = [name for _, directories, files in os.walk(place) for name in (*directories, *files)]
    return [name for name in found if any(one in name for one in ids)]


def reachable(connection_uri: str) -> bool:
    try:
        sql(connection_uri, "select 1")
    except psycopg.OperationalError:
        return False
    return True
