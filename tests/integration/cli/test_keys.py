"""`lamp keys` against a real platform: every verb, as a user and as a job run it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.lamp import Lamp
from support.waiting import wait_for

from .conftest import Cli, Ran

pytestmark = pytest.mark.timeout(240)

START = (sys.executable, "-m", "lamplighter", "keys")


class Keeper:
    """Runs `lamp keys` in a directory of its own, with the context that `lamp up` wrote and a journal of its own."""

    def __init__(self, cli: Cli, lamp: Lamp, place: Path) -> None:
        self.cli = cli
        self.lamp = lamp
        self.place = place
        self.env = {
            "XDG_CONFIG_HOME": str(lamp.config_home),
            "XDG_STATE_HOME": str(place / "state"),
            "HOME": str(place),
        }

    def __call__(self, *words: str | Path, status: int = 0, **env: str) -> Ran:
        ran = self.cli("keys", *words, env={**self.env, **env})
        assert ran.status == status, ran.out + ran.err
        assert "napi_" not in ran.out + ran.err
        return ran

    def json(self, *words: str | Path, status: int = 0) -> Any:
        return json.loads(self(*words, "--output", "json", status=status).out)

    def store(self, name: str = ".env") -> str:
        return f"dotenv:{self.place / name}#NEON_API_KEY"

    def value(self, name: str = ".env") -> str:
        return (self.place / name).read_text().strip().removeprefix("NEON_API_KEY=")

    def works(self, key: str, path: str = "/auth") -> bool:
        return self.lamp.request("GET", path, key=key).status_code == 200

    def live(self, org_id: str | None = None) -> dict[int, str]:
        path = f"/organizations/{org_id}/api_keys" if org_id else "/api_keys"
        return {each["id"]: each["name"] for each in self.lamp.call("GET", path)}

    def made(self, name: str) -> dict[str, Any]:
        """A key that somebody else made."""
        found: dict[str, Any] = self.lamp.call("POST", "/api_keys", {"key_name": name})
        return found

    def policy(self, text: str) -> Path:
        path = self.place / "lamp-keys.toml"
        path.write_text(f"version = 1\n{text}")
        return path


@pytest.fixture
def keeper(cli: Cli, lamp: Lamp, tmp_path: Path) -> Iterator[Keeper]:
    yield Keeper(cli, lamp, tmp_path)
    # To the journal of the next test these would be another machine's.
    mine = min(key["id"] for key in lamp.call("GET", "/api_keys") if key["name"] == "lamp up")
    for key in lamp.call("GET", "/api_keys"):
        if key["id"] != mine:
            lamp.call("DELETE", f"/api_keys/{key['id']}")


@pytest.fixture(scope="module")
def project(lamp: Lamp) -> Iterator[dict[str, Any]]:
    made = lamp.project(name="key manager")["project"]
    yield made
    lamp.call("DELETE", f"/projects/{made['id']}")


class TestMintAndRotate:
    def test_the_old_key_dies_and_the_new_one_is_everywhere(self, keeper: Keeper) -> None:
        stores = ["--to", keeper.store(), "--to", keeper.store("b.env")]
        first = keeper.json("mint", "--name", "ci-2026-Q4", *stores)
        assert (first["state"], first["lineage"], first["error"]) == ("done", "ci", None)
        assert {each["proof"] for each in first["sinks"]} == {"value"}
        old = keeper.value()
        assert old == keeper.value("b.env")
        assert keeper.works(old)
        second = keeper.json("rotate", "ci", "--soak", "0")
        assert second["revoked"] == [first["key_id"]]
        assert not keeper.works(old)
        assert keeper.works(keeper.value())
        assert keeper.value() == keeper.value("b.env")
        told = keeper("history", "ci").out
        assert f"key {first['key_id']} is revoked" in told
        leaked = [each for each in (old, keeper.value()) if each in told or each[5:17] in told]
        assert leaked == []

    def test_a_key_for_one_project(self, keeper: Keeper, project: dict[str, Any]) -> None:
        made = keeper.json("mint", "--name", "narrow", "--project-id", project["id"], "--to", keeper.store())
        assert made["scope"] == {"kind": "project", "org_id": project["org_id"], "project_id": project["id"]}
        assert keeper.works(keeper.value(), f"/projects/{project['id']}")
        assert not keeper.works(keeper.value(), "/users/me")
        listed = [each for each in keeper.json("list") if each["id"] == made["key_id"]]
        assert [(each["scope"], each["lineage"], each["role"]) for each in listed] == [("project", "narrow", "current")]
        keeper("revoke", str(made["key_id"]), "--force", "--yes")
        assert not keeper.works(keeper.value())

    def test_a_key_that_a_person_made_is_taken_over(self, keeper: Keeper) -> None:
        made = keeper.made("by hand")
        (keeper.place / ".env").write_text(f"NEON_API_KEY={made['key']}\n")
        (keeper.place / ".env").chmod(0o600)
        outcome = keeper.json("rotate", "--id", str(made["id"]), "--to", keeper.store(), "--soak", "0")
        assert outcome["revoked"] == [made["id"]]
        assert not keeper.works(made["key"])
        assert keeper.works(keeper.value())

    def test_a_store_that_is_down_leaves_everything_as_it_was(self, keeper: Keeper) -> None:
        before = keeper.live()
        nowhere = f"dotenv:{keeper.place / 'none' / '.env'}#NEON_API_KEY"
        ran = keeper("mint", "--name", "ci", "--to", nowhere, "-o", "json", status=3)
        error = json.loads(ran.err.splitlines()[-1])["error"]
        assert (error["code"], error["exit_code"]) == ("sink_not_found", 3)
        assert keeper.live() == before

    def test_a_smoke_command_that_fails_keeps_the_old_key(self, keeper: Keeper) -> None:
        keeper("mint", "--name", "ci", "--to", keeper.store())
        old = keeper.value()
        ran = keeper("rotate", "ci", "--soak", "0", "--smoke", "exit 3", "-o", "json", status=1)
        assert json.loads(ran.err.splitlines()[-1])["error"]["code"] == "not_proven"
        assert keeper.works(old)
        assert keeper.json("status")[0]["waits_for"] == "its proof"
        assert "run `exit 3`" in keeper("recover", status=1).err
        assert "one LINEAGE" in keeper("recover", "--skip-smoke", status=2).err
        assert keeper.works(old)
        assert keeper("audit", status=4).out.count("lamp keys recover") == 1
        assert keeper.works(keeper.value())

    @pytest.mark.parametrize("how", [("--smoke", 'test "$WANTED" = yes', "--allow", "WANTED"), ("--skip-smoke",)])
    def test_a_smoke_command_that_was_wrong_is_no_dead_end(self, keeper: Keeper, how: tuple[str, ...]) -> None:
        keeper("mint", "--name", "ci", "--to", keeper.store())
        old = keeper.value()
        keeper("rotate", "ci", "--soak", "0", "--smoke", "exit 3", status=1)
        keeper("recover", "ci", *how, WANTED="yes")
        assert not keeper.works(old)
        assert keeper.works(keeper.value())

    def test_a_soak_may_be_ended_early(self, keeper: Keeper) -> None:
        keeper("mint", "--name", "ci", "--to", keeper.store())
        old = keeper.value()
        assert keeper.json("rotate", "ci", "--no-wait", "--soak", "1h")["state"] == "soaking"
        ended = keeper.json("rotate", "ci", "--soak", "0")
        assert (ended["state"], len(ended["revoked"])) == ("done", 1)
        assert not keeper.works(old)
        assert keeper.works(keeper.value())

    def test_a_second_key_of_a_lineage_is_a_rotation(self, keeper: Keeper) -> None:
        keeper("mint", "--name", "ci", "--to", keeper.store())
        assert "lamp keys rotate ci" in keeper("mint", "--name", "ci", "--to", keeper.store(), status=4).err

    def test_a_key_needs_a_place(self, keeper: Keeper) -> None:
        assert "--to" in keeper("mint", "--name", "ci", status=2).err

    def test_a_soak_goes_on_in_a_later_run(self, keeper: Keeper) -> None:
        keeper("mint", "--name", "ci", "--to", keeper.store())
        old = keeper.value()
        assert keeper.json("rotate", "ci", "--no-wait", "--soak", "2s")["state"] == "soaking"
        assert keeper.works(old)

        # It was used after the soak began, just now: it is held back once, and soaks again.
        wait_for(
            lambda: keeper.cli("keys", "recover", "--wait", env=keeper.env).status == 0, what="the end of the soak"
        )
        assert not keeper.works(old)
        assert keeper.json("recover") == []

    def test_hooks_hear_of_every_step(self, keeper: Keeper) -> None:
        log = keeper.place / "log"
        hook = f'echo "$LAMP_KEYS_STEP $LAMP_KEYS_LINEAGE" >> {log}'
        keeper("mint", "--name", "ci", "--to", keeper.store(), "--after", hook)
        assert log.read_text().splitlines() == ["mint ci", "store ci", "verify ci"]

    def test_a_hook_that_fails_stops_it_there(self, keeper: Keeper) -> None:
        before = keeper.live()
        keeper("mint", "--name", "ci", "--to", keeper.store(), "--before", '[ "$LAMP_KEYS_STEP" != store ]', status=1)
        assert len(keeper.live()) == len(before) + 1
        keeper("recover")
        assert keeper.live() == before

    def test_a_dry_run_shows_the_order_and_changes_nothing(self, keeper: Keeper) -> None:
        before = keeper.live()
        blind = f"command:sh -c 'cat > {keeper.place}/blind'"
        words = ["mint", "--name", "ci-{year}", "--to", blind, "--to", keeper.store()]
        [fact] = keeper.json(*words, "--dry-run")
        assert [each["address"] for each in fact["sinks"]] == [keeper.store(), blind]
        assert keeper.live() == before
        assert not (keeper.place / "state").exists()
        keeper(*words, "--soak", "0")
        stored = [each["sink"] for each in keeper.json("history") if each["kind"] == "stored"]
        assert stored == [keeper.store(), blind]


class TestInterrupted:
    @pytest.mark.parametrize("step", ["mint", "store", "verify"])
    def test_killed_and_recovered(self, keeper: Keeper, step: str) -> None:
        """SIGKILL after a step: `recover` leaves one working key, or all as it was."""
        before = keeper.live()
        hook = f'[ "$LAMP_KEYS_STEP" = {step} ] && kill -9 $PPID; true'
        words = ["mint", "--name", "ci", "--to", keeper.store(), "--after", hook]
        ran = keeper.cli("keys", *words, env=keeper.env)
        assert ran.status == -signal.SIGKILL
        assert keeper.json("status")[0]["needs_recover"]
        keeper("recover")
        ours = set(keeper.live()) - set(before)
        if step == "mint":
            assert ours == set()
            assert not (keeper.place / ".env").exists()
        else:
            assert len(ours) == 1
            assert keeper.works(keeper.value())
        assert keeper("recover").err == "Nothing is unfinished.\n"

    def test_only_one_at_a_time(self, keeper: Keeper) -> None:
        keeper("mint", "--name", "ci", "--to", keeper.store())
        ready, go = keeper.place / "ready", keeper.place / "go"
        hook = f"touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done"
        words = ["keys", "rotate", "ci", "--soak", "0", "--before", hook]
        first = subprocess.Popen(
            [sys.executable, "-m", "lamplighter", *words],
            env={**os.environ, **keeper.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(ready.exists, what="the first rotation")
            assert "another process is at work" in keeper("rotate", "ci", status=4).err
            go.touch()
            out, _ = first.communicate(timeout=60)
        finally:
            first.kill()
            first.wait()
        assert first.returncode == 0, out


class TestPolicy:
    def text(self, keeper: Keeper, more: str = "") -> str:
        return f'[lineage.app]\nscope = "personal"\nowner = "team@example.com"\nsinks = ["{keeper.store()}"]\n{more}'

    def test_what_is_due_is_rotated(self, keeper: Keeper) -> None:
        policy = keeper.policy(self.text(keeper, 'soak = "0"\n'))
        [first] = keeper.json("rotate", "--due", "--policy", policy)
        assert (first["lineage"], first["state"]) == ("app", "done")
        assert keeper.json("rotate", "--due", "--policy", policy) == []
        [second] = keeper.json("rotate", "--due", "--within", "90d", "--policy", policy)
        assert second["revoked"] == [first["key_id"]]
        [listed] = keeper.json("list", "--lineage", "app", "--policy", policy)
        assert (listed["owner"], listed["role"]) == ("team@example.com", "current")

    def test_a_typo_is_an_error_with_its_line(self, keeper: Keeper) -> None:
        policy = keeper.policy(self.text(keeper, 'sok = "0"\n'))
        for words in (["rotate", "--due"], ["audit"], ["plan"], ["sinks", "list"]):
            assert "line 6" in keeper(*words, "--policy", policy, status=2).err

    def test_one_failure_does_not_stop_the_others(self, keeper: Keeper) -> None:
        broken = '[lineage.bad]\nscope = "personal"\nsinks = ["dotenv:/nowhere/at/all#KEY"]\n'
        policy = keeper.policy(broken + self.text(keeper))
        found = {each["lineage"]: each for each in keeper.json("rotate", "--due", "--policy", policy, status=3)}
        assert found["app"]["state"] == "done"
        assert found["bad"]["error"]["code"] == "sink_not_found"

    def test_audit_ends_with_what_it_found(self, keeper: Keeper) -> None:
        policy = keeper.policy(self.text(keeper, 'soak = "0"\n'))
        keeper("rotate", "--due", "--policy", policy)
        orphan = keeper.made("lamp.app.abcdefghij")
        found = json.loads(keeper("audit", "--policy", policy, "-o", "json", status=1).out)
        assert "K007" in {each["rule"] for each in found["findings"]}
        refused = keeper("revoke", str(orphan["id"]), "--yes", "--policy", policy, status=1)
        assert "a store may hold it" in refused.err
        keeper("revoke", str(orphan["id"]), "--yes", "--force", "--policy", policy)
        assert not keeper.works(orphan["key"])
        after = json.loads(keeper("audit", "--policy", policy, "--fail-on", "critical", "-o", "json").out)
        assert "K007" not in {each["rule"] for each in after["findings"]}
        for form in ("markdown", "sarif", "prometheus", "csv"):
            assert keeper("audit", "--policy", policy, "--fail-on", "critical", "-o", form).out
        assert keeper.json("status")[0]["key_id"] is not None

    def test_without_a_policy_the_minter_is_nobodys_but_ours(self, keeper: Keeper) -> None:
        keeper("mint", "--name", "ci", "--to", keeper.store())
        stranger = keeper.made("by hand")
        found = json.loads(keeper("audit", "-o", "json", status=1).out)["findings"]
        assert {each["key_id"] for each in found if each["rule"] == "K005"} >= {stranger["id"]}
        mine = min(key["id"] for key in keeper.lamp.call("GET", "/api_keys") if key["name"] == "lamp up")
        assert mine not in {each["key_id"] for each in found if each["rule"] == "K005"}

    def test_audit_that_cannot_look_is_never_clean(self, keeper: Keeper) -> None:
        keeper("audit", "--minter", "file:missing", status=3)
        wrong = keeper.place / "wrong"
        wrong.write_text("napi_wrong\n")
        wrong.chmod(0o600)
        keeper("audit", "--minter", f"file:{wrong}", "--api-host", keeper.lamp.url, status=3)

    def test_the_plan_checks_stores(self, keeper: Keeper) -> None:
        policy = keeper.policy(self.text(keeper))
        [fact] = keeper.json("plan", "--check", "--policy", policy)
        assert (fact["action"], fact["due"], fact["sinks"][0]["check"]["ok"]) == ("mint", True, True)
        assert "mint its first key" in keeper("plan", "--policy", policy).out


class TestMinter:
    def test_from_a_file_and_a_descriptor(self, keeper: Keeper) -> None:
        path = keeper.place / "minter"
        path.write_text(keeper.lamp.key)
        path.chmod(0o600)
        host = ["--api-host", keeper.lamp.url]
        keeper("list", "--minter", f"file:{path}", *host)
        with path.open() as file:
            done = subprocess.run(
                [*START, "list", "--minter", f"fd:{file.fileno()}", *host],
                env={**os.environ, **keeper.env},
                pass_fds=[file.fileno()],
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        path.chmod(0o644)
        assert "chmod 600" in keeper("list", "--minter", f"file:{path}", *host, status=5).err

    def test_a_key_in_the_place_of_its_place_is_not_repeated(self, keeper: Keeper) -> None:
        ran = keeper.cli("keys", "list", env={**keeper.env, "LAMP_KEYS_MINTER": keeper.lamp.key})
        assert ran.status == 2
        assert keeper.lamp.key not in ran.err

    def test_the_environment_holds_no_minter(self, keeper: Keeper, tmp_path: Path) -> None:
        env = {"NEON_API_KEY": keeper.lamp.key, "XDG_CONFIG_HOME": str(tmp_path / "empty")}
        assert "NEON_API_KEY is not used" in keeper("list", status=5, **env).err

    def test_an_organizations_key_may_look_and_not_mint(self, keeper: Keeper, project: dict[str, Any]) -> None:
        org = project["org_id"]
        made = keeper.lamp.call("POST", f"/organizations/{org}/api_keys", {"key_name": "auditor"})
        path = keeper.place / "auditor"
        path.write_text(made["key"])
        path.chmod(0o600)
        words = ["--minter", f"file:{path}", "--api-host", keeper.lamp.url]
        assert made["id"] in {each["id"] for each in keeper.json("list", *words)}
        before = keeper.live(org)
        keeper("mint", "--name", "ci", "--org-id", org, "--to", keeper.store(), *words, status=5)
        assert keeper.live(org) == before
        said = keeper.json("init", "--no-policy", *words)
        assert any("mint any key" in each for each in said["cannot"])
        keeper.lamp.call("DELETE", f"/organizations/{org}/api_keys/{made['id']}")

    def test_init_stores_a_key_and_writes_a_policy(self, keeper: Keeper) -> None:
        made = keeper.made("minter")
        place = keeper.place / "minter.key"
        done = subprocess.run(
            [*START, "init", "--minter", f"file:{place}", "--key-stdin", "--api-host", keeper.lamp.url, "-o", "json"],
            env={**os.environ, **keeper.env},
            cwd=keeper.place,
            input=made["key"] + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["kind"], said["key_id"]) == ("personal", made["id"])
        assert made["key"] not in done.stdout + done.stderr
        assert place.stat().st_mode & 0o777 == 0o600
        policy = keeper.place / "lamp-keys.toml"
        assert f"minter_id = {made['id']}" in policy.read_text()
        roles = {each["id"]: each["role"] for each in keeper.json("list", "--policy", policy)}
        assert roles[made["id"]] == "minter"
        # It works with this key, and so does not revoke it.
        assert (
            "the one that we work with"
            in keeper("revoke", str(made["id"]), "--force", "--yes", "--policy", policy, status=5).err
        )

    def test_init_refuses_a_key_that_does_not_work(self, keeper: Keeper) -> None:
        place = keeper.place / "minter.key"
        words = ["keys", "init", "--minter", f"file:{place}", "--key-stdin", "--api-host", keeper.lamp.url]
        done = subprocess.run(
            [sys.executable, "-m", "lamplighter", *words],
            env={**os.environ, **keeper.env},
            cwd=keeper.place,
            input="napi_wrong",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 5, done.stderr
        assert not place.exists()

    def test_an_argument_is_no_place_for_a_key(self, keeper: Keeper) -> None:
        made = keeper.made("seen")
        ran = keeper.cli("keys", "emergency", made["key"], "--yes", env=keeper.env)
        assert ran.status == 2
        assert made["key"] not in ran.err


class TestEmergency:
    def leaked(self, keeper: Keeper, value: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*START, "emergency", "--stdin", "--yes", "--output", "json", *words],
            env={**os.environ, **keeper.env},
            input=value + "\n",
            capture_output=True,
            text=True,
            check=False,
        )

    def test_the_leaked_value_of_a_lineage(self, keeper: Keeper) -> None:
        keeper("mint", "--name", "ci", "--to", keeper.store())
        old = keeper.value()
        done = self.leaked(keeper, old)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["found_by"], said["revoked"], said["replacement"]["state"]) == ("journal", True, "done")
        assert old not in done.stdout + done.stderr
        assert not keeper.works(old)
        assert keeper.works(keeper.value())

    def test_a_value_that_nobody_wrote_down(self, keeper: Keeper) -> None:
        made = keeper.made("elsewhere")
        done = self.leaked(keeper, made["key"])
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["key_id"], said["found_by"], said["replacement"]) == (made["id"], "use", None)
        assert not keeper.works(made["key"])
        again = json.loads(self.leaked(keeper, made["key"]).stdout)
        assert (again["was_live"], again["found_by"]) == (False, "journal")
        assert self.leaked(keeper, "napi_never_there").returncode == 3

    def test_swapped_by_name(self, keeper: Keeper) -> None:
        keeper("mint", "--name", "ci-2026-Q4", "--to", keeper.store())
        old = keeper.value()
        said = keeper.json("emergency", "ci-2026-Q4", "--swap", "--yes")
        assert (said["revoked"], said["replacement"]["state"]) == (True, "done")
        assert not keeper.works(old)
        assert keeper.works(keeper.value())

    def test_the_new_key_of_a_rotation_that_soaks_is_swapped_too(self, keeper: Keeper) -> None:
        """That rotation ends first, and its end is not taken for the replacement."""
        keeper("mint", "--name", "ci", "--to", keeper.store())
        old = keeper.value()
        keeper("rotate", "ci", "--no-wait", "--soak", "1h")
        leaked = keeper.value()
        said = json.loads(self.leaked(keeper, leaked, "--swap").stdout)
        assert (said["revoked"], said["replacement"]["state"]) == (True, "done")
        assert said["replacement"]["key_id"] != said["key_id"]
        assert [keeper.works(each) for each in (old, leaked, keeper.value())] == [False, False, True]

    def test_it_waits_for_no_rotation(self, keeper: Keeper) -> None:
        """The leaked key dies at once, the rotation that has the lock sees it and goes on to its end."""
        keeper("mint", "--name", "ci", "--to", keeper.store())
        old = keeper.value()
        ready, go = keeper.place / "ready", keeper.place / "go"
        hook = f'[ "$LAMP_KEYS_STEP" != store ] || {{ touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done; }}'
        rotating = subprocess.Popen(
            [*START, "rotate", "ci", "--soak", "0", "--before", hook],
            env={**os.environ, **keeper.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(ready.exists, what="the rotation")
            done = self.leaked(keeper, old)
            assert not keeper.works(old)
            go.touch()
            out, _ = rotating.communicate(timeout=60)
        finally:
            rotating.kill()
            rotating.wait()
        said = json.loads(done.stdout)
        assert (done.returncode, said["revoked"], said["found_by"]) == (4, True, "journal")
        assert said["unrecorded"]["records"] == ["revoke_intent", "revoked"]
        assert (said["unrecorded"]["code"], said["replacement"]["error"]["code"]) == ("busy", "busy")
        assert rotating.returncode == 0, out
        assert keeper.works(keeper.value())
        assert keeper.json("status")[0]["needs_recover"] is False
        assert "is revoked; not by us" in keeper("history", "ci").out

    def test_a_full_disk_is_not_in_the_way(self, keeper: Keeper) -> None:
        """What the journal cannot take is said."""
        made = keeper.json("mint", "--name", "ci", "--to", keeper.store())
        journal = keeper.place / "state" / "lamplighter" / "keys" / "journal.jsonl"
        size = journal.stat().st_size

        def fill() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        done = subprocess.run(
            [*START, "emergency", str(made["key_id"]), "--yes"],
            env={**os.environ, **keeper.env},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=fill,
        )
        assert not keeper.works(keeper.value())
        assert journal.stat().st_size == size
        assert done.returncode == 1, done.stderr
        assert "NOT IN THE JOURNAL (revoke_intent, revoked): no room" in done.stderr
        assert f"key {made['key_id']}" in done.stderr
        # With room it is made up for.
        again = keeper.json("emergency", str(made["key_id"]), "--yes")
        assert (again["was_live"], again["replacement"]["state"]) == (False, "done")
        assert keeper.works(keeper.value())

    @pytest.mark.parametrize("point", range(1, 7))
    def test_killed_in_the_middle_of_a_revocation(self, keeper: Keeper, point: int) -> None:
        """Before its intent is on disk nothing happened; from there on `recover` ends it, and tells of it."""
        made = keeper.json("mint", "--name", "ci", "--to", keeper.store())
        words = ["keys", "emergency", str(made["key_id"]), "--no-replace", "--yes"]
        ran = keeper.cli(*words, env={**keeper.env, "LAMP_FAULT": f"keys.*:{point}"})
        assert ran.status == -signal.SIGKILL
        keeper("recover")
        assert keeper.works(keeper.value()) == (point == 1)
        [status] = keeper.json("status")
        assert (status["unfinished"], status["revoked"]) == (False, [] if point == 1 else [made["key_id"]])

    def test_only_cut(self, keeper: Keeper) -> None:
        made = keeper.json("mint", "--name", "ci", "--to", keeper.store())
        said = keeper.json("emergency", str(made["key_id"]), "--no-replace", "--yes")
        assert (said["revoked"], said["replacement"], said["may_hold"]) == (True, None, [keeper.store()])
        assert not keeper.works(keeper.value())

    def test_nobody_is_asked_without_a_terminal(self, keeper: Keeper) -> None:
        made = keeper.json("mint", "--name", "ci", "--to", keeper.store())
        assert "--yes" in keeper("emergency", str(made["key_id"]), status=2).err
        keeper("emergency", str(made["key_id"]), "--dry-run")
        assert keeper.works(keeper.value())


class TestEnding:
    def test_what_a_store_holds_is_not_revoked(self, keeper: Keeper) -> None:
        made = keeper.json("mint", "--name", "ci", "--to", keeper.store())
        keeper("revoke", str(made["key_id"]), "--yes", status=1)
        assert keeper.works(keeper.value())
        keeper("forget", "ci", keeper.store(), "--yes")
        assert keeper.json("sinks", "list") == []

    def test_adopted_with_the_store_that_holds_it(self, keeper: Keeper) -> None:
        made = keeper.made("by hand")
        (keeper.place / ".env").write_text(f"NEON_API_KEY={made['key']}\n")
        (keeper.place / ".env").chmod(0o600)
        said = keeper.json("adopt", str(made["id"]), "--lineage", "app", "--to", keeper.store())
        assert (said["lineage"], said["recognised"]) == ("app", True)
        [store] = keeper.json("sinks", "list")
        assert (store["lineage"], store["may_hold"]) == ("app", [made["id"]])

    def test_a_store_with_a_dead_key_is_not_adopted(self, keeper: Keeper) -> None:
        made = keeper.made("by hand")
        (keeper.place / ".env").write_text("NEON_API_KEY=napi_dead\n")
        (keeper.place / ".env").chmod(0o600)
        keeper("adopt", str(made["id"]), "--to", keeper.store(), status=1)
        assert keeper.json("status") == []


class TestSinks:
    def test_a_trial_leaves_nothing(self, keeper: Keeper) -> None:
        said = keeper.json("sinks", "test", keeper.store(), "--write")
        assert (said["written"], said["there"]) == ("value", False)
        assert keeper.json("sinks", "test", keeper.store())["there"] is False

    def test_what_is_there_is_not_written_over(self, keeper: Keeper) -> None:
        made = keeper.json("mint", "--name", "ci", "--to", keeper.store())
        keeper("sinks", "test", keeper.store(), "--write", status=4)
        assert keeper.json("sinks", "test", keeper.store())["holds_key"] == made["key_id"]
        assert keeper.works(keeper.value())

    def test_kinds(self, keeper: Keeper) -> None:
        assert {"kind": "dotenv"} in keeper.json("sinks", "list", "--kinds")

    def test_an_address_that_is_none(self, keeper: Keeper) -> None:
        assert "dotenv:" in keeper("sinks", "test", "dotenv:.env", status=2).err
