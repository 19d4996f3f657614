"""What a policy, a journal and names make of a lineage. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.keys import records as rec
from lamplighter.keys.errors import PolicyError
from lamplighter.keys.fold import State, fold
from lamplighter.keys.manager import (
    UNMANAGED,
    due_of,
    find_policy,
    lineage_of_name,
    load_policy,
    naming_for,
    naming_of,
    pattern_of,
    scope_of,
    state_directory,
    target_of,
)
from lamplighter.keys.naming import Naming
from lamplighter.keys.plan import LiveKey
from lamplighter.keys.policy import Policy, parse_policy
from lamplighter.keys.records import Scope, SinkRef

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RID = "abcdefghij"
PERSONAL = Scope(kind="personal")
POLICY = """
version = 1
[lineage.ci]
scope = "project"
org_id = "org-calm-sun-12345678"
project_id = "calm-sun-12345678"
owner = "team@example.com"
sinks = ["dotenv:/tmp/a.env#KEY"]
soak = "2h"
"""


def adopted(key_id: int = 7, name: str = "by-hand-2026-Q1", lineage: str = "by-hand") -> rec.Adopted:
    sinks = (SinkRef("dotenv:/tmp/b.env#KEY"),)
    return rec.Adopted(at=NOW, lineage=lineage, key_id=key_id, name=name, scope=PERSONAL, sinks=sinks)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "pattern"),
        [
            ("ci-2026-Q4", "ci-{year}-Q{quarter}"),
            (f"ci-2026-Q4.{RID}", "ci-{year}-Q{quarter}"),
            ("ci-2026-11", "ci-{year}-{month}"),
            ("ci-2026-11-22", "ci-{year}-{month}-{day}"),
            ("ci-2026", "ci-{year}"),
            ("ci-20260", "ci-20260"),
            ("plain", "plain"),
            ("ci-{year}", "ci-{year}"),
        ],
    )
    def test_a_date_in_a_name_becomes_its_place(self, name: str, pattern: str) -> None:
        assert pattern_of(name) == pattern

    @pytest.mark.parametrize(
        ("name", "lineage"),
        [
            ("knowledge-engineering-2026-Q4", "knowledge-engineering"),
            ("knowledge-engineering-{year}-Q{quarter}", "knowledge-engineering"),
            (f"lamp.ci.{RID}", "ci"),
            ("CI key (old)", "ci-key-old"),
            ("2026-Q4", "key"),
            ("", "key"),
        ],
    )
    def test_a_lineage_of_a_name(self, name: str, lineage: str) -> None:
        assert lineage_of_name(name, prefix="lamp") == lineage

    @given(st.text(max_size=80))
    def test_every_name_gives_a_lineage_that_may_be(self, name: str) -> None:
        Naming(lineage_of_name(name))

    def test_a_date_of_today_is_filled_in_later(self) -> None:
        naming = naming_for("ci", "ci-2026-Q4", prefix="lamp", now=NOW)
        assert naming.name(rid=RID, at=NOW) == f"ci-2026-Q4.{RID}"
        assert naming.name(rid=RID, at=NOW + timedelta(days=90)) == f"ci-2027-Q1.{RID}"

    def test_another_date_is_meant_as_it_is(self) -> None:
        naming = naming_for("ci", "ci-2025-Q1", prefix="lamp", now=NOW)
        assert naming.name(rid=RID, at=NOW) == f"ci-2025-Q1.{RID}"

    def test_a_name_that_is_too_long(self) -> None:
        with pytest.raises(PolicyError, match="64"):
            naming_for("ci", "a" * 60, prefix="lamp", now=NOW)

    def test_keys_of_a_lineage_without_a_policy_are_named_as_the_last(self) -> None:
        naming = naming_of("by-hand", Policy(), fold([adopted()]))
        assert naming.name(rid=RID, at=NOW) == f"by-hand-2026-Q4.{RID}"

    def test_a_name_that_can_be_no_pattern(self) -> None:
        state = fold([adopted(name="{odd}")])
        assert naming_of("by-hand", Policy(), state) == Naming("by-hand")


class TestTargets:
    def test_of_the_policy(self) -> None:
        target = target_of("ci", parse_policy(POLICY), State())
        assert (target.declared, target.owner, target.soak_seconds) == (True, "team@example.com", 7200)
        assert [each.describe() for each in target.sinks] == ["dotenv:/tmp/a.env#KEY"]

    def test_of_the_journal(self) -> None:
        target = target_of("by-hand", Policy(), fold([adopted()]))
        assert (target.declared, target.scope) == (False, PERSONAL)
        assert [each.describe() for each in target.sinks] == ["dotenv:/tmp/b.env#KEY"]

    def test_a_store_that_was_forgotten_gets_no_key(self) -> None:
        gone = rec.Forgotten(at=NOW, lineage="by-hand", sink="dotenv:/tmp/b.env#KEY")
        assert target_of("by-hand", Policy(), fold([adopted(), gone])).sinks == ()

    def test_of_nothing(self) -> None:
        with pytest.raises(PolicyError, match="there is no lineage 'cj'") as raised:
            target_of("cj", parse_policy(POLICY), State())
        assert raised.value.hint == "there are ci"

    def test_a_store_is_written_once_however_often_it_is_named(self) -> None:
        target = target_of("by-hand", Policy(), fold([adopted()]))
        assert len(target.with_sinks(target.sinks).sinks) == 1


class TestDue:
    policy = parse_policy(POLICY)
    # 90 days, and 14 before that it is soon.
    soon = NOW - timedelta(days=77)

    def due(self, created: datetime | None, **options: timedelta) -> object:
        name = f"lamp.ci.{RID}"
        keys = {} if created is None else {3: LiveKey(id=3, name=name, created_at=created)}
        return due_of("ci", self.policy, State(), keys, now=NOW, **options)

    def test_a_lineage_without_a_key(self) -> None:
        assert self.due(None).now

    def test_close_to_its_greatest_age(self) -> None:
        assert self.due(self.soon).now

    def test_a_young_key(self) -> None:
        found = self.due(NOW - timedelta(days=75))
        assert (found.now, found.key_id, found.at) == (False, 3, NOW + timedelta(days=1))

    def test_how_close_may_be_said(self) -> None:
        assert not self.due(self.soon, within=timedelta()).now

    def test_what_is_unfinished_is_due(self) -> None:
        begun = rec.MintIntent(
            at=NOW, lineage="ci", rid=RID, name=f"lamp.ci.{RID}", scope=PERSONAL, sinks=(), soak=0.0, timeout=1.0
        )
        assert due_of("ci", self.policy, fold([begun]), {}, now=NOW).reason == "a rotation is unfinished"


def test_keys_that_were_only_revoked_are_no_lineage_to_rotate() -> None:
    from lamplighter.keys.journal import Journal
    from lamplighter.keys.manager import Manager

    state = fold([adopted(lineage=UNMANAGED), adopted(8)])
    manager = Manager(server=None, journal=Journal(Path("/nowhere")))
    assert manager.names(state) == ("by-hand",)


def test_what_a_listed_key_reaches() -> None:
    organization = Scope(kind="organization", org_id="org-a")
    assert scope_of(LiveKey(id=1, name="a"), PERSONAL) == PERSONAL
    assert scope_of(LiveKey(id=1, name="a"), organization) == organization
    narrow = scope_of(LiveKey(id=1, name="a", project_id="p"), organization)
    assert narrow == Scope(kind="project", org_id="org-a", project_id="p")


class TestPlaces:
    def test_the_policy_of_this_directory_comes_first(self, tmp_path: Path) -> None:
        config = tmp_path / "config"
        (config / "lamplighter").mkdir(parents=True)
        assert find_policy(cwd=tmp_path, config_home=config) is None
        (config / "lamplighter" / "keys.toml").touch()
        assert find_policy(cwd=tmp_path, config_home=config) == config / "lamplighter" / "keys.toml"
        (tmp_path / "lamp-keys.toml").touch()
        assert find_policy(cwd=tmp_path, config_home=config) == tmp_path / "lamp-keys.toml"

    def test_a_broken_policy_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "lamp-keys.toml"
        path.write_text("version = 1\n[lineage.ci]\nscope = 'personal'\nscop = 'x'\n")
        with pytest.raises(PolicyError, match=r"lamp-keys.toml: .*line 4"):
            load_policy(path)

    def test_a_policy_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "lamp-keys.toml"
        path.write_bytes(b"\xff")
        with pytest.raises(PolicyError, match="UTF-8"):
            load_policy(path)

    def test_where_the_state_is(self) -> None:
        assert state_directory({"XDG_STATE_HOME": "/a"}) == Path("/a/lamplighter/keys")
        assert state_directory({}) == Path("~/.local/state/lamplighter/keys").expanduser()
