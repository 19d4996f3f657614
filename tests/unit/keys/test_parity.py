"""The rules about stores: required, forbidden, stale, another value."""

from __future__ import annotations

import pytest

from lamplighter.keys import records as rec
from lamplighter.keys.facts import Gap
from lamplighter.keys.sinks.base import Receipt
from unit.keys.audit_facts import (
    ADDRESS,
    DAY,
    HOUR,
    INSTANT,
    NOW,
    POLICY,
    SINK,
    adopted,
    found,
    judged,
    key,
    rid_of,
    rotation,
    rules,
    sink,
)

PARITY = f"""{POLICY}
[sink.other]
address = "dotenv:/srv/other.env#NEON_API_KEY"
[parity.NEON_API_KEY]
"""
OTHER = {"name": "other", "address": "dotenv:/srv/other.env#NEON_API_KEY"}


def sinks(*facts):
    return {each.name: each for each in facts}


@pytest.mark.parametrize(("present", "fires"), [(True, False), (False, True)])
def test_p001_required_sink_lacks_the_secret(present, fires):
    policy = f'{PARITY}required = ["other"]'
    result = judged([key(5)], policy=policy, sinks=sinks(sink(), sink(present, **OTHER)))
    assert [(each.problem.sink, each.severity) for each in found(result, "P001")] == (
        [("other", "high")] if fires else []
    )


def test_p001_the_sinks_of_a_lineage_are_required_too_once_it_has_a_key():
    missing = sinks(sink(present=False))
    assert [each.problem.lineage for each in found(judged([key(5)], sinks=missing), "P001")] == ["ci"]
    assert rules(judged([], sinks=missing)) == set()
    optional = f'{PARITY}optional = ["{SINK}"]'
    assert rules(judged([key(5)], policy=optional, sinks=missing)) == set()


def test_p001_is_said_once_of_a_sink():
    policy = f'{PARITY}required = ["{SINK}"]'
    assert len(found(judged([key(5)], policy=policy, sinks=sinks(sink(present=False))), "P001")) == 1


@pytest.mark.parametrize(("step", "fires"), [("storing", False), ("stored", True)])
def test_p001_a_sink_that_has_not_had_its_turn_lacks_nothing(step, fires):
    records = rotation(6, NOW - HOUR, until=step)
    result = judged([key(6, created_at=NOW - HOUR)], records, sinks=sinks(sink(present=False)))
    assert bool(found(result, "P001")) == fires


@pytest.mark.parametrize(("present", "fires"), [(True, True), (False, False)])
def test_p002_forbidden_sink_has_it(present, fires):
    policy = f'{PARITY}forbidden = ["other"]'
    result = judged([key(5)], policy=policy, sinks=sinks(sink(), sink(present, **OTHER)))
    assert [each.severity for each in found(result, "P002")] == (["critical"] if fires else [])
    assert result.exit_code == fires


def test_p002_a_sink_that_did_not_answer_is_no_finding():
    policy = f'{PARITY}forbidden = ["other"]\nrequired = ["{SINK}"]'
    assert rules(judged([key(5)], policy=policy, sinks={})) == set()


@pytest.mark.parametrize(
    ("updated", "fires"),
    [
        (NOW - 10 * DAY, False),
        (NOW - 10 * DAY - INSTANT, True),
        (NOW, False),
        (None, False),
    ],
)
def test_p003_store_was_written_before_the_present_key_was_made(updated, fires):
    facts = sinks(sink(receipt=Receipt(updated_at=updated)))
    result = judged([key(5, created_at=NOW - 10 * DAY)], sinks=facts)
    assert [each.problem.sink for each in found(result, "P003")] == ([SINK] if fires else [])


def test_p003_whole_seconds_of_a_store_are_not_too_early():
    created = NOW.replace(second=9, microsecond=900_000) - DAY
    facts = sinks(sink(receipt=Receipt(updated_at=created.replace(microsecond=0))))
    assert found(judged([key(5, created_at=created)], sinks=facts), "P003") == []


def test_p003_without_a_journal_the_youngest_key_is_the_present_one():
    keys = [key(5, created_at=NOW - 10 * DAY), key(6, created_at=NOW - 2 * DAY)]
    facts = sinks(sink(receipt=Receipt(updated_at=NOW - 5 * DAY)))
    (finding,) = found(judged(keys, [], sinks=facts), "P003")
    assert finding.problem.key_id == 6


def done(**facts):
    records = [adopted(5, NOW - 20 * DAY, mac="mac-5"), *rotation(6, NOW - 10 * DAY, revoked=[5])]
    return judged([key(6)], records, sinks=sinks(sink(**facts)))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"was_read": True, "holds": "mac-6"}, None),
        ({"was_read": True, "holds": "mac-5"}, "it holds key 5, and not key 6"),
        ({"was_read": True, "holds": "mac-of-something"}, "it holds something else"),
        ({"was_read": True, "holds": None}, "it holds something else"),
        ({"was_read": False, "holds": None}, None),
    ],
)
def test_p004_store_holds_another_value(facts, said):
    result = found(done(**facts), "P004")
    assert [said in each.problem.sentence for each in result] == ([True] if said else [])


def test_p004_a_value_that_was_read_says_more_than_a_time():
    facts = {"receipt": Receipt(updated_at=NOW - 30 * DAY)}
    assert rules(done(**facts)) == {"P003"}
    assert rules(done(**facts, was_read=True, holds="mac-6")) == set()
    assert rules(done(**facts, was_read=True, holds="mac-5")) == {"P004"}


def test_p004_says_nothing_of_a_key_whose_value_nobody_knows():
    facts = sinks(sink(was_read=True, holds="mac-of-something"))
    assert rules(judged([key(5)], sinks=facts)) == set()


@pytest.mark.parametrize(
    ("step", "holds", "fires"),
    [
        ("storing", "mac-5", False),
        ("storing", "mac-6", False),
        ("storing", "mac-of-something", True),
        ("stored", "mac-6", False),
        ("verified", "mac-6", False),
        ("verified", "mac-5", True),
    ],
)
def test_p004_while_a_rotation_is_under_way_either_key_is_right_until_it_is_proven(step, holds, fires):
    records = [adopted(5, NOW - 10 * DAY, mac="mac-5"), *rotation(6, NOW - HOUR, until=step)]
    keys = [key(5), key(6, created_at=NOW - HOUR)]
    result = judged(keys, records, sinks=sinks(sink(was_read=True, holds=holds)))
    assert bool(found(result, "P004")) == fires


def test_p004_a_key_that_was_revoked_is_never_the_right_one():
    records = [adopted(5, NOW - 30 * DAY, mac="mac-5"), *rotation(6, NOW - 20 * DAY, revoked=[5])]
    records += rotation(7, NOW - HOUR, until="storing")
    keys = [key(6), key(7, created_at=NOW - HOUR)]
    for holds, fires in (("mac-5", True), ("mac-6", False), ("mac-7", False)):
        result = judged(keys, records, sinks=sinks(sink(was_read=True, holds=holds)))
        assert bool(found(result, "P004")) == fires


def test_what_to_do_names_the_lineage_that_fills_the_store():
    (ours,) = found(judged([key(5)], sinks=sinks(sink(present=False))), "P001")
    assert "`lamp keys rotate ci`" in ours.problem.advice
    policy = f'{PARITY}required = ["other"]'
    (other,) = found(judged([], policy=policy, sinks=sinks(sink(present=False, **OTHER))), "P001")
    assert "`lamp keys mint --to`" in other.problem.advice


def test_sinks_that_only_the_journal_knows_are_judged():
    records = [adopted(5, NOW - DAY, sinks=["dotenv:/elsewhere#K"])]
    facts = sinks(sink(), sink(present=False, name="dotenv:/elsewhere#K", address="dotenv:/elsewhere#K"))
    assert [each.problem.sink for each in found(judged([key(5)], records, sinks=facts), "P001")] == [
        "dotenv:/elsewhere#K"
    ]
    forgotten = [*records, rec.Forgotten(at=NOW, lineage="ci", sink="dotenv:/elsewhere#K")]
    assert found(judged([key(5)], forgotten, sinks=facts), "P001") == []


def test_why_there_was_nothing_to_check_is_said():
    bare = "version = 1\n"
    result = judged([], [], policy=bare, sinks={})
    assert {"P001", "P002", "P003", "P004", "K004", "K015", "K010", "K006"} <= set(result.unasked)
    silent = judged([], [], policy=bare, sinks={}, gaps=(Gap(source="sink", what="dotenv:/x#K", reason="locked"),))
    assert "P001" in silent.blind
    unread = judged([key(5)], read_values=False)
    assert "not to be read" in unread.unasked["P004"]
    assert ADDRESS not in unread.unasked["P004"]
    assert rid_of(0) == "a" * 10
