"""Looking at everything, over the real client with a network of our own: what fails is a gap, and the rest goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx2
import pytest

from lamplighter import Neon
from lamplighter.keys.audit import audit
from lamplighter.keys.errors import SinkUnreachable
from lamplighter.keys.facts import Gap, Inventory
from lamplighter.keys.inventory import collect, note_use, read_uses
from lamplighter.keys.journal import FILE, Journal
from lamplighter.keys.policy import parse_policy
from lamplighter.keys.records import write_record
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.value import KeyBuffer
from unit.keys.audit_facts import DAY, NOW, ORG, POLICY, PROJECT, SINK, USER, adopted, name_of, rotation

KEY = "napi_" + "k" * 60


def listed(number: int, **facts: Any) -> dict[str, Any]:
    known = {
        "id": number,
        "name": name_of(number),
        "created_at": "2026-11-20T00:00:00Z",
        "created_by": {"id": USER, "name": "Ada", "image": ""},
        "last_used_at": "2026-11-22T11:00:00Z",
        "last_used_from_addr": "10.0.0.1, 10.0.0.2",
    }
    return {**known, **facts}


MEMBER = {"id": USER.replace("1", "9"), "user_id": USER, "org_id": ORG, "role": "admin"}
GONE = {"id": USER.replace("1", "8"), "user_id": USER.replace("1", "2"), "org_id": ORG, "role": "admin"}
ANSWERS: Mapping[str, Any] = {
    "/auth": {"account_id": USER, "auth_method": "api_key_user"},
    "/api_keys": [listed(1, name="minter")],
    f"/organizations/{ORG}/api_keys": [listed(5, project_id=PROJECT), listed(6, last_used_at=None)],
    f"/organizations/{ORG}/members": {
        "members": [
            {"member": MEMBER, "user": {"email": "ada@example.org"}},
            {"member": GONE, "user": {"email": "old@example.org", "deactivated_at": "2026-01-01T00:00:00Z"}},
        ]
    },
    "/projects": {"projects": [], "unavailable_project_ids": [PROJECT], "applications": {}, "integrations": {}},
}


class Store(Sink):
    """A store in memory."""

    kind: ClassVar[str] = "store"

    def __init__(self, value: bytes | None = None, *, fails: Exception | None = None, address: str = "a") -> None:
        self.value, self.fails, self.address = value, fails, address
        self.given: list[KeyBuffer] = []

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        return cls(address=address)

    def describe(self) -> str:
        return f"store:{self.address}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=True, effect="at once", soak=SOAK["at once"])

    def check(self) -> str:
        return "it is there"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        raise AssertionError("an audit changes nothing")

    def read_back(self) -> KeyBuffer | None:
        if self.value is None:
            return None
        self.given.append(KeyBuffer(bytearray(self.value)))
        return self.given[-1]

    def metadata(self) -> Receipt | None:
        if self.fails:
            raise self.fails
        return Receipt(updated_at=NOW) if self.value is not None else None

    def delete(self) -> None:
        raise AssertionError("an audit changes nothing")


def neon(broken: str = "", status: int = 500) -> Neon:
    def answer(request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/api/v2")
        if path == broken:
            return httpx2.Response(status, json={"message": f"no, not with {KEY}", "code": ""})
        return httpx2.Response(200, json=ANSWERS[path])

    return Neon(api_key=KEY, base_url="http://neon.example/api/v2", transport=httpx2.MockTransport(answer), retries=0)


def collected(directory: Path | None = None, *, broken: str = "", sinks: Mapping[str, Sink] | None = None) -> Inventory:
    with neon(broken) as client:
        return collect(
            client,
            parse_policy(POLICY),
            journal=directory,
            sinks={SINK: Store(b"value")} if sinks is None else sinks,
            clock=lambda: NOW,
        )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory whose journal knows that the value of key 6 is `value`."""
    directory = tmp_path / "state"
    with Journal(directory) as journal, KeyBuffer(bytearray(b"value")) as value:
        mac = value.mac(journal.salt)
        journal.append(adopted(6, NOW - DAY, mac=mac, sinks=["store:a"]))
    return directory


def test_everything_is_looked_at(state: Path):
    store = Store(b"value")
    found = collected(state, sinks={SINK: store})
    assert found.gaps == ()
    assert (found.account_id, found.server) == (USER, "http://neon.example/api/v2")
    assert [(each.id, each.kind, each.org_id) for each in found.keys] == [
        (1, "personal", None),
        (5, "project", ORG),
        (6, "organization", ORG),
    ]
    assert found.keys[1].last_used_from == ("10.0.0.1", "10.0.0.2")
    assert found.keys[2].last_used_at is None
    assert found.members == {ORG: frozenset({USER})}
    assert found.projects == {ORG: frozenset({PROJECT})}
    assert found.state is not None
    assert found.sinks[SINK].holds == found.state.lineages["ci"].keys[6].mac
    # The value itself was wiped.
    assert [bool(each) for each in store.given] == [False]


@pytest.mark.parametrize(
    ("broken", "gap"),
    [
        ("/auth", ("account", "")),
        ("/api_keys", ("personal keys", "")),
        (f"/organizations/{ORG}/api_keys", ("organization keys", ORG)),
        (f"/organizations/{ORG}/members", ("members", ORG)),
        ("/projects", ("projects", ORG)),
    ],
)
def test_one_list_that_fails_is_a_gap_and_the_rest_is_there(broken: str, gap: tuple[str, str], state: Path):
    found = collected(state, broken=broken)
    assert [(each.source, each.what) for each in found.gaps] == [gap]
    assert "500" in found.gaps[0].reason
    assert "kkkk" not in found.gaps[0].reason
    assert audit(found, parse_policy(POLICY), now=NOW).exit_code == 3
    assert len(found.keys) == {"personal keys": 2, "organization keys": 1}.get(gap[0], 3)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SinkUnreachable("does not answer", address="store:a"), "store:a: does not answer"),
        (RuntimeError(f"of somebody else's, with {KEY}"), "it failed with RuntimeError"),
    ],
)
def test_a_store_that_fails_is_a_gap_and_the_others_are_looked_at(error: Exception, said: str, state: Path):
    found = collected(state, sinks={SINK: Store(fails=error), "other": Store(b"x", address="b")})
    assert [(each.source, each.what, each.reason) for each in found.gaps] == [("sink", SINK, said)]
    assert set(found.sinks) == {"other"}


def test_a_store_without_the_secret_is_not_read(state: Path):
    fact = collected(state, sinks={SINK: Store()}).sinks[SINK]
    assert (fact.receipt, fact.was_read) == (None, False)


def test_values_are_not_read_where_nobody_wants_them(state: Path):
    store = Store(b"value")
    with neon() as client:
        found = collect(client, parse_policy(POLICY), journal=state, sinks={SINK: store}, read_values=False)
    assert store.given == []
    assert found.sinks[SINK].receipt is not None


def test_a_sink_that_only_the_journal_knows_and_nobody_can_make_is_a_gap(state: Path):
    with neon() as client:
        found = collect(client, parse_policy(POLICY), journal=state, sinks={})
    assert [(each.source, each.what) for each in found.gaps] == [("sink", "store:a")]


def test_a_journal_that_makes_no_sense_is_a_gap(state: Path):
    with (state / FILE).open("ab") as file:
        file.write(b"no record\n" + write_record(adopted(7, NOW)))
    found = collected(state)
    assert [each.source for each in found.gaps] == ["journal"]
    assert found.records is None


def test_a_journal_that_cannot_be_followed_is_a_gap(state: Path):
    with (state / FILE).open("ab") as file:
        file.write(write_record(rotation(8, NOW, until="minted")[1]))
    assert [each.source for each in collected(state).gaps] == ["journal"]


def test_a_salt_that_is_gone_is_a_gap(state: Path):
    with Journal(state) as journal:
        for record in rotation(7, NOW, until="minted"):
            journal.append(record)
    (state / "salt").unlink()
    assert [(each.source, "salt" in each.reason) for each in collected(state).gaps] == [("journal", True)]


def test_without_a_state_directory_there_is_no_journal_and_no_gap(tmp_path: Path):
    found = collected(None)
    assert (found.records, found.gaps, found.uses) == (None, (), ())
    empty = collected(tmp_path / "not there")
    assert (empty.records, empty.gaps) == ((), ())
    assert not (tmp_path / "not there").exists()


def test_a_minter_that_is_in_no_list_is_a_gap():
    with neon() as client:
        policy = parse_policy(POLICY)
        policy = replace(policy, neon=replace(policy.neon, minter_id=99))
        found = collect(client, policy, journal=None, sinks={}, own=frozenset({1}))
    assert found.gaps == (Gap(source="minter", reason="key 99 is in no list that was looked at"),)


def test_the_minter_is_known_by_its_use_where_the_policy_does_not_say_it():
    def look(policy: str, own: set[int]) -> tuple[int | None, frozenset[int]]:
        with neon() as client:
            found = collect(client, parse_policy(policy), journal=None, sinks={}, own=frozenset(own))
        return found.minter_id, found.maybe_minter

    assert look("version = 1", {1}) == (1, frozenset({1}))
    assert look("version = 1", {1, 2}) == (None, frozenset({1, 2}))
    assert look("version = 1", set()) == (None, frozenset())
    assert look("version = 1\n[neon]\nminter_id = 7", {1})[0] == 7


def test_an_audit_writes_down_that_it_used_the_minter(state: Path):
    assert collected(state).uses == (NOW,)
    assert read_uses(state) == (NOW,)
    assert (state / "uses").stat().st_mode & 0o777 == 0o600


def test_only_the_last_uses_are_kept_and_lines_that_are_no_times_are_passed_over(tmp_path: Path):
    (tmp_path / "uses").write_text("nonsense\n2026-11-22T00:00:00\n" + "2026-01-01T00:00:00+00:00\n" * 1200)
    note_use(tmp_path, NOW)
    assert len(read_uses(tmp_path)) == 1000
    assert read_uses(tmp_path)[-2:] == (datetime(2026, 1, 1, tzinfo=UTC), NOW)
    assert max(read_uses(tmp_path)) - min(read_uses(tmp_path)) > timedelta(days=300)
