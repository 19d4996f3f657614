"""What the commands of branches decide and draw, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.models.branches import Branch
from lamplighter.cli.branch_creation import Wish, differences, in_ci
from lamplighter.cli.branch_removal import check_removable, with_descendants
from lamplighter.cli.branch_schema import coloured, settled_lines, unified
from lamplighter.cli.branch_tree import rows_of, style_of
from lamplighter.cli.errors import CONFLICT, Failure
from lamplighter.cli.shown import age, marks, number, size, suspend_timeout
from lamplighter.cli.tree import ASCII, UNICODE

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def branch(name: str, parent: str | None = None, **more: object) -> Branch:
    fields = {"id": f"br-{name}", "name": name, "project_id": "p", "current_state": "ready", "default": False}
    counts = dict.fromkeys(
        ("cpu_used_sec", "compute_time_seconds", "active_time_seconds", "written_data_bytes", "data_transfer_bytes"), 0
    )
    times = dict.fromkeys(("created_at", "updated_at", "state_changed_at"), "2026-01-31T12:00:00Z")
    above = {"parent_id": f"br-{parent}"} if parent else {}
    return Branch.model_validate(
        {**fields, **counts, **times, **above, "protected": False, "creation_source": "console", **more}
    )


def test_a_tree_has_marks_and_depths() -> None:
    rows = rows_of(
        [
            {"id": "br-c", "name": "pr", "parent_id": "br-b", "created_at": "3"},
            {"id": "br-b", "name": "dev", "parent_id": "br-a", "created_at": "2", "protected": True},
            {"id": "br-a", "name": "main", "created_at": "1", "default": True, "protected": True},
            {"id": "br-z", "name": "lost", "parent_id": "br-y", "created_at": "0"},
        ],
        style=UNICODE,
    )
    assert [row["drawn"] for row in rows] == [
        "lost (parent br-y is not shown)",
        "main (default, protected)",
        "└─ dev (protected)",
        "   └─ pr",
    ]
    assert [row["depth"] for row in rows] == [0, 0, 1, 2]


def test_lines_are_drawn_with_what_the_output_can_show() -> None:
    assert style_of("utf-8") is UNICODE
    assert style_of("ascii") is ASCII
    assert style_of("latin-1") is ASCII
    assert style_of(None) is ASCII
    assert style_of("no-such-encoding") is ASCII


def test_descendants_come_after_their_parents() -> None:
    main, dev, pr, qa = branch("main"), branch("dev", "main"), branch("pr", "dev"), branch("qa", "main")
    found = with_descendants(dev, [qa, pr, dev, main])
    assert [one.name for one in found] == ["dev", "pr"]
    assert [one.name for one in with_descendants(main, [qa, pr, dev, main])] == ["main", "qa", "dev", "pr"]
    assert with_descendants(qa, []) == [qa]


def test_a_circle_has_an_end() -> None:
    one, two = branch("a", "b"), branch("b", "a")
    assert [each.name for each in with_descendants(one, [two, one])] == ["a", "b"]


def test_nothing_is_deleted_when_something_cannot_be() -> None:
    """Of several branches, the children go first: a protected parent must be seen before."""
    dev, pr = branch("dev", "main", protected=True), branch("pr", "dev")
    check_removable([pr], recursive=False)
    check_removable([branch("a"), branch("b", "a")], recursive=True)
    for doomed, recursive, said in (
        ([branch("a"), branch("b", "a")], False, "has children: b"),
        ([dev, pr], True, "'dev' is protected"),
        ([branch("a"), branch("b", "a", protected=True)], True, "'b' is protected"),
        ([branch("a", default=True)], False, "default branch"),
    ):
        with pytest.raises(Failure, match=said) as caught:
            check_removable(doomed, recursive=recursive)
        assert caught.value.exit_code == CONFLICT


names = st.sampled_from("abcdef")


@given(st.dictionaries(names, st.none() | names, min_size=1))
def test_only_what_is_below_goes_along(parents: dict[str, str | None]) -> None:
    everything = [branch(name, parent) for name, parent in parents.items()]
    for start in everything:
        found = with_descendants(start, everything)
        assert found[0] is start
        assert len({one.id for one in found}) == len(found)
        ids = {one.id for one in found}
        assert all(one.parent_id in ids for one in found[1:])
        outside = [one for one in everything if one.id not in ids]
        assert all(one.parent_id not in ids for one in outside)


def test_a_branch_that_is_there_is_compared_with_what_was_asked_for() -> None:
    there = branch("dev", "main", expires_at="2026-02-01T00:00:00Z")
    same = Wish(name="dev", expires_at=datetime(2026, 2, 1, tzinfo=UTC))
    assert differences(there, same, parent_id="br-main") == []
    other = Wish(name="dev", at="0/1", protected=True, schema_only=True, expires_at=NOW)
    said = differences(there, other, parent_id="br-x")
    assert len(said) == 5
    assert said[0] == "its parent is br-main, not br-x"
    assert "2026-02-01T00:00:00Z" in said[-1]
    assert differences(branch("a"), Wish(name="a", expires_at=NOW), parent_id="br-x") == [
        "its parent is nothing, not br-x",
        "it does not expire; `lamp branches set-expiration` changes that",
    ]


@pytest.mark.parametrize(("value", "told"), [("true", True), ("1", True), ("woodpecker", True), ("false", False),
                                            ("0", False), ("", False), (None, False)])  # fmt: skip
def test_ci(monkeypatch: pytest.MonkeyPatch, value: str | None, told: bool) -> None:
    if value is None:
        monkeypatch.delenv("CI", raising=False)
    else:
        monkeypatch.setenv("CI", value)
    assert in_ci() is told


def test_dumps_differ_in_their_statements_alone() -> None:
    def dump(token: str, version: str, table: str) -> list[str]:
        text = f"-- Dumped from database version {version}\n\\restrict {token}\n{table}\n\\unrestrict {token}\n"
        return settled_lines(text)

    assert unified(dump("a", "17.1", "t"), dump("b", "17.2", "t"), labels=("x", "y")) == ""
    assert unified(dump("a", "17", "t"), dump("a", "17", "u"), labels=("x", "y")) == (
        "--- x\n+++ y\n@@ -1 +1 @@\n-t\n+u\n"
    )


def test_colours_of_a_diff() -> None:
    assert coloured("+a") == "\x1b[32m+a\x1b[0m"
    assert coloured("-a") == "\x1b[31m-a\x1b[0m"
    assert coloured("+++ a") == "\x1b[1m+++ a\x1b[0m"
    assert coloured(" a") == " a"


def test_cells() -> None:
    assert age((NOW - timedelta(hours=3, minutes=5)).isoformat(), NOW) == "3 h"
    assert age(None, NOW) == "-"
    assert age("soon", NOW) == "-"
    assert suspend_timeout(0) == "default"
    assert suspend_timeout(-1) == "never"
    assert suspend_timeout(300) == "5 min"
    assert suspend_timeout(None) == "-"
    assert size(31_000_000) == "29.6 MiB"
    assert size(None) == "-"
    assert number(0.25) == "0.25"
    assert number(2.0) == "2"
    assert number(None) == "-"
    assert marks({"default": True}) == " (default)"
    assert marks({}) == ""
