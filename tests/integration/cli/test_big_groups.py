"""`lamp projects`, `branches`, `endpoints`, `psql`, `watch` and the like as a user runs them, on a real platform."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from support.lamp import Lamp, sql, uri_of, wait_for
from support.lamp_process import Ran, run_lamp

SECONDS = 90


class User:
    """Somebody with a key, a server and a project in the environment, who works in a directory of their own."""

    def __init__(self, lamp: Lamp, place: Path, project: str = "") -> None:
        self.lamp = lamp
        self.place = place
        self.project = project
        self.env = {"NEON_API_KEY": lamp.key, "NEON_API_HOST": lamp.url, "XDG_CONFIG_HOME": str(place / "config")}

    def __call__(self, *words: str, status: int = 0, ci: bool = False, **env: str) -> Ran:
        place = ["--project-id", self.project] if self.project else []
        # What follows -- is for psql.
        end = words.index("--") if "--" in words else len(words)
        inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "LAMP_CONTEXT")}
        ran = run_lamp(
            [*words[:end], *place, *words[end:]],
            cwd=self.place,
            env={**inherited, **self.env, **({"CI": "true"} if ci else {}), **env},
            seconds=SECONDS,
        )
        assert ran.status == status, ran.out + ran.err
        return ran

    def json(self, *words: str, ci: bool = False) -> Any:
        return json.loads(self(*words, "--output", "json", ci=ci).out)


@pytest.fixture(scope="module")
def project(lamp: Lamp) -> Iterator[dict[str, Any]]:
    """A project that tests share: each makes its own branches in it."""
    made = lamp.project(name="big groups")
    yield made
    lamp.call("DELETE", f"/projects/{made['project']['id']}")


@pytest.fixture
def user(lamp: Lamp, project: dict[str, Any], tmp_path: Path) -> User:
    return User(lamp, tmp_path, project["project"]["id"])


@pytest.fixture
def anybody(lamp: Lamp, tmp_path: Path) -> User:
    """Without a project."""
    return User(lamp, tmp_path)


Branch = Callable[..., dict[str, Any]]


@pytest.fixture
def branch(lamp: Lamp, project: dict[str, Any]) -> Branch:
    """`branch("dev")` makes a branch beside the command; its reply is as the API gave it."""

    def make(name: str, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = lamp.branch(project["project"]["id"], name, **more)
        return made

    return make


class TestProjects:
    def test_from_its_creation_to_its_end(self, anybody: User) -> None:
        made = anybody.json("projects", "create", "--name", "one life", "--cu", "0.25-2", "--database", "shop")
        project_id = made["project"]["id"]
        assert made["created"] is True
        assert made["endpoints"][0]["current_state"] == "active"
        assert {one["status"] for one in made["operations"]} == {"finished"}
        assert sql(uri_of(made), "select current_database()") == [("shop",)]
        assert project_id in {one["id"] for one in anybody.json("projects", "list", "--search", "one life")}

        changed = anybody.json("projects", "update", project_id, "--name", "another", "--suspend-timeout", "10m")
        assert changed["project"]["name"] == "another"
        assert changed["project"]["default_endpoint_settings"]["suspend_timeout_seconds"] == 600
        assert anybody.json("projects", "get", project_id)["name"] == "another"

        asked = anybody("projects", "delete", project_id, status=2)
        assert "project another" in asked.err
        assert "1 branch: main" in asked.err
        assert "--yes" in asked.err
        planned = anybody("projects", "delete", project_id, "--dry-run")
        assert f"DELETE {anybody.lamp.url}/projects/{project_id}" in planned.out
        assert anybody.json("projects", "delete", project_id, "--yes")["id"] == project_id
        assert "project not found" in anybody("projects", "get", project_id, status=3).err

    def test_a_name_may_be_used_again(self, anybody: User, lamp: Lamp) -> None:
        first = anybody.json("projects", "create", "--name", "twice", "--if-exists", "return")
        again = anybody("projects", "create", "--name", "twice", "--if-exists", "return", "-o", "json")
        found = json.loads(again.out)
        assert (found["project"]["id"], found["created"]) == (first["project"]["id"], False)
        assert "was there already" in again.err
        assert (
            first["project"]["id"]
            in anybody("projects", "create", "--name", "twice", "--if-exists", "fail", status=4).err
        )
        lamp.call("DELETE", f"/projects/{first['project']['id']}")

    def test_a_context_file_names_the_project_from_then_on(self, anybody: User, lamp: Lamp) -> None:
        """As the neon CLI writes and reads it."""
        made = json.loads(anybody("projects", "create", "--name", "here", "--set-context", "-o", "json").out)
        assert json.loads((anybody.place / ".neon").read_text())["projectId"] == made["project"]["id"]
        assert [one["name"] for one in anybody.json("branches", "list")] == ["main"]
        lamp.call("DELETE", f"/projects/{made['project']['id']}")

    @pytest.mark.parametrize(
        "words",
        [("--if-exists", "return"), ("--cu", "2-1"), ("--suspend-timeout", "soon"), ("--pg-version", "x")],
        ids=lambda words: words[0],
    )
    def test_wrong_options(self, anybody: User, words: tuple[str, ...]) -> None:
        assert "Error: " in anybody("projects", "create", *words, status=2).err

    def test_an_update_needs_something_to_change(self, user: User) -> None:
        assert "nothing to change" in user("projects", "update", status=2).err


class TestBranches:
    def test_a_new_branch_is_ready_and_has_a_connection(self, user: User) -> None:
        made = user.json("branches", "create", "--name", "ready", "--expires-in", "2h", "--cu", "0.25-0.5")
        assert made["created"] is True
        assert made["branch"]["current_state"] == "ready"
        assert made["branch"]["expires_at"] > made["branch"]["created_at"]
        (endpoint,) = made["endpoints"]
        assert (endpoint["current_state"], endpoint["autoscaling_limit_max_cu"]) == ("active", 0.5)
        assert sql(uri_of(made), "select 1") == [(1,)]

    def test_a_secret_is_shown_only_where_it_is_wanted(self, user: User) -> None:
        made = user("branches", "create", "--name", "hush", "--no-secrets", "-o", "json")
        assert ":***@" in json.loads(made.out)["connection_uris"][0]["connection_uri"]
        assert "npg_" not in made.out
        shown = user("branches", "create", "--name", "loud")
        assert "postgresql://neondb_owner:npg_" in shown.out

    def test_a_name_that_is_taken_fails(self, user: User, branch: Branch) -> None:
        there = branch("taken", endpoint=False)["branch"]["id"]
        ran = user("branches", "create", "--name", "taken", status=4)
        assert "branch already exists" in ran.err
        assert there in ran.err
        told = json.loads(user("branches", "create", "--name", "taken", "-o", "json", status=4).err)
        assert (told["error"]["status"], told["error"]["exit_code"]) == (409, 4)

    @pytest.mark.parametrize("ci", [True, False])
    def test_a_name_that_is_taken_gives_that_branch(self, user: User, branch: Branch, ci: bool) -> None:
        """In CI by default, elsewhere when asked: with the same fields that its creation had, and told so."""
        there = branch(f"again-{ci}")
        words = ("branches", "create", "--name", f"again-{ci}", *(() if ci else ("--if-exists", "return")))
        ran = user(*words, "-o", "json", ci=ci)
        found = json.loads(ran.out)
        assert found["created"] is False
        assert found["branch"]["id"] == there["branch"]["id"]
        assert uri_of(found) == uri_of(there)
        assert set(found["connection_uris"][0]["connection_parameters"]) == set(
            there["connection_uris"][0]["connection_parameters"]
        )
        assert "was there already" in ran.err
        assert ("--if-exists fail" in ran.err) is ci

    def test_what_differs_from_the_wish_is_told(self, user: User, branch: Branch) -> None:
        branch("other", endpoint=False)
        branch("child", endpoint=False)
        ran = user("branches", "create", "--name", "child", "--parent", "other", "--protected", ci=True)
        assert "its parent is" in ran.err
        assert "it is not protected" in ran.err
        assert "it has no endpoint" in ran.err

    def test_never_another_branch(self, user: User, lamp: Lamp, branch: Branch) -> None:
        """Neither one whose name only begins alike, nor one of that name in another project."""
        longer = branch("pr-1-more", endpoint=False)["branch"]["id"]
        elsewhere = lamp.project(name="elsewhere")
        other = lamp.branch(elsewhere["project"]["id"], "pr-1", endpoint=False)["branch"]["id"]
        made = user.json("branches", "create", "--name", "pr-1", "--no-compute", ci=True)
        assert made["created"] is True
        assert made["branch"]["id"] not in (longer, other)
        assert made["branch"]["project_id"] == user.project
        ran = user("branches", "get", "pr", status=3)
        assert "did you mean 'pr-1'" in ran.err
        lamp.call("DELETE", f"/projects/{elsewhere['project']['id']}")

    def test_jobs_at_the_same_time_get_one_branch(self, user: User) -> None:
        words = ("branches", "create", "--name", "shared", "--no-secrets")
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: user.json(*words, ci=True), range(3)))
        assert len({one["branch"]["id"] for one in found}) == 1
        assert sorted(one["created"] for one in found) == [False, False, True]
        assert {one["branch"]["current_state"] for one in found} == {"ready"}

    def test_no_wait_returns_at_once(self, user: User, lamp: Lamp) -> None:
        made = user.json("branches", "create", "--name", "later", "--no-wait")
        assert made["operations"][0]["status"] in ("scheduling", "running")
        lamp.settle(user.project)

    def test_changes(self, user: User, branch: Branch) -> None:
        branch_id = branch("before", endpoint=False)["branch"]["id"]
        assert user.json("branches", "rename", "before", "after")["branch"]["id"] == branch_id
        assert user.json("branches", "protect", "after")["branch"]["protected"] is True
        assert user.json("branches", "unprotect", branch_id)["branch"]["protected"] is False
        at = user.json("branches", "set-expiration", "after", "--expires-in", "1d")["branch"]["expires_at"]
        assert at.endswith("Z")
        assert "expires_at" not in user.json("branches", "set-expiration", "after")["branch"]
        made = user.json("branches", "add-compute", "after", "--type", "read_write", "--name", "second")
        assert (made["endpoint"]["name"], made["endpoint"]["current_state"]) == ("second", "active")

    def test_set_default(self, user: User, branch: Branch, project: dict[str, Any]) -> None:
        branch("chief", endpoint=False)
        assert user.json("branches", "set-default", "chief")["branch"]["default"] is True
        assert user.json("branches", "get")["name"] == "chief"
        assert user.json("branches", "set-default", project["branch"]["id"])["branch"]["name"] == "main"

    def test_the_tree(self, user: User, branch: Branch) -> None:
        top = branch("tree-top", endpoint=False)["branch"]["id"]
        branch("tree-one", parent=top, endpoint=False)
        branch("tree-two", parent=top, endpoint=False)
        lines = user("branches", "tree", PYTHONIOENCODING="utf-8").out.splitlines()
        assert lines[0].split() == ["BRANCH", "STATE", "AGE", "EXPIRES", "ID"]
        assert lines[1].startswith("main (default)")
        place = next(number for number, line in enumerate(lines) if "─ tree-top " in line)
        assert "  ├─ tree-one " in lines[place + 1]
        assert "  └─ tree-two " in lines[place + 2]
        assert "─" not in user("branches", "tree", PYTHONIOENCODING="ascii").out
        depths = {one["name"]: one["depth"] for one in user.json("branches", "tree")}
        assert (depths["main"], depths["tree-top"], depths["tree-two"]) == (0, 1, 2)

    def test_deletion(self, user: User, branch: Branch) -> None:
        """Says what goes, refuses while there are children, and takes them along when told to."""
        top = branch("old")
        branch("old-child", parent=top["branch"]["id"])
        assert "has children: old-child" in user("branches", "delete", "old", "--yes", status=4).err
        asked = user("branches", "delete", "old", "--recursive", status=2)
        assert f"branch old ({top['branch']['id']})" in asked.err
        assert f"endpoints: {top['endpoints'][0]['id']}; databases: neondb" in asked.err
        gone = user.json("branches", "delete", "old", "--recursive", "--yes")
        assert [(one["branch"]["name"], one["deleted"]) for one in gone] == [("old-child", True), ("old", True)]
        assert "did you mean" not in user("branches", "delete", "old", "--yes", status=3).err.replace("'", "")

    def test_nothing_goes_when_something_is_protected(self, user: User, branch: Branch, lamp: Lamp) -> None:
        top = branch("kept", endpoint=False)["branch"]["id"]
        branch("kept-child", parent=top, endpoint=False)
        lamp.call("PATCH", f"/projects/{user.project}/branches/{top}", {"branch": {"protected": True}})
        assert "protected" in user("branches", "delete", "kept", "--recursive", "--yes", status=4).err
        assert user.json("branches", "get", "kept-child")["parent_id"] == top
        user("branches", "unprotect", "kept")

    def test_a_dry_run_changes_nothing(self, user: User) -> None:
        ran = user("branches", "create", "--name", "dry", "--parent", "main", "--expires-in", "1h", "--dry-run")
        assert f"POST {user.lamp.url}/projects/{user.project}/branches" in ran.out
        assert '"name": "dry"' in ran.out
        user("branches", "get", "dry", status=3)

    def test_schemas_are_compared(self, user: User, branch: Branch) -> None:
        """By `pg_dump`, as this server does not read them."""
        made = branch("changed")
        assert "are the same" in user("branches", "diff", "changed").err
        sql(uri_of(made), "create table added (n int)")
        lamp_words = ("databases", "create", "--name", "more", "--branch", "changed")
        user(*lamp_words)
        ran = user("branches", "diff", "changed")
        assert "--- main/neondb\n+++ changed/neondb\n" in ran.out
        assert "+CREATE TABLE public.added (" in ran.out
        assert "Database more is on branch changed alone." in ran.err
        back = user("branches", "diff", "changed", "^parent", "--database-name", "neondb", "--exit-code", status=1)
        assert "-CREATE TABLE public.added (" in back.out
        told = {one["database"]: one for one in user.json("branches", "diff", "main", "changed")}
        assert told["more"]["only_on"] == "changed"
        assert "+CREATE TABLE public.added" in told["neondb"]["diff"]
        schema = user("branches", "schema", "changed", "--database-name", "neondb").out
        assert "CREATE TABLE public.added" in schema

    @pytest.mark.parametrize(
        "words",
        [
            ("branches", "restore", "main", "^self@1h ago", "--preserve-under-name", "b", "--yes"),
            ("branches", "create", "--name", "past", "--at", "1m ago"),
            ("branches", "diff", "main", "^self@0/1A"),
            ("branches", "recover", "br-a-b-12345678"),
            ("snapshots", "list"),
            ("snapshots", "create", "--name", "s"),
            ("snapshots", "schedule", "get"),
            ("projects", "permissions", "list"),
            ("projects", "permissions", "grant", "ada@example.com"),
            ("projects", "transfer", "create", "--ttl", "2h"),
        ],
        ids=lambda words: " ".join(words[:2]),
    )
    def test_what_the_server_does_not_have_is_said_plainly(self, user: User, words: tuple[str, ...]) -> None:
        assert "not available" in user(*words, status=1).err

    @pytest.mark.parametrize(
        "words",
        [
            ("create", "--name", "x", "--expires-in", "2h", "--expires-at", "2030-01-01T00:00:00Z"),
            ("create", "--name", "x", "--at", "yesterday"),
            ("create", "--name", "x", "--parent", "main@0/1", "--at", "0/1"),
            ("reset", "main"),
            ("restore", "main", "^self@0/1", "--yes"),
            ("restore", "main", "^self", "--preserve-under-name", "x", "--yes"),
        ],
        ids=" ".join,
    )
    def test_wrong_usage(self, user: User, words: tuple[str, ...]) -> None:
        assert "Error: " in user("branches", *words, status=2).err


class TestQuestions:
    """On a terminal."""

    def answer(self, user: User, text: str, *words: str) -> tuple[int, str]:
        """The status and all that came to the terminal."""
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "lamplighter", *words, "--project-id", user.project],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=user.place,
            env={**os.environ, **user.env, "TERM": "dumb"},
            start_new_session=True,
        ) as process:
            os.close(theirs)
            told = ""
            while chunk := self._read(ours):
                told += chunk
                if "Go on? [y/N]: " in told and text:
                    os.write(ours, f"{text}\n".encode())
                    text = ""
            os.close(ours)
            return process.wait(SECONDS), told

    def _read(self, terminal: int) -> str:
        try:
            return os.read(terminal, 4096).decode()
        except OSError:  # the other side is closed
            return ""

    def test_a_no_keeps_the_branch_and_a_yes_deletes_it(self, user: User, branch: Branch) -> None:
        made = branch("asked")
        status, told = self.answer(user, "n", "branches", "delete", "asked")
        assert status == 1
        assert "nothing was done" in told
        assert made["endpoints"][0]["id"] in told
        assert user.lamp.url in told
        assert user.json("branches", "get", "asked")["id"] == made["branch"]["id"]
        status, told = self.answer(user, "y", "branches", "delete", "asked")
        assert status == 0, told
        user("branches", "get", "asked", status=3)


class TestEndpoints:
    def test_suspend_start_restart(self, user: User, branch: Branch) -> None:
        endpoint_id = branch("sleepy")["endpoints"][0]["id"]
        asleep = user.json("endpoints", "suspend", "--branch", "sleepy")
        assert (asleep["endpoint"]["id"], asleep["endpoint"]["current_state"]) == (endpoint_id, "idle")
        assert user.json("endpoints", "start", endpoint_id)["endpoint"]["current_state"] == "active"
        again = user.json("endpoints", "restart", "--branch", "sleepy")
        assert [one["action"] for one in again["operations"]] == ["suspend_compute", "start_compute"]
        assert again["endpoint"]["current_state"] == "active"

    def test_from_creation_to_deletion(self, user: User, branch: Branch) -> None:
        branch("bare", endpoint=False)
        missing = user("endpoints", "get", "--branch", "bare", status=3)
        assert "lamp endpoints create --branch bare" in missing.err
        made = user.json("endpoints", "create", "--branch", "bare", "--name", "mine", "--suspend-timeout", "never")
        assert made["endpoint"]["suspend_timeout_seconds"] == -1
        assert user.json("endpoints", "get", "mine")["id"] == made["endpoint"]["id"]
        assert "did you mean 'mine'" in user("endpoints", "get", "mime", status=3).err
        changed = user.json("endpoints", "update", "mine", "--suspend-timeout", "default", "--cu", "0.5")
        assert changed["endpoint"]["suspend_timeout_seconds"] == 0
        assert changed["endpoint"]["autoscaling_limit_min_cu"] == 0.5
        listed = csv.DictReader(io.StringIO(user("endpoints", "list", "--branch", "bare", "-o", "csv").out))
        assert [row["name"] for row in listed] == ["mine"]
        user("endpoints", "delete", "mine", status=2)
        assert user.json("endpoints", "delete", "mine", "--yes")["deleted"] is True
        user("endpoints", "get", "mine", status=3)


class TestDatabasesAndRoles:
    def test_databases(self, user: User, branch: Branch) -> None:
        on = ("--branch", branch("stores")["branch"]["id"])
        made = user.json("databases", "create", "--name", "shop", *on)
        assert made["database"]["owner_name"] == "neondb_owner"
        assert user.json("databases", "update", "shop", "--name", "store", *on)["database"]["name"] == "store"
        listed = yaml.safe_load(user("databases", "list", "--output", "yaml", *on).out)
        assert [one["name"] for one in listed] == ["neondb", "store"]
        assert "all its tables" in user("databases", "delete", "store", *on, status=2).err
        assert user.json("databases", "delete", "store", "--yes", *on)["deleted"] is True
        assert "there are: neondb" in user("databases", "delete", "xyzzy", "--yes", *on, status=3).err

    def test_roles_and_their_passwords(self, user: User, branch: Branch) -> None:
        uri = uri_of(branch("people"))
        on = ("--branch", "people")
        made = user("roles", "create", "--name", "reader", "-o", "json", *on)
        assert json.loads(made.out)["role"]["password"] == "***"
        first = user("roles", "reveal-password", "reader", *on).out.strip()
        assert first.startswith("npg_")
        theirs = psycopg.conninfo.make_conninfo(uri, user="reader", password=first)
        assert sql(theirs, "select current_user") == [("reader",)]
        second = user.json("roles", "reset-password", "reader", *on)["role"]["password"]
        assert second != first
        with pytest.raises(psycopg.OperationalError):
            sql(theirs, "select 1")
        assert sql(psycopg.conninfo.make_conninfo(theirs, password=second), "select 1") == [(1,)]
        assert "did you mean 'reader'" in user("roles", "reveal-password", "raeder", *on, status=3).err
        assert {one["name"] for one in user.json("roles", "list", *on)} == {"neondb_owner", "reader"}
        assert user.json("roles", "delete", "reader", "--yes", *on)["deleted"] is True


FAKE_PSQL = """#!{python}
import json, os, sys
print(json.dumps({{"argv": sys.argv, "env": dict(os.environ)}}))
sys.exit(7)
"""


def fake_psql(place: Path) -> str:
    """A PATH on which the first psql tells what it was started with."""
    fake = place / "psql"
    fake.write_text(FAKE_PSQL.format(python=sys.executable))
    fake.chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


def password_of(made: dict[str, Any]) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(uri_of(made))["password"])


class TestConnections:
    def test_connection_strings(self, user: User, branch: Branch) -> None:
        made = branch("reached")
        assert user("connection-string", "reached").out == uri_of(made) + "\n"
        assert "sslmode" not in user("connection-string", "reached", "--ssl", "omit").out
        told = user.json("connection-string", "reached", "--prisma", "--role-name", "neondb_owner")
        assert "connect_timeout=30" in told["connection_string"]
        assert told["password"] == password_of(made)

    def test_what_is_open_has_to_be_said(self, user: User, branch: Branch) -> None:
        branch("many")
        user("databases", "create", "--name", "second", "--branch", "many")
        asked = user("connection-string", "many", status=2)
        assert "--database-name: neondb, second" in asked.err
        assert "/second?" in user("connection-string", "many", "--database-name", "second").out
        assert (
            "no endpoint of type read_only"
            in user("connection-string", "many", "--endpoint-type", "read_only", status=3).err
        )

    def test_psql_runs_with_what_it_is_given(self, user: User, branch: Branch) -> None:
        branch("shell")
        ran = user("psql", "shell", "--", "-AXtc", "select current_user")
        assert ran.out == "neondb_owner\n"
        assert user("psql", "--branch", "shell", "--", "-Xc", "no sql", status=1).out == ""

    def test_psql_of_the_platform_serves_where_path_has_none(self, user: User, branch: Branch, tmp_path: Path) -> None:
        branch("bundled")
        assert user("psql", "bundled", "--", "-AXtc", "select 42", PATH=str(tmp_path)).out == "42\n"

    def test_the_password_is_never_an_argument(self, user: User, branch: Branch, tmp_path: Path) -> None:
        """Others can read those. The exit status is psql's."""
        made = branch("quiet")
        path = fake_psql(tmp_path)
        ran = user("psql", "quiet", "--", "-c", "select 1", status=7, PATH=path, PGSERVICE="elsewhere")
        told = json.loads(ran.out)
        password = password_of(made)
        assert told["argv"][1:] == ["-c", "select 1"]
        assert not any(password in word for word in told["argv"])
        assert told["env"]["PGPASSWORD"] == password
        assert told["env"]["PGDATABASE"] == "neondb"
        assert "PGSERVICE" not in told["env"]

    def test_what_was_just_made_is_connected_to(self, user: User, tmp_path: Path) -> None:
        ran = user("branches", "create", "--name", "at-once", "--psql", status=7, PATH=fake_psql(tmp_path))
        *shown, told = ran.out.splitlines()
        env = json.loads(told)["env"]
        assert f"@{env['PGHOST']}:{env['PGPORT']}/" in "".join(shown)
        ran = user("connection-string", "at-once", "--psql", status=7, PATH=fake_psql(tmp_path))
        assert json.loads(ran.out)["env"]["PGPORT"] == env["PGPORT"]

    def test_psql_wakes_an_endpoint(self, user: User, branch: Branch) -> None:
        branch("woken")
        user("endpoints", "suspend", "--branch", "woken")
        assert user("psql", "woken", "--", "-AXtc", "select 1").out == "1\n"


class TestWatch:
    def test_changes_are_shown_as_they_come(self, user: User, branch: Branch) -> None:
        made = branch("watched")
        endpoint_id = made["endpoints"][0]["id"]
        words = ("--project-id", user.project, "--branch", "watched", "--output", "json", "--for", "60s")
        with subprocess.Popen(
            [sys.executable, "-m", "lamplighter", "watch", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **user.env},
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert "Watching branch watched: 1 endpoint, 0 operations under way." in process.stderr.readline()
            user("endpoints", "suspend", "--branch", "watched")
            seen = [json.loads(process.stdout.readline()) for _ in range(2)]
            while seen[-1]["state"] != "idle":
                seen.append(json.loads(process.stdout.readline()))
            process.terminate()
            process.communicate()
        assert {one["endpoint_id"] for one in seen} == {endpoint_id}
        actions = [(one["action"], one["state"]) for one in seen if one["kind"] == "operation"]
        assert actions[-1] == ("suspend_compute", "finished")
        assert len(actions) == len(set(actions))
        assert len({tuple(one) for one in seen}) == 1

    def test_it_ends_when_all_is_done(self, user: User, lamp: Lamp) -> None:
        user("branches", "create", "--name", "busy", "--no-wait")
        user("watch", "--until-idle")
        page = lamp.call("GET", f"/projects/{user.project}/operations")
        assert {one["status"] for one in page["operations"]} == {"finished"}

    def test_lines_only(self, user: User) -> None:
        assert "--output json" in user("watch", "-o", "csv", status=2).err


def test_the_server_is_waited_for_when_it_is_busy(user: User, branch: Branch, lamp: Lamp) -> None:
    """A change while another is under way is answered 423, and tried again."""
    made = branch("contended")
    lamp.call("POST", f"/projects/{user.project}/endpoints/{made['endpoints'][0]['id']}/restart")
    assert user.json("endpoints", "suspend", "--branch", "contended")["endpoint"]["current_state"] == "idle"
    wait_for(lambda: lamp.settle(user.project), what="the end")
