"""What branches, roles and databases of the API are in Postgres itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from support.lamp import Lamp, sql, uri_of, wait_for
from support.tidy import only_for_now

REFUSED = "password authentication failed"


@pytest.fixture(autouse=True)
def tidy(lamp: Lamp) -> Iterator[None]:
    with only_for_now(lamp):
        yield


def branch_of(made: dict[str, Any]) -> str:
    """The path of a branch, from the answer that made it."""
    return f"/projects/{made['branch']['project_id']}/branches/{made['branch']['id']}"


def change(lamp: Lamp, method: str, path: str, body: Any = None) -> Any:
    """A request, and the end of the operations that it starts."""
    answer = lamp.call(method, path, body)
    operations = lamp.settle(path.split("/")[2])
    assert [one.get("error") for one in operations if one["status"] not in ("finished", "skipped")] == []
    return answer


def uri(lamp: Lamp, branch: str, *, role: str = "neondb_owner", database: str = "neondb") -> str:
    _, _, project, _, branch_id = branch.split("/")
    named = {"branch_id": branch_id, "role_name": role, "database_name": database}
    return str(lamp.call("GET", f"/projects/{project}/connection_uri", **named)["uri"])


def test_a_branch_has_its_parents_databases_roles_and_passwords(lamp: Lamp):
    """The same connection string but for the address; ids and times are the branch's own."""
    made = lamp.project()
    main = branch_of(made)
    baker = change(lamp, "POST", f"{main}/roles", {"role": {"name": "baker"}})["role"]
    change(lamp, "POST", f"{main}/databases", {"database": {"name": "orders", "owner_name": "baker"}})
    sql(uri(lamp, main, role="baker", database="orders"), "create table bread (name text)")
    dev = lamp.branch(made["project"]["id"], "dev")
    assert {one["name"] for one in dev["roles"]} == {"neondb_owner", "baker"}
    assert {one["name"] for one in dev["databases"]} == {"neondb", "orders"}
    # With two roles and two databases it is not clear which string is meant.
    assert "connection_uris" not in dev
    assert all("password" not in one for one in dev["roles"])
    password = lamp.call("GET", f"{branch_of(dev)}/roles/baker/reveal_password")["password"]
    assert password == baker["password"]
    found = sql(uri(lamp, branch_of(dev), role="baker", database="orders"), "select count(*) from bread")
    assert found == [(0,)]
    ids = {one["id"] for one in lamp.call("GET", f"{main}/databases")["databases"]}
    assert ids.isdisjoint({one["id"] for one in dev["databases"]})


def test_what_is_changed_on_a_branch_stays_there(lamp: Lamp):
    """A role, a database and a password of a branch are nobody else's."""
    made = lamp.project()
    main = branch_of(made)
    dev = branch_of(lamp.branch(made["project"]["id"], "dev"))
    change(lamp, "POST", f"{dev}/roles", {"role": {"name": "tester"}})
    change(lamp, "POST", f"{dev}/databases", {"database": {"name": "scratch", "owner_name": "tester"}})
    change(lamp, "POST", f"{dev}/roles/neondb_owner/reset_password")
    assert sql(uri(lamp, main), "select count(*) from pg_roles where rolname = 'tester'") == [(0,)]
    assert sql(uri(lamp, main), "select count(*) from pg_database where datname = 'scratch'") == [(0,)]
    assert uri(lamp, main) == uri_of(made)
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        sql(uri(lamp, main).replace(port_of(uri(lamp, main)), port_of(uri(lamp, dev))), "select 1")


def port_of(connection_uri: str) -> str:
    return connection_uri.partition("@")[2].partition("/")[0]


def test_a_branch_of_a_protected_branch_has_passwords_of_its_own(lamp: Lamp):
    """Who may enter the child must not so enter the parent."""
    made = lamp.project()
    main = branch_of(made)
    lamp.call("PATCH", main, {"branch": {"protected": True}})
    dev = lamp.branch(made["project"]["id"], "dev")
    of_child, of_parent = uri_of(dev), uri_of(made)
    assert sql(of_child, "select 1") == sql(of_parent, "select 1") == [(1,)]
    for theirs, place in ((of_child, of_parent), (of_parent, of_child)):
        with pytest.raises(psycopg.OperationalError, match=REFUSED):
            sql(theirs.replace(port_of(theirs), port_of(place)), "select 1")
    assert lamp.request("DELETE", f"/projects/{made['project']['id']}").status_code == 422
    lamp.call("PATCH", main, {"branch": {"protected": False}})
    assert lamp.request("DELETE", f"/projects/{made['project']['id']}").status_code == 200


def test_a_schema_only_branch_is_a_root_with_its_own_roles(lamp: Lamp):
    """Tables, indexes, functions and their owners come along; rows do not; roles and passwords do."""
    made = lamp.project()
    sql(uri_of(made), "create table bread (name text primary key)")
    sql(uri_of(made), "insert into bread values ('rye')")
    sql(uri_of(made), "create function twice(int) returns int language sql return $1 * 2")
    body = {"branch": {"name": "bare", "init_source": "schema-only"}, "endpoints": [{"type": "read_write"}]}
    bare = change(lamp, "POST", f"/projects/{made['project']['id']}/branches", body)
    assert "parent_id" not in bare["branch"]
    assert sql(uri_of(bare), "select count(*), twice(21) from bread") == [(0, 42)]
    assert sql(uri_of(bare), "select tableowner::text from pg_tables where tablename = 'bread'") == [("neondb_owner",)]
    assert change(lamp, "DELETE", branch_of(bare))["branch"]["id"] == bare["branch"]["id"]


def test_a_branch_of_a_sleeping_branch_has_all_that_was_committed(lamp: Lamp):
    """Neither the parent nor the child needs a compute for that."""
    made = lamp.project()
    sql(uri_of(made), "create table bread as select generate_series(1, 1000) as id")
    endpoint = f"/projects/{made['project']['id']}/endpoints/{made['endpoints'][0]['id']}"
    change(lamp, "POST", f"{endpoint}/suspend")
    dev = lamp.branch(made["project"]["id"], "dev")
    assert lamp.call("GET", endpoint)["endpoint"]["current_state"] == "idle"
    assert sql(uri_of(dev), "select count(*) from bread") == [(1000,)]


def test_changes_to_a_sleeping_branch_are_there_when_it_wakes(lamp: Lamp):
    """The API does not need a compute to make roles and databases, and leaves it asleep."""
    made = lamp.project()
    main = branch_of(made)
    endpoint = f"/projects/{made['project']['id']}/endpoints/{made['endpoints'][0]['id']}"
    change(lamp, "POST", f"{endpoint}/suspend")
    answer = change(lamp, "POST", f"{main}/roles", {"role": {"name": "baker"}})
    assert [one["action"] for one in answer["operations"]] == ["apply_config", "suspend_compute"]
    change(lamp, "POST", f"{main}/databases", {"database": {"name": "orders", "owner_name": "baker"}})
    assert lamp.call("GET", endpoint)["endpoint"]["current_state"] == "idle"
    change(lamp, "POST", f"{endpoint}/start")
    assert sql(uri(lamp, main, role="baker", database="orders"), "select 1") == [(1,)]


def test_deleted_databases_and_roles_are_gone_from_postgres(lamp: Lamp):
    """Also with a session in them; and a role that owns a database has to wait for it."""
    made = lamp.project()
    main = branch_of(made)
    change(lamp, "POST", f"{main}/roles", {"role": {"name": "baker"}})
    change(lamp, "POST", f"{main}/databases", {"database": {"name": "orders", "owner_name": "baker"}})
    refusal = lamp.request("DELETE", f"{main}/roles/baker")
    assert refusal.status_code == 422
    assert "orders" in refusal.json()["message"]
    with psycopg.connect(uri(lamp, main, role="baker", database="orders"), autocommit=True) as session:
        session.execute("create table bread ()")
        change(lamp, "DELETE", f"{main}/databases/orders")
        with pytest.raises(psycopg.OperationalError):
            session.execute("select 1")
    change(lamp, "DELETE", f"{main}/roles/baker")
    owner = uri_of(made)
    assert sql(owner, "select count(*) from pg_database where datname = 'orders'") == [(0,)]
    assert sql(owner, "select count(*) from pg_roles where rolname = 'baker'") == [(0,)]
    assert lamp.request("GET", f"{main}/databases/orders").status_code == 404
    assert lamp.request("GET", f"{main}/roles/baker").status_code == 404
    # The names are free again.
    change(lamp, "POST", f"{main}/roles", {"role": {"name": "baker"}})
    change(lamp, "POST", f"{main}/databases", {"database": {"name": "orders", "owner_name": "baker"}})
    assert sql(uri(lamp, main, role="baker", database="orders"), "select to_regclass('bread')") == [(None,)]


def test_a_role_with_objects_of_its_own_is_deleted_with_its_tables_kept(lamp: Lamp):
    """Tables that it made in somebody else's database stay, and belong to that database's owner."""
    made = lamp.project()
    main = branch_of(made)
    change(lamp, "POST", f"{main}/roles", {"role": {"name": "baker"}})
    sql(uri(lamp, main, role="baker"), "create schema kitchen")
    sql(uri(lamp, main, role="baker"), "create table kitchen.bread as select 'rye' as name")
    change(lamp, "DELETE", f"{main}/roles/baker")
    assert sql(uri_of(made), "select name from kitchen.bread") == [("rye",)]


def test_a_database_is_renamed_with_its_content(lamp: Lamp):
    made = lamp.project()
    main = branch_of(made)
    sql(uri_of(made), "create table bread as select 1 as id")
    change(lamp, "PATCH", f"{main}/databases/neondb", {"database": {"name": "bakery"}})
    assert sql(uri(lamp, main, database="bakery"), "select id from bread") == [(1,)]
    with pytest.raises(psycopg.OperationalError, match='database "neondb" does not exist'):
        sql(uri_of(made), "select 1")


def test_a_database_is_given_to_another_role(lamp: Lamp):
    made = lamp.project()
    main = branch_of(made)
    change(lamp, "POST", f"{main}/roles", {"role": {"name": "baker"}})
    change(lamp, "PATCH", f"{main}/databases/neondb", {"database": {"owner_name": "baker"}})
    found = "select pg_get_userbyid(datdba)::text from pg_database where datname = 'neondb'"
    assert sql(uri(lamp, main, role="baker"), found) == [("baker",)]


def test_a_reset_password_is_another_one(lamp: Lamp):
    """The old is refused from then on."""
    made = lamp.project()
    main = branch_of(made)
    before = uri_of(made)
    reset = change(lamp, "POST", f"{main}/roles/neondb_owner/reset_password")
    password = reset["role"]["password"]
    assert lamp.call("GET", f"{main}/roles/neondb_owner/reveal_password") == {"password": password}
    assert sql(uri(lamp, main), "select 1") == [(1,)]
    assert f":{password}@" in uri(lamp, main)
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        sql(before, "select 1")


@pytest.mark.parametrize(
    "name", ['quote"d', "semi;colon", "Ünïcödé", "with space", "back\\slash", "per%cent", "r" * 63]
)
def test_names_that_need_quoting(lamp: Lamp, name: str):
    """Roles and databases may have them, in Postgres and in connection strings."""
    made = lamp.project()
    main = branch_of(made)
    change(lamp, "POST", f"{main}/roles", {"role": {"name": name}})
    change(lamp, "POST", f"{main}/databases", {"database": {"name": name, "owner_name": name}})
    found = sql(uri(lamp, main, role=name, database=name), "select current_user::text, current_database()::text")
    assert found == [(name, name)]


def test_users_are_no_superusers(lamp: Lamp):
    """They may make roles, databases and what they are offered, and reach neither files nor programs of the host."""
    made = lamp.project()
    owner = uri_of(made)
    assert sql(owner, "select rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user") == [
        (False, True, True)
    ]
    for statement in (
        "copy (select 1) to '/tmp/lamp-escaped'",
        "copy (select 1) to program 'true'",
        "select pg_read_file('/etc/passwd')",
        "select pg_ls_dir('/')",
        "select lo_import('/etc/passwd')",
        "create function run(text) returns int language c as 'libc.so.6', 'system'",
        "alter role neondb_owner superuser",
        "create role root superuser",
        "alter system set shared_buffers = '1GB'",
        "set session authorization cloud_admin",
        "set role cloud_admin",
        "grant pg_execute_server_program to neondb_owner",
        "grant cloud_admin to neondb_owner",
        "create extension file_fdw",
    ):
        with pytest.raises(psycopg.Error):
            sql(owner, statement)
    sql(owner, "create role helper login password 'long-enough-9'")
    sql(owner, "create database theirs")
    assert sql(owner, "select count(*) >= 0 from pg_stat_activity") == [(True,)]


@pytest.mark.parametrize("extension", ["vector", "pgcrypto", "pg_trgm", "hstore", "pg_stat_statements", "uuid-ossp"])
def test_extensions_that_neons_users_expect(lamp: Lamp, extension: str):
    """A role that the API made creates them by itself."""
    made = lamp.project()
    main = branch_of(made)
    change(lamp, "POST", f"{main}/roles", {"role": {"name": "baker"}})
    change(lamp, "POST", f"{main}/databases", {"database": {"name": "orders", "owner_name": "baker"}})
    place = uri(lamp, main, role="baker", database="orders")
    sql(place, f'create extension "{extension}"')
    uses = {
        "vector": ("select ('[1,2,3]'::vector <-> '[1,2,5]'::vector)", 2.0),
        "pgcrypto": ("select length(gen_random_bytes(7))", 7),
        "pg_trgm": ("select similarity('rye', 'rye')", 1.0),
        "hstore": ("select ('a=>1'::hstore -> 'a')", "1"),
        "pg_stat_statements": ("select count(*) >= 0 from pg_stat_statements", True),
        "uuid-ossp": ("select length(uuid_generate_v4()::text)", 36),
    }
    query, expected = uses[extension]
    assert sql(place, query) == [(expected,)]


def test_where_passwords_are_not_stored_none_is_revealed(lamp: Lamp):
    """It is shown where it is made, works, and can be reset; nothing else tells it."""
    made = lamp.project(store_passwords=False)
    main = branch_of(made)
    assert sql(uri_of(made), "select 1") == [(1,)]
    refusal = lamp.request("GET", f"{main}/roles/neondb_owner/reveal_password")
    assert refusal.status_code == 412
    assert refusal.json()["message"] == "password storage disabled"
    named = {"role_name": "neondb_owner", "database_name": "neondb"}
    project = f"/projects/{made['project']['id']}"
    assert lamp.request("GET", f"{project}/connection_uri", **named).status_code == 412
    reset = change(lamp, "POST", f"{main}/roles/neondb_owner/reset_password")
    old = made["roles"][0]["password"]
    assert sql(uri_of(made).replace(old, reset["role"]["password"]), "select 1") == [(1,)]
    dev = lamp.branch(made["project"]["id"], "dev")
    there = uri_of(made).replace(port_of(uri_of(made)), dev["endpoints"][0]["host"])
    assert sql(there.replace(old, reset["role"]["password"]), "select 1") == [(1,)]


def test_which_branches_cannot_be_deleted(lamp: Lamp):
    """The default, the root, a protected one, and one with children: each with the reason."""
    made = lamp.project()
    project, main = made["project"]["id"], branch_of(made)
    dev = lamp.branch(project, "dev", endpoint=False)
    lamp.branch(project, "leaf", parent=dev["branch"]["id"], endpoint=False)

    def why(branch: str) -> str:
        answer = lamp.request("DELETE", branch)
        assert answer.status_code == 422
        return str(answer.json()["message"])

    assert "default branch" in why(main)
    assert "1 child" in why(branch_of(dev))
    lamp.call("POST", f"{branch_of(dev)}/set_as_default")
    assert "root branch" in why(main)
    lamp.call("POST", f"{main}/set_as_default")
    lamp.call("PATCH", branch_of(dev), {"branch": {"protected": True}})
    assert "protected" in why(branch_of(dev))
    assert lamp.call("GET", f"/projects/{project}/branches/count") == {"count": 3}


def test_there_is_one_default_branch(lamp: Lamp):
    """Another one takes its place, and is what a new branch is made of."""
    made = lamp.project()
    project = made["project"]["id"]
    dev = lamp.branch(project, "dev", endpoint=False)
    lamp.call("POST", f"{branch_of(dev)}/set_as_default")
    branches = lamp.call("GET", f"/projects/{project}/branches")["branches"]
    assert {one["name"]: (one["default"], one["primary"]) for one in branches} == {
        "main": (False, False),
        "dev": (True, True),
    }
    child = change(lamp, "POST", f"/projects/{project}/branches")
    assert child["branch"]["parent_id"] == dev["branch"]["id"]
    assert child["endpoints"] == []


def test_a_branch_whose_time_is_over_is_deleted(lamp: Lamp):
    """With its compute, as if it had been asked for."""
    made = lamp.project()
    project = made["project"]["id"]
    soon = (datetime.now(UTC) + timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"branch": {"name": "brief", "expires_at": soon}, "endpoints": [{"type": "read_write"}]}
    brief = change(lamp, "POST", f"/projects/{project}/branches", body)
    assert brief["branch"]["expires_at"] == soon
    assert brief["branch"]["ttl_interval_seconds"] <= 3
    assert sql(uri_of(brief), "select 1") == [(1,)]
    wait_for(lambda: lamp.request("GET", branch_of(brief)).status_code == 404, seconds=40, what="the end of the branch")
    lamp.settle(project)
    with pytest.raises(psycopg.OperationalError):
        sql(uri_of(brief), "select 1")
    actions = [one["action"] for one in lamp.call("GET", f"/projects/{project}/operations")["operations"]]
    assert actions[:2] == ["delete_timeline", "suspend_compute"]
    assert sql(uri_of(made), "select 1") == [(1,)]


def test_expiry_is_refused_where_a_branch_must_stay(lamp: Lamp):
    """With the codes that Neon's clients know."""
    made = lamp.project()
    main = branch_of(made)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = lamp.request("PATCH", main, {"branch": {"expires_at": tomorrow}})
    assert (answer.status_code, answer.json()["code"]) == (400, "DEFAULT_BRANCH_EXPIRATION_NOT_ALLOWED")
    body = {"branch": {"name": "dev", "protected": True, "expires_at": tomorrow}}
    answer = lamp.request("POST", f"/projects/{made['project']['id']}/branches", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "PROTECTED_BRANCH_EXPIRATION_NOT_ALLOWED")
    dev = lamp.branch(made["project"]["id"], "dev", endpoint=False)
    lamp.call("PATCH", branch_of(dev), {"branch": {"expires_at": tomorrow}})
    answer = lamp.request("PATCH", branch_of(dev), {"branch": {"protected": True}})
    assert answer.json()["code"] == "PROTECTED_BRANCH_EXPIRATION_NOT_ALLOWED"
    assert lamp.request("POST", f"{branch_of(dev)}/set_as_default").status_code == 400
    cleared = lamp.call("PATCH", branch_of(dev), {"branch": {"expires_at": None}})["branch"]
    assert "expires_at" not in cleared


def test_branches_are_searched_sorted_and_paged(lamp: Lamp):
    """Every branch is shown once, in the order asked for, and the cursor behind the last gives an empty page."""
    project = lamp.project()["project"]["id"]
    for name in ("alpha", "beta", "100%"):
        lamp.branch(project, name, endpoint=False)
    path = f"/projects/{project}/branches"

    def names(**query: Any) -> list[str]:
        return [one["name"] for one in lamp.call("GET", path, **query)["branches"]]

    assert names(sort_by="name", sort_order="asc") == ["100%", "alpha", "beta", "main"]
    assert names(sort_by="name", sort_order="desc") == ["main", "beta", "alpha", "100%"]
    assert names(sort_by="created_at", sort_order="asc")[0] == "main"
    assert names(search="LPH") == ["alpha"]
    assert names(search="%") == ["100%"]
    assert lamp.call("GET", f"{path}/count", search="ALPH") == {"count": 1}
    for sort_by in ("name", "created_at", "updated_at"):
        seen: list[str] = []
        query: dict[str, Any] = {"sort_by": sort_by, "limit": 3}
        while page := lamp.call("GET", path, **query):
            seen += [one["name"] for one in page["branches"]]
            if "pagination" not in page:
                break
            query["cursor"] = page["pagination"]["next"]
        assert sorted(seen) == ["100%", "alpha", "beta", "main"]


def test_annotations_come_back(lamp: Lamp):
    project = lamp.project(branch={"annotations": {"team": "bread"}})
    path = f"/projects/{project['project']['id']}/branches"
    made = change(lamp, "POST", path, {"annotation_value": {"pull": "17"}})
    annotations = lamp.call("GET", path)["annotations"]
    assert annotations[made["branch"]["id"]]["value"] == {"pull": "17"}
    assert annotations[project["branch"]["id"]]["value"] == {"team": "bread"}
    assert lamp.call("GET", branch_of(made))["annotation"]["value"] == {"pull": "17"}


def test_unknown_fields_are_let_by(lamp: Lamp):
    """A later client may send more than this server knows."""
    made = lamp.project(shiny="new", settings={"shinier": {"newer": True}})
    body = {"branch": {"name": "dev", "colour": "red"}, "endpoints": [{"type": "read_write", "gpu": 1}], "x": []}
    change(lamp, "POST", f"/projects/{made['project']['id']}/branches", body)
    assert lamp.call("GET", f"/projects/{made['project']['id']}?colour=red")["project"]["id"] == made["project"]["id"]
