"""Neon's command line client (npm `neon`), unmodified, against a platform: what its users do every day."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from support.lamp import Lamp, sql, uri_of, wait_for
from support.tidy import only_for_now


class Cli(Protocol):
    """The fixture `neon`."""

    directory: Path

    def __call__(self, *arguments: str) -> str: ...
    def json(self, *arguments: str) -> Any: ...
    def refused(self, *arguments: str, **env: str) -> str: ...


class Psql(Protocol):
    """The fixture `psql`."""

    def __call__(self, uri: str, *arguments: str, input: str | None = None) -> str: ...  # noqa: A002


@pytest.fixture(autouse=True)
def tidy(lamp: Lamp) -> Iterator[None]:
    with only_for_now(lamp):
        yield


@pytest.fixture
def project(lamp: Lamp) -> str:
    """The id of a new project, ready, with nothing but its default branch."""
    return str(lamp.project(name="shop")["project"]["id"])


def named(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [row for row in rows if row["name"] == name]
    return found


def test_from_nothing_to_sql_on_a_branch_of_a_branch(neon: Cli, psql: Psql, lamp: Lamp):
    """A branch has what its parent had, and from then on neither sees what the other does."""
    made = neon.json("projects", "create", "--name", "bakery")
    place = ("--project-id", made["project"]["id"])
    main = made["connection_uris"][0]["connection_uri"]
    assert main.endswith("?sslmode=require&channel_binding=require")
    lamp.settle(made["project"]["id"])
    psql(main, input="create table bread (name text primary key); insert into bread values ('rye'), ('spelt');")

    made_branch = neon.json("branches", "create", "--name", "dev", *place)
    assert made_branch["branch"]["name"] == "dev"
    lamp.settle(made["project"]["id"])
    dev = neon("connection-string", "dev", *place).strip()
    assert dev.endswith("?sslmode=require&channel_binding=require")
    assert dev == uri_of(made_branch)
    rows = "select string_agg(name, ',' order by name) from bread"
    assert psql(dev, input=rows) == "rye,spelt"

    psql(dev, input="insert into bread values ('dev only'); create table rolls (id int);")
    psql(main, input="insert into bread values ('main only'); delete from bread where name = 'rye';")
    assert psql(dev, "-c", rows) == "dev only,rye,spelt"
    assert psql(main, "-c", rows) == "main only,spelt"
    assert psql(main, "-c", "select to_regclass('rolls') is null") == "t"

    neon("branches", "create", "--name", "dev-of-dev", "--parent", "dev", *place)
    lamp.settle(made["project"]["id"])
    grandchild = neon("connection-string", "dev-of-dev", *place).strip()
    assert psql(grandchild, "-c", rows) == "dev only,rye,spelt"
    psql(grandchild, "-c", "truncate bread")
    assert psql(dev, "-c", rows) == "dev only,rye,spelt"

    deleted = neon.json("projects", "delete", made["project"]["id"])
    assert deleted["id"] == made["project"]["id"]
    wait_for(lambda: not reachable(dev), what="the end of the branch's compute")


def reachable(uri: str) -> bool:
    try:
        sql(uri, "select 1")
    except psycopg.OperationalError:
        return False
    return True


def test_the_connection_is_encrypted_and_bound_to_its_channel(neon: Cli, psql: Psql, project: str):
    """psql insists on TLS and on channel binding, and gets both; here on this host it may do without."""
    uri = neon("connection-string", "--project-id", project).strip()
    assert psql(uri, "-c", "select version from pg_stat_ssl where pid = pg_backend_pid()") == "TLSv1.3"
    plain = neon("connection-string", "--project-id", project, "--ssl", "omit").strip()
    assert psql(f"{plain}?sslmode=disable", "-c", "select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "f"


def test_who_am_i(neon: Cli, lamp: Lamp):
    me = neon.json("me")
    assert me["id"] == lamp.call("GET", "/users/me")["id"]
    assert me["login"] in neon("me")


def test_organizations(neon: Cli):
    (organization,) = neon.json("orgs", "list")
    assert organization["id"].startswith("org-")
    assert organization["id"] in neon("orgs", "list")


def test_projects(neon: Cli, project: str):
    """List, get and update, as tables and as JSON."""
    assert project in {one["id"] for one in neon.json("projects", "list")["projects"]}
    table = neon("projects", "list")
    assert project in table
    assert "No projects have been shared with you" in table
    assert neon.json("projects", "update", project, "--name", "new name")["name"] == "new name"
    got = neon.json("projects", "get", project)
    assert (got["id"], got["name"], got["pg_version"]) == (project, "new name", 17)
    assert "new name" in neon("projects", "get", project)


def test_databases_and_roles(neon: Cli, lamp: Lamp, project: str):
    """What is created is there in Postgres, what is deleted is not."""
    place = ("--branch", "main", "--project-id", project)
    assert neon.json("roles", "create", "--name", "baker", *place)["name"] == "baker"
    lamp.settle(project)
    made = neon.json("databases", "create", "--name", "orders", "--owner-name", "baker", *place)
    assert (made["name"], made["owner_name"]) == ("orders", "baker")
    lamp.settle(project)
    assert {one["name"] for one in neon.json("databases", "list", *place)} == {"neondb", "orders"}
    assert {one["name"] for one in neon.json("roles", "list", *place)} == {"neondb_owner", "baker"}

    said = neon.refused("connection-string", "--project-id", project)
    assert "Multiple roles found" in said
    chosen = ("--role-name", "baker", "--database-name", "orders", "--project-id", project)
    uri = neon("connection-string", "main", *chosen).strip()
    assert sql(uri, "select current_user, current_database()") == [("baker", "orders")]

    neon("databases", "delete", "orders", *place)
    lamp.settle(project)
    with pytest.raises(psycopg.OperationalError, match='database "orders" does not exist'):
        sql(uri, "select 1")
    neon("roles", "delete", "baker", *place)
    lamp.settle(project)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        sql(uri.replace("/orders?", "/neondb?"), "select 1")
    assert [one["name"] for one in neon.json("roles", "list", *place)] == ["neondb_owner"]


def test_branches(neon: Cli, lamp: Lamp, project: str):
    """Without a compute and with one added, renamed, expiring, made the default, deleted."""
    place = ("--project-id", project)
    made = neon.json("branches", "create", "--name", "idle", "--no-compute", *place)
    lamp.settle(project)
    endpoint = neon.json("branches", "add-compute", "idle", "--type", "read_write", *place)
    assert endpoint["branch_id"] == made["id"]
    lamp.settle(project)
    assert sql(neon("connection-string", "idle", *place).strip(), "select 1") == [(1,)]

    assert neon.json("branches", "rename", "idle", "busy", *place)["name"] == "busy"
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert neon.json("branches", "set-expiration", "busy", "--expires-at", tomorrow, *place)["expires_at"] == tomorrow
    assert "expires_at" not in neon.json("branches", "set-expiration", "busy", *place)
    listed = neon.json("branches", "list", *place)
    assert named(listed, "main")["default"] is True
    assert "[default] main" in neon("branches", "list", *place)
    assert neon.json("branches", "set-default", "busy", *place)["default"] is True
    assert neon.json("branches", "get", "main", *place)["default"] is False
    assert "the default branch" in neon.refused("branches", "delete", "busy", *place)

    neon("branches", "set-default", "main", *place)
    assert neon.json("branches", "delete", "busy", *place)["name"] == "busy"
    lamp.settle(project)
    assert [one["name"] for one in neon.json("branches", "list", *place)] == ["main"]


def test_a_schema_only_branch_has_the_tables_and_not_their_rows(neon: Cli, psql: Psql, lamp: Lamp, project: str):
    place = ("--project-id", project)
    main = neon("connection-string", *place).strip()
    psql(main, input="create table bread (name text unique); insert into bread values ('rye');")
    made = neon.json("branches", "create", "--name", "bare", "--schema-only", *place)
    assert made["branch"]["init_source"] == "schema-only"
    assert "parent_id" not in made["branch"]
    lamp.settle(project)
    bare = neon("connection-string", "bare", *place).strip()
    assert psql(bare, input="select count(*) from bread; insert into bread values ('rye');") == "0"


def test_operations(neon: Cli, lamp: Lamp, project: str):
    """Newest first, and ended."""
    listed = neon.json("operations", "list", "--project-id", project)
    assert [one["action"] for one in listed] == ["start_compute", "create_timeline"]
    assert {one["status"] for one in listed} == {"finished"}
    assert listed[0]["id"] in neon("operations", "list", "--project-id", project)


def test_api_keys(neon: Cli, lamp: Lamp, project: str):
    """A key works until it is revoked; one for a project does nothing outside it."""
    made = neon.json("api-keys", "create", "--name", "ci")
    assert lamp.request("GET", "/users/me", key=made["key"]).status_code == 200
    assert {made["id"]} <= {one["id"] for one in neon.json("api-keys", "list")}
    assert neon.json("api-keys", "revoke", str(made["id"]))["revoked"] is True
    assert lamp.request("GET", "/users/me", key=made["key"]).status_code == 401
    assert made["id"] not in {one["id"] for one in neon.json("api-keys", "list")}

    scoped = neon.json("api-keys", "create", "--name", "deploy", "--project-id", project)
    assert scoped["project_id"] == project
    other = lamp.project()["project"]["id"]
    assert lamp.request("GET", f"/projects/{project}", key=scoped["key"]).status_code == 200
    assert lamp.request("GET", f"/projects/{other}", key=scoped["key"]).status_code == 404

    organization = neon.json("orgs", "list")[0]["id"]
    wide = neon.json("api-keys", "create", "--name", "robot", "--org-id", organization)
    assert "project_id" not in wide
    assert {scoped["id"], wide["id"]} <= {one["id"] for one in neon.json("api-keys", "list", "--org-id", organization)}
    assert neon.json("api-keys", "revoke", str(wide["id"]), "--org-id", organization)["revoked"] is True


def test_any_route(neon: Cli, project: str):
    """`neon api` shows what the API says, also when it says no."""
    got = json.loads(neon("api", f"/projects/{project}/branches/count"))
    assert got == {"count": 1}
    assert "listSnapshots is not available on this server" in neon.refused("api", f"/projects/{project}/snapshots")


def test_psql(neon: Cli, project: str):
    """`neon psql` runs psql on the branch."""
    said = neon("psql", "main", "--project-id", project, "--", "-XAtc", "select 6 * 7, current_user")
    assert said.strip() == "42|neondb_owner"


def test_inspect(neon: Cli, psql: Psql, project: str):
    """`neon inspect db` speaks Postgres's protocol by itself, without psql."""
    place = ("--project-id", project)
    psql(neon("connection-string", *place).strip(), "-c", "create table bread (id int primary key)")
    assert "bread" in neon("inspect", "db", "table-sizes", *place)


def test_what_it_says_when_the_platform_refuses(neon: Cli, project: str):
    place = ("--project-id", project)
    said = neon.refused("branches", "get", "nowhere", *place)
    assert "Branch nowhere not found" in said
    assert "Available branches: main" in said
    assert 'branch already exists; branch_name:"main"' in neon.refused("branches", "create", "--name", "main", *place)
    assert "database already exists" in neon.refused("databases", "create", "--name", "neondb", *place)
    assert "Authentication failed" in neon.refused("me", NEON_API_KEY="napi_wrong")
    assert "project not found" in neon.refused("projects", "get", "no-such-project-00000000")
    assert "not available on this server" in neon.refused("snapshots", "list", *place)


def test_a_linked_directory(neon: Cli, lamp: Lamp, project: str):
    """`link`, `status`, `env pull` and `checkout` work although the previews that they probe are not served."""
    lamp.branch(project, "dev")
    assert "Linked" in neon("link", "--project-id", project, "--branch", "main")
    status = neon.json("status")
    assert (status["project"]["id"], status["branch"]["name"]) == (project, "main")

    (neon.directory / ".env.local").unlink()
    neon("env", "pull")
    pulled = environment(neon.directory / ".env.local")
    assert pulled["NEON_BRANCH"] == "main"
    assert sql(pulled["DATABASE_URL"], "select 1") == sql(pulled["DATABASE_URL_UNPOOLED"], "select 1") == [(1,)]

    neon("checkout", "dev")
    assert environment(neon.directory / ".env.local")["NEON_BRANCH"] == "dev"
    assert neon.json("status")["branch"]["name"] == "dev"


def environment(file: Path) -> dict[str, str]:
    lines = [line.partition("=") for line in file.read_text().splitlines() if "=" in line]
    return {name: value.strip('"') for name, _, value in lines}
