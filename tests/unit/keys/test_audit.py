"""The rules about keys, each at the edge of its threshold; ignores; what could not be looked at; exit codes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.keys import records as rec
from lamplighter.keys.audit import BY_ID, RULES, audit
from lamplighter.keys.facts import Gap, Inventory
from lamplighter.keys.keyrules import CLOCK_TOLERANCE, USE_TOLERANCE
from lamplighter.keys.policy import RULE_IDS, parse_policy
from unit.keys.audit_facts import (
    ADDRESS,
    DAY,
    HOUR,
    INSTANT,
    MINTER_ID,
    NOW,
    POLICY,
    PROJECT,
    SINK,
    USER,
    adopted,
    found,
    inventory,
    judged,
    key,
    minter,
    name_of,
    rid_of,
    rotation,
    rules,
    shuffled,
    sink,
)

OTHER_USER = USER.replace("1", "2")


def with_defaults(line: str) -> str:
    return POLICY.replace("[defaults]", f"[defaults]\n{line}")


def with_lineage(line: str) -> str:
    return POLICY.replace("[lineage.ci]", f"[lineage.ci]\n{line}")


def test_what_is_in_order_is_clean():
    result = judged([key(5)])
    assert (result.findings, result.gaps, result.exit_code) == ((), (), 0)


def test_every_rule_of_the_policy_is_checked_by_one_function():
    assert {rule.id for rule in RULES} == RULE_IDS == set(BY_ID)
    assert len({rule.check for rule in RULES}) == len(RULES)


# Age and use


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (90 * DAY + INSTANT, {"K001"}),
        (90 * DAY, {"K014"}),
        (76 * DAY + INSTANT, {"K014"}),
        (76 * DAY, set()),
    ],
)
def test_k001_and_k014_too_old_and_due_soon(age, expected):
    assert rules(judged([key(5, created_at=NOW - age)], sinks={SINK: sink()})) == expected


def test_k001_goes_by_the_lineage():
    old = key(5, created_at=NOW - 31 * DAY)
    assert rules(judged([old])) == set()
    assert rules(judged([old], policy=with_lineage('max_age = "30d"\ndue_soon = "0"'))) == {"K001"}


@pytest.mark.parametrize(("age", "expected"), [(365 * DAY, set()), (365 * DAY + INSTANT, {"K001"})])
def test_k001_gives_the_minter_a_year(age, expected):
    policy = with_defaults('due_soon = "0"')
    facts = inventory()
    facts = replace(facts, keys=(minter(created_at=NOW - age),))
    result = audit(facts, parse_policy(policy), now=NOW)
    assert rules(result) == expected


@pytest.mark.parametrize(("idle", "expected"), [(45 * DAY, set()), (45 * DAY + INSTANT, {"K002"})])
def test_k002_unused(idle, expected):
    assert rules(judged([key(5, created_at=NOW - 60 * DAY, last_used_at=NOW - idle)])) == expected


@pytest.mark.parametrize(("age", "expected"), [(7 * DAY, set()), (7 * DAY + INSTANT, {"K003"})])
def test_k003_never_used(age, expected):
    assert rules(judged([key(5, created_at=NOW - age, last_used_at=None)])) == expected


# Whose it is


def test_k004_creator_is_no_longer_a_member():
    assert rules(judged([key(5, created_by=OTHER_USER)])) == {"K004"}
    assert rules(judged([key(5, created_by=OTHER_USER)], members={})) == set()


def test_k004_of_a_personal_key_looks_at_every_organization():
    personal = key(5, kind="personal", org_id=None, project_id=None, created_by=OTHER_USER)
    assert "K004" in rules(judged([personal]))
    both = {"org-a-1": frozenset({USER}), "org-b-1": frozenset({OTHER_USER})}
    assert "K004" not in rules(judged([personal], members=both))


def test_k005_no_owner():
    stranger = key(5, name="made in the console")
    assert rules(judged([stranger])) == {"K005"}
    known = rec.Adopted(
        at=NOW - DAY, lineage="ci", key_id=5, name=stranger.name, scope=rec.Scope(kind="personal"), sinks=()
    )
    assert "K005" not in rules(judged([stranger], [known]))
    assert found(judged([key(MINTER_ID + 1, name=name_of(3))]), "K005") == []


@pytest.mark.parametrize(
    ("facts", "fires"),
    [
        ({"kind": "project"}, False),
        ({"kind": "organization", "project_id": None}, True),
        ({"kind": "personal", "project_id": None, "org_id": None}, True),
        ({"kind": "project", "project_id": "project-b-2"}, True),
    ],
)
def test_k006_broader_than_declared(facts, fires):
    result = judged([key(5, **facts)], projects={})
    assert bool(found(result, "K006")) == fires


def test_k006_narrower_than_declared_is_fine():
    policy = POLICY.replace('scope = "project"', 'scope = "organization"').replace(f'project_id = "{PROJECT}"', "")
    assert found(judged([key(5)], policy=policy), "K006") == []
    other = POLICY.replace('scope = "project"', 'scope = "project"\norg_id = "org-b-9"')
    assert "is of org-a-1" in found(judged([key(5)], policy=other), "K006")[0].problem.sentence


# The journal


def test_k005_never_the_minter():
    """Without a policy it is known by its use alone, and then perhaps as one of several."""

    def accused(**facts: object) -> set[int | None]:
        result = judged([key(5, name="somebody's")], **facts)
        return {each.problem.key_id for each in found(result, "K005")}

    assert accused(minter_id=5) == {MINTER_ID}
    assert accused(minter_id=None, maybe_minter=frozenset({5, MINTER_ID})) == set()
    assert accused(minter_id=None, maybe_minter=frozenset({6, MINTER_ID})) == {5}


def test_k007_orphan():
    assert rules(judged([key(5)], [])) == {"K007"}
    assert found(judged([key(5)], [adopted(5, NOW - DAY)]), "K007") == []
    undeclared = key(5, name=name_of(5, "unheard-of"))
    assert rules(judged([undeclared], [])) == {"K007"}
    assert rules(judged([key(5, name="other.ci." + rid_of(5))], [])) == {"K005"}


def test_k007_a_name_that_was_announced_is_no_orphan_but_a_late_one_is():
    intent = rotation(5, NOW - HOUR, until="intent")
    under_way = judged([key(5, created_at=NOW - HOUR)], intent)
    assert rules(under_way) == set()
    assert under_way.exit_code == 4
    given_up = [*intent, rec.Aborted(at=NOW, lineage="ci", rid=rid_of(5), reason="its request had no answer")]
    (late,) = found(judged([key(5, created_at=NOW - HOUR)], given_up), "K007")
    assert "came late" in late.problem.sentence


def two_keys(**facts):
    """Key 5 was followed by key 6, minted at noon two days ago; its soak of an hour began at six past noon."""
    begun = NOW - 2 * DAY
    records = [adopted(5, NOW - 10 * DAY), *rotation(6, begun, until="soaking", revoked=[5])]
    keys = [key(5, **{"last_used_at": begun, **facts}), key(6, created_at=begun + timedelta(minutes=1))]
    return keys, records, begun + timedelta(minutes=6) + HOUR


@pytest.mark.parametrize(("after", "fires"), [(24 * HOUR, False), (24 * HOUR + INSTANT, True)])
def test_k008_soak_overdue(after, fires):
    keys, records, until = two_keys()
    result = audit(inventory(keys, records), parse_policy(POLICY), now=until + after)
    assert [each.problem.key_id for each in found(result, "K008")] == ([5] if fires else [])


def test_k008_a_key_that_the_journal_says_is_revoked():
    records = [adopted(5, NOW - 10 * DAY), *rotation(6, NOW - DAY, revoked=[5])]
    (finding,) = found(judged([key(5, last_used_at=NOW - 2 * DAY), key(6)], records), "K008")
    assert "still live" in finding.problem.sentence
    assert found(judged([key(6)], records), "K008") == []


def test_k008_a_rotation_after_the_last_one_is_not_overdue():
    records = [adopted(5, NOW - 20 * DAY), *rotation(6, NOW - 15 * DAY, revoked=[5])]
    records += rotation(7, NOW - HOUR, until="stored")
    keys = [key(6), key(7, created_at=NOW - HOUR)]
    assert rules(judged(keys, records)) & {"K008", "K009", "K011"} == set()


@pytest.mark.parametrize(("after", "fires"), [(timedelta(), False), (INSTANT, True)])
def test_k009_used_after_its_successor_was_verified(after, fires):
    verified = NOW - 2 * DAY + timedelta(minutes=5)
    keys, records, _ = two_keys(last_used_at=verified + after, last_used_from=("192.0.2.7",))
    result = found(judged(keys, records), "K009")
    assert [each.problem.addresses for each in result] == ([("192.0.2.7",)] if fires else [])


def test_k009_a_successor_that_was_given_up_took_nobodys_place():
    keys, records, until = two_keys(last_used_at=NOW - HOUR)
    records.append(rec.Superseded(at=NOW - HOUR, lineage="ci", rid=rid_of(6), reason="it was revoked by somebody else"))
    result = audit(inventory(keys[:1], records), parse_policy(POLICY), now=until + 2 * DAY)
    assert rules(result) & {"K008", "K009"} == set()
    assert result.exit_code == 4


@pytest.mark.parametrize(
    ("addresses", "outside"),
    [
        (("10.255.255.255",), ()),
        (("11.0.0.0", "10.0.0.1"), ("11.0.0.0",)),
        (("::ffff:10.1.1.1",), ()),
        (("2001:db8::1",), ("2001:db8::1",)),
        (("unknown",), ("unknown",)),
        ((), ()),
    ],
)
def test_k010_used_from_outside_the_networks(addresses, outside):
    policy = with_defaults('addresses = ["10.0.0.0/8"]')
    result = found(judged([key(5, last_used_from=addresses)], policy=policy), "K010")
    assert [each.problem.addresses for each in result] == ([outside] if outside else [])
    assert all("1 address outside" in each.problem.sentence for each in result)


@pytest.mark.parametrize(("number", "fires"), [(2, False), (3, True)])
def test_k010_used_from_too_many_addresses(number, fires):
    addresses = (*(f"10.0.0.{each}" for each in range(number)), "10.0.0.0")
    result = judged([key(5, last_used_from=addresses)], policy=with_lineage("max_addresses = 2"))
    assert bool(found(result, "K010")) == fires


def test_k011_two_live_keys_outside_a_rotation():
    both = [adopted(5, NOW - 10 * DAY), adopted(6, NOW - 10 * DAY)]
    (finding,) = found(judged([key(5), key(6)], both), "K011")
    assert (finding.problem.lineage, finding.problem.key_id) == ("ci", None)
    assert "(5, 6)" in finding.problem.sentence
    keys, records, _ = two_keys()
    assert found(judged(keys, records), "K011") == []
    assert found(judged([key(5)], both), "K011") == []


def test_k012_same_name_twice():
    (finding,) = found(judged([key(5), key(6, name=name_of(5))]), "K012")
    assert (finding.problem.name, "5, 6" in finding.problem.sentence) == (name_of(5), True)
    assert found(judged([key(5), key(6)]), "K012") == []


# The minter


def minted_by(**facts) -> Inventory:
    records = [adopted(5, NOW - 10 * DAY), *rotation(6, NOW - 5 * DAY, revoked=[5])]
    base = inventory([], records, uses=())
    return replace(base, keys=(minter(**facts), key(6, created_at=NOW - 5 * DAY)))


@pytest.mark.parametrize(
    ("used", "fires"),
    [
        (NOW, False),
        (NOW - USE_TOLERANCE, False),
        (NOW - USE_TOLERANCE - INSTANT, True),
        (NOW - 5 * DAY, False),
        (NOW - 5 * DAY - USE_TOLERANCE, False),
        (NOW - 5 * DAY - USE_TOLERANCE - INSTANT, True),
        (NOW - 10 * DAY, False),
        (None, False),
    ],
)
def test_k013_minter_used_when_the_manager_was_not_at_work(used, fires):
    result = audit(minted_by(last_used_at=used), parse_policy(POLICY), now=NOW)
    assert [each.severity for each in found(result, "K013")] == (["critical"] if fires else [])


def test_k013_goes_by_the_notes_of_the_manager_and_by_rotations_under_way():
    used = NOW - 3 * DAY
    facts = minted_by(last_used_at=used)
    assert found(audit(facts, parse_policy(POLICY), now=NOW), "K013")
    noted = replace(facts, uses=(used + USE_TOLERANCE,))
    assert found(audit(noted, parse_policy(POLICY), now=NOW), "K013") == []
    records = rotation(6, NOW - 5 * DAY, until="soaking")
    soaking = replace(facts, records=tuple(records), state=inventory([], records).state)
    assert found(audit(soaking, parse_policy(POLICY), now=NOW), "K013") == []


def test_k013_minter_used_from_elsewhere():
    policy = parse_policy(POLICY.replace("minter_id", 'minter_from = ["10.0.0.0/8"]\nminter_id', 1))
    (finding,) = found(audit(minted_by(last_used_from=("192.0.2.1",)), policy, now=NOW), "K013")
    assert finding.problem.addresses == ("192.0.2.1",)
    assert found(audit(minted_by(), policy, now=NOW), "K013") == []


def test_k013_is_not_asked_where_nobody_knows_the_minter():
    result = judged([key(5)], minter_id=None)
    assert "minter_id" in result.unasked["K013"]


# The rest


def test_k015_project_of_the_key_is_gone():
    assert rules(judged([key(5)], projects={"org-a-1": frozenset({"project-b-2"})})) == {"K015"}
    assert rules(judged([key(5)], projects={})) == set()
    whole = key(5, kind="organization", project_id=None)
    assert found(judged([whole], projects={"org-a-1": frozenset()}), "K015") == []


@pytest.mark.parametrize(("number", "fires"), [(3, False), (4, True)])
def test_k016_too_many_keys_of_an_organization(number, fires):
    result = judged([key(5 + each) for each in range(number)], policy=with_defaults("max_keys = 3"))
    assert [each.problem.name for each in found(result, "K016")] == (["org-a-1"] if fires else [])


@pytest.mark.parametrize(("number", "fires"), [(2, False), (3, True)])
def test_k016_too_many_keys_of_the_account(number, fires):
    keys = [key(5 + each, kind="personal", org_id=None, project_id=None) for each in range(number)]
    # The minter is one of them.
    result = judged(keys, policy=with_defaults("max_account_keys = 3"))
    assert bool(found(result, "K016")) == fires


@pytest.mark.parametrize(
    ("created", "used", "fires"),
    [
        (NOW + CLOCK_TOLERANCE, NOW + CLOCK_TOLERANCE, False),
        (NOW + CLOCK_TOLERANCE + INSTANT, None, True),
        (NOW - DAY, NOW - DAY - CLOCK_TOLERANCE, False),
        (NOW - DAY, NOW - DAY - CLOCK_TOLERANCE - INSTANT, True),
    ],
)
def test_k017_times_that_cannot_be(created, used, fires):
    assert bool(found(judged([key(5, created_at=created, last_used_at=used)]), "K017")) == fires


def test_p005_leftovers_of_neons_own_command():
    assert rules(judged([key(5, name="neonctl-init-1764000000")])) == {"K005", "P005"}
    assert found(judged([key(5, name="neonctl-init-")]), "P005") == []


# Ignores


def excused(rule: str, until: str, about: str = "key_id = 5") -> str:
    return f'{POLICY}[[ignore]]\nrule = "{rule}"\n{about}\nreason = "known"\nuntil = {until}\n'


OLD = [key(5, created_at=NOW - 100 * DAY)]


@pytest.mark.parametrize(
    ("rule", "until", "about", "state"),
    [
        ("K001", "2026-11-22", "key_id = 5", "in force"),
        ("K001", "2026-11-22T12:00:00.000001Z", "key_id = 5", "in force"),
        ("K001", "2026-11-22T12:00:00Z", "key_id = 5", "expired"),
        ("K001", "2026-11-21", "key_id = 5", "expired"),
        ("K001", "2027-01-01", f'name = "{name_of(5)}"', "in force"),
        ("K001", "2027-01-01", 'lineage = "ci"', "in force"),
        ("K001", "2027-01-01", 'lineage = "ci"\nkey_id = 5', "in force"),
        ("K001", "2027-01-01", 'lineage = "ci"\nkey_id = 6', "unused"),
        ("K001", "2027-01-01", f'sink = "{SINK}"', "unused"),
        ("K002", "2027-01-01", "key_id = 5", "unused"),
    ],
)
def test_an_ignore_excuses_what_it_names_until_it_ends(rule, until, about, state):
    result = judged(OLD, policy=excused(rule, until, about))
    (excuse,) = result.excuses
    assert excuse.state == state
    ignored = state == "in force"
    assert (len(result.ignored), len(found(result, "K001")), result.exit_code) == (ignored, not ignored, not ignored)


# Exit codes and gaps


@pytest.mark.parametrize(
    ("fail_on", "keys", "code"),
    [
        ("high", OLD, 1),
        ("critical", OLD, 0),
        ("high", [key(5, last_used_at=None)], 0),
        ("medium", [key(5, last_used_at=None)], 1),
        ("info", [key(5, created_at=NOW - 80 * DAY)], 1),
        ("low", [key(5, created_at=NOW - 80 * DAY)], 0),
        ("info", [key(5)], 0),
    ],
)
def test_findings_count_from_the_severity_that_the_policy_says(fail_on, keys, code):
    result = judged(keys, policy=with_defaults(f'fail_on = "{fail_on}"'))
    assert result.exit_code == code


@pytest.mark.parametrize(
    ("source", "blind", "sighted"),
    [
        ("account", set(), {"K001"}),
        ("personal keys", {"K001", "P005", "K016"}, {"P001"}),
        ("organization keys", {"K001", "K012"}, {"P001"}),
        ("members", {"K004"}, {"K001"}),
        ("projects", {"K015"}, {"K004"}),
        ("minter", {"K013"}, {"K001"}),
        ("sink", {"P001", "P003", "P004"}, {"K001"}),
        ("journal", {"K005", "K007", "K008", "K011", "P004"}, {"K001", "K002"}),
    ],
)
def test_what_could_not_be_looked_at_is_never_clean(source, blind, sighted):
    result = judged([key(5)], gaps=(Gap(source=source, reason="HTTP 503"),))
    assert result.exit_code == 3
    assert blind <= result.blind
    assert not sighted & result.blind


def test_a_journal_that_cannot_be_read_makes_nobody_an_orphan():
    facts = replace(
        inventory([key(5, name="adopted"), key(6), key(7)]),
        records=None,
        state=None,
        gaps=(Gap(source="journal", reason="line 3 makes no sense"),),
    )
    result = audit(facts, parse_policy(POLICY), now=NOW)
    assert rules(result) & {"K005", "K007", "K011"} == set()
    assert {"K005", "K007", "K008", "K011", "P004"} <= result.blind
    assert result.exit_code == 3


def test_without_a_journal_names_are_all_there_is():
    facts = replace(inventory([key(5), key(6, name="made in the console")]), records=None, state=None)
    result = audit(facts, parse_policy(POLICY), now=NOW)
    assert rules(result) == {"K005"}
    assert {"K007", "K008", "K009", "P004"} <= set(result.unasked)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("intent", 4),
        ("minted", 4),
        ("storing", 4),
        ("stored", 4),
        ("verified", 4),
        ("soaking", 0),
        ("revoking", 4),
        ("done", 0),
    ],
)
def test_a_rotation_that_waits_for_recovery_is_unfinished_and_a_soak_is_not(step, code):
    begun = NOW - timedelta(minutes=30)
    records = [adopted(5, NOW - 10 * DAY), *rotation(6, begun, until=step, revoked=[5])]
    keys = [key(6, created_at=begun, last_used_at=begun)]
    keys += [key(5, last_used_at=begun)] if step != "done" else []
    result = judged(keys, records, sinks={SINK: sink(receipt=None)} if step == "intent" else {})
    assert result.exit_code == code
    assert result.unfinished == (("ci",) if code == 4 else ())


def test_a_soak_that_is_over_waits_for_recovery():
    keys, records, until = two_keys()
    for now, code in ((until - INSTANT, 0), (until, 4)):
        result = audit(inventory(keys, records, sinks={}), parse_policy(POLICY), now=now)
        assert result.exit_code == code


def test_the_exit_code_is_the_greatest_that_applies():
    gap = (Gap(source="members", reason="HTTP 500"),)
    assert judged(OLD, gaps=gap).exit_code == 3
    records = [adopted(5, NOW - 10 * DAY), *rotation(6, NOW - DAY, until="stored")]
    assert judged(OLD, records, gaps=gap).exit_code == 4


# Order


@given(order=st.integers(0, 40))
def test_the_order_of_the_lists_does_not_matter(order):
    keys = [key(5 + each, name=name_of(each % 3), created_at=NOW - 30 * each * DAY) for each in range(8)]
    gaps = (Gap(source="sink", what="b", reason="x"), Gap(source="sink", what="a", reason="x"))
    facts = inventory(keys, [], gaps=gaps, sinks={SINK: sink(), "other": sink(name="other", address=f"{ADDRESS}2")})
    expected = audit(facts, parse_policy(POLICY), now=NOW)
    result = audit(shuffled(facts, order), parse_policy(POLICY), now=NOW)
    assert (result.findings, result.gaps) == (expected.findings, expected.gaps)
    assert [each.order for each in result.findings] == sorted(each.order for each in result.findings)


STEPS = st.sampled_from(
    ["intent", "minted", "checked", "storing", "stored", "verified", "soaking", "revoking", "revoked", "done"]
)


@given(
    step=STEPS,
    ages=st.lists(st.integers(-5, 500), min_size=1, max_size=6),
    listed=st.sets(st.integers(5, 12)),
    begun=st.integers(-1, 40),
    present=st.booleans(),
)
def test_no_facts_make_a_rule_fail(step, ages, listed, begun, present):
    """Whatever was listed and written down, the audit is made, and says of each finding what to do."""
    records = [adopted(5, NOW - 100 * DAY), *rotation(6, NOW - begun * DAY, until=step, revoked=[5])]
    keys = [
        key(each, created_at=NOW - ages[each % len(ages)] * DAY, last_used_at=None if each % 3 else NOW - DAY)
        for each in sorted(listed)
    ]
    result = judged(keys, records, sinks={SINK: sink(present, was_read=True, holds="mac-6")})
    assert all(each.problem.sentence and each.problem.advice and each.line >= 1 for each in result.findings)
    assert result.exit_code in (0, 1, 4)
