"""Rotations by the `lamp keys` command against `lamp up` and six stores: what a team would see, and what goes wrong."""

from __future__ import annotations

import json
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lamplighter.api.secret import Secret
from lamplighter.keys.journal import Journal
from lamplighter.keys.naming import Naming
from lamplighter.keys.neon import NeonKeys
from lamplighter.keys.records import Scope
from lamplighter.keys.rotate import Clock, Rotation
from lamplighter.keys.sinks.registry import parse_sink
from support.keys.surroundings import REPOSITORY, Stores, Team, all_stores
from support.lamp import Lamp
from support.stores.cloudflare import wrangler_client
from support.stores.github import gh_client
from support.stores.leaks import leaks
from support.stores.server import Fault
from support.waiting import wait_for

pytestmark = pytest.mark.timeout(300)

READABLE = ("dotenv", "openbao", "keychain", "aws")
BLIND = ("github", "cloudflare")


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with all_stores() as found:
        yield found


@pytest.fixture
def team(lamp: Lamp, stores: Stores, tmp_path: Path) -> Iterator[Team]:
    found = Team(lamp, stores, tmp_path)
    yield found
    found.clear()


def test_a_rotation_to_every_store(team: Team, lamp: Lamp, tmp_path: Path) -> None:
    """The old key is dead, the new one is what every store holds, and `gh`, `wrangler` and the history tell of it."""
    project = lamp.project(name=team.name)["project"]
    reach = f"/projects/{project['id']}"
    pattern = f"{team.name}-{{year}}-Q{{quarter}}"
    first = team.json("mint", "--name", pattern, "--project-id", project["id"], *team.to())
    assert (first["state"], first["lineage"], first["scope"]["kind"]) == ("done", team.name, "project")
    old = team.held("dotenv")
    assert old is not None
    assert team.status(old, reach) == 200
    before = dict(team.stores.cloudflare.named(team.stores.store_id, team.place) or {})

    second = team.json("rotate", team.name, "--soak", "0")
    assert (second["state"], second["revoked"], second["error"]) == ("done", [first["key_id"]], None)
    values = {name: team.held(name) for name in team.sinks}
    new = values["dotenv"]
    assert new is not None
    renewed = new != old
    assert renewed
    equal = {name: value == new for name, value in values.items()}
    assert equal == dict.fromkeys(team.sinks, True)
    assert {name: team.status(values[name], reach) for name in READABLE} == dict.fromkeys(READABLE, 200)
    assert team.status(old) == 401
    assert team.live(project["org_id"]) == {second["key_id"]: second["name"]}
    proofs = {each["address"].partition("?")[0]: each["proof"] for each in second["sinks"]}
    expected = {team.sinks[name]: "value" for name in READABLE} | {team.sinks[name]: "metadata" for name in BLIND}
    assert proofs == expected

    (tmp_path / "clients").mkdir()
    with gh_client(team.stores.github, tmp_path / "clients") as gh:
        listed = json.loads(gh("secret", "list", "-R", REPOSITORY, "--json", "name,updatedAt"))
    assert team.place in {each["name"] for each in listed}
    after = team.stores.cloudflare.named(team.stores.store_id, team.place) or {}
    table = wrangler_client(team.stores.cloudflare, tmp_path / "clients")(
        "secrets-store", "secret", "list", team.stores.store_id, "--remote"
    )
    assert after["id"] == before["id"]
    assert f"key {second['key_id']}, rotation {second['rid']}" in table

    history = team.json("history", team.name)
    kinds = Counter(each["kind"] for each in history if each.get("rid") == second["rid"])
    assert kinds["stored"] == len(team.sinks)
    assert (kinds["minted"], kinds["verified"], kinds["revoked"], kinds["done"]) == (1, 1, 1, 1)
    told = team.keys("history", team.name).out
    assert f"key {first['key_id']} is revoked" in told
    journal = (team.state_dir / "journal.jsonl").read_text()
    leaked = leaks(told + json.dumps(history) + journal + table + json.dumps([first, second]), old, new)
    assert not leaked
    assert leaks(told + new.decode(), new), "a leak would not be found"
    lamp.call("DELETE", reach)


# What goes wrong


def test_a_store_that_goes_down_in_the_middle(team: Team) -> None:
    """Both keys work meanwhile; once the store is back, `recover` ends what was begun with the key that was made."""
    team.keys("mint", "--name", team.name, *team.to())
    old = team.held("dotenv")
    team.stores.github.fail(Fault(503, b"{}", {"Retry-After": "0"}), when=lambda request: request.method == "PUT")
    try:
        ran = team.keys("rotate", team.name, "--soak", "0", "--output", "json", status=1)
    finally:
        team.stores.github.mend()
    assert (ran.error["code"], "503" in ran.error["message"]) == ("sink_unreachable", True)
    new = team.held("dotenv")
    assert [team.status(old), team.status(new)] == [200, 200]
    untouched = team.held("github") == old
    assert untouched
    assert len(team.live()) == 2
    [status] = team.json("status")
    assert status["needs_recover"]

    [outcome] = team.json("recover")
    assert outcome["state"] == "done"
    equal = [team.held(name) == new for name in team.sinks]
    assert all(equal)
    assert [team.status(old), team.status(new), len(team.live())] == [401, 200, 1]


def test_a_disk_without_room_for_the_journal(team: Team) -> None:
    """Neon and the stores hear of nothing; with room it is as if nothing had been."""

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    words = ("mint", "--name", team.name, *team.to("dotenv", "github"))
    ran = team.keys(*words, "--output", "json", status=1, before=full)
    assert (ran.error["code"], "no room" in ran.error["message"]) == ("journal_full", True)
    assert (team.live(), team.held("dotenv"), team.held("github")) == ({}, None, None)
    team.keys(*words)
    assert team.status(team.held("dotenv")) == 200


def test_a_line_of_the_journal_that_was_torn_by_a_crash(team: Team) -> None:
    """Killed after the first store, with half a line written: it does not count, and recovery ends the rotation."""
    team.keys("mint", "--name", team.name, *team.to("dotenv", "cloudflare"))
    old = team.held("dotenv")
    hook = '[ "$LAMP_KEYS_STEP" = store ] && kill -9 $PPID; true'
    team.keys("rotate", team.name, "--soak", "0", "--after", hook, status=-signal.SIGKILL)
    journal = team.state_dir / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:60])
    assert team.json("status")[0]["needs_recover"]
    assert team.keys("history", team.name).out
    [outcome] = team.json("recover")
    assert outcome["state"] == "done"
    assert journal.read_bytes().startswith(whole)
    new = team.held("dotenv")
    same = team.held("cloudflare") == new
    assert same
    assert [team.status(old), team.status(new), len(team.live())] == [401, 200, 1]


def test_a_line_in_the_middle_of_the_journal_that_makes_no_sense(team: Team) -> None:
    """It is said which, and nothing is done on the strength of the rest."""
    team.keys("mint", "--name", team.name, *team.to("dotenv"))
    journal = team.state_dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"{what\n", *lines[1:]]))
    for words in (("status",), ("rotate", team.name), ("recover",)):
        ran = team.keys(*words, status=1)
        assert "line 2 of the journal makes no sense" in ran.err
    assert len(team.live()) == 1
    journal.write_bytes(b"".join(lines))
    assert team.json("rotate", team.name, "--soak", "0")["state"] == "done"


def test_two_machines_at_once(team: Team, tmp_path: Path) -> None:
    """The other has a journal of its own, and sees from Neon's list that somebody is at work."""
    other = {"XDG_STATE_HOME": str(tmp_path / "other")}
    words = ("mint", "--name", team.name, *team.to("dotenv"))
    ready, go = tmp_path / "ready", tmp_path / "go"
    hook = f'if [ "$LAMP_KEYS_STEP" = store ]; then touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done; fi'
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(team.json, *words, "--before", hook)
        try:
            wait_for(lambda: ready.exists() or first.done(), what="the first machine's key")
            ran = team.keys(*words, "--output", "json", status=4, env=other)
        finally:
            go.touch()
        made = first.result(60)
    assert ran.error["code"] == "busy"
    assert made["state"] == "done"
    assert set(team.live()) == {made["key_id"]}
    assert team.status(team.held("dotenv")) == 200


def test_somebody_else_revokes_the_old_key_during_the_soak(team: Team, lamp: Lamp) -> None:
    first = team.json("mint", "--name", team.name, *team.to("dotenv", "openbao"))
    assert team.json("rotate", team.name, "--soak", "1h", "--no-wait")["state"] == "soaking"
    lamp.call("DELETE", f"/api_keys/{first['key_id']}")
    [outcome] = team.json("recover")
    assert outcome["state"] == "done"
    assert [team.status(team.held(each)) for each in ("dotenv", "openbao")] == [200, 200]


def test_somebody_else_revokes_the_new_key_during_the_soak(team: Team, lamp: Lamp) -> None:
    """Every store gets another that works, and the old key lives through a soak of that one."""
    first = team.json("mint", "--name", team.name, *team.to("dotenv", "github"))
    old = team.held("dotenv")
    second = team.json("rotate", team.name, "--soak", "1h", "--no-wait")
    assert second["state"] == "soaking"
    lamp.call("DELETE", f"/api_keys/{second['key_id']}")
    assert team.status(team.held("dotenv")) == 401
    [third] = team.json("recover")
    assert (third["state"], third["error"]) == ("soaking", None)
    assert set(team.live()) == {first["key_id"], third["key_id"]}
    new = team.held("dotenv")
    same = team.held("github") == new
    assert same
    assert [team.status(old), team.status(new)] == [200, 200]


def test_a_clock_that_steps_back(team: Team, lamp: Lamp, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a day, in the middle of a soak: the old key lives longer, never shorter, and the journal is still read."""
    for name, text in team.env.items():
        monkeypatch.setenv(name, text)
    team.keys("mint", "--name", team.name, *team.to("dotenv"))
    old = team.held("dotenv")
    day = timedelta(days=1)
    offset, naps = timedelta(), 0

    def nap(seconds: float) -> None:
        nonlocal offset, naps
        naps += 1
        offset += timedelta(seconds=seconds)
        if naps == 1:
            offset -= day

    clock = Clock(now=lambda: datetime.now(UTC) + offset, sleep=nap)
    sink = parse_sink(team.sinks["dotenv"])
    with NeonKeys(base_url=lamp.url, api_key=Secret(lamp.key)) as server, Journal(team.state_dir) as journal:
        scope = Scope(kind="personal")
        rotation = Rotation(server, journal, Naming(team.name), scope=scope, sinks=[sink], soak=60, clock=clock)
        outcome = rotation.run()
    assert outcome.state == "done"
    # Naps are of half a minute at most.
    assert naps > day.total_seconds() / 30
    assert [team.status(old), team.status(team.held("dotenv"))] == [401, 200]
    assert team.json("status")[0]["key_id"] == outcome.key_id
    assert team.json("rotate", team.name, "--soak", "0")["revoked"] == [outcome.key_id]
