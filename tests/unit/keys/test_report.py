"""Reports: the same bytes for the same audit, nothing of a hostile name acts, every format is what it says it is."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.keys import records as rec
from lamplighter.keys.audit import RULES, Audit, audit
from lamplighter.keys.evidence import rotations_done
from lamplighter.keys.facts import Gap
from lamplighter.keys.policy import parse_policy
from lamplighter.keys.report import FORMATS, render
from lamplighter.keys.report_base import Meta, clean
from lamplighter.keys.report_markdown import escape
from lamplighter.keys.report_sarif import message
from unit.keys.audit_facts import (
    ADDRESS,
    DAY,
    NOW,
    POLICY,
    SINK,
    adopted,
    inventory,
    judged,
    key,
    rid_of,
    rotation,
    shuffled,
    sink,
)

META = Meta(version="0.1.0", policy_path="./deploy/keys 1.toml")
GAP = Gap(source="members", what="org-a-1", reason="HTTP 503")

EXCUSED = f"""{POLICY}
[[ignore]]
rule = "K003"
key_id = 7
reason = "for the first of the month"
until = 2026-12-31

[[ignore]]
rule = "K001"
key_id = 8
reason = "gone"
until = 2026-01-01
"""


def example(*, name: str = "made in the console", **facts) -> Audit:
    """A rotation that was done, an old key without an owner, an excused one that was never used, a bad store."""
    records = [adopted(5, NOW - 20 * DAY, mac="mac-5"), *rotation(6, NOW - 10 * DAY, revoked=[5])]
    keys = [
        key(6, created_at=NOW - 10 * DAY),
        key(7, last_used_at=None),
        key(8, name=name, created_at=NOW - 100 * DAY, last_used_from=("192.0.2.77",)),
    ]
    records.append(rec.Adopted(at=NOW, lineage="ke", key_id=7, name=keys[1].name, scope=records[0].scope, sinks=()))
    known = {"sinks": {SINK: sink(was_read=True, holds="mac-5")}, **facts}
    return judged(keys, records, policy=EXCUSED, **known)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_audit_is_the_same_bytes_in_whatever_order_things_were_listed(form):
    keys = [key(5 + each, name=f"lamp.ci{each % 2}.{rid_of(each % 3)}") for each in range(6)]
    facts = inventory(keys, [], gaps=(GAP, replace(GAP, what="org-b")))
    policy = parse_policy(EXCUSED)
    expected = render(audit(facts, policy, now=NOW), form, META)
    for order in range(8):
        assert render(audit(shuffled(facts, order), policy, now=NOW), form, META) == expected


@pytest.mark.parametrize("form", FORMATS)
def test_addresses_are_only_shown_where_they_are_asked_for(form):
    policy = EXCUSED.replace("[defaults]", '[defaults]\naddresses = ["10.0.0.0/8"]')
    result = audit(example().inventory, parse_policy(policy), now=NOW)
    assert any(each.problem.addresses for each in result.findings)
    assert "192.0.2.77" not in render(result, form, META)
    # Labels would make a series for each of them.
    assert ("192.0.2.77" in render(result, form, replace(META, addresses=True))) == (form != "prometheus")


@pytest.mark.parametrize("form", FORMATS)
def test_no_report_holds_a_mac(form):
    assert "mac-" not in render(example(), form, META)


@pytest.mark.parametrize("form", FORMATS)
def test_what_could_not_be_looked_at_is_in_every_report(form):
    assert "members" in render(example(gaps=(GAP,)), form, META)
    assert "members" not in render(example(), form, META).replace("organization's members", "")


# Hostile names

NASTY = st.text(
    st.one_of(
        st.sampled_from(list("\r\n\t\0\x1b\x7f\u202e\u200b\u2028|`*_[]<>(){}#=+-@\\\"',;&:/\ud800\uff1d")),
        st.characters(),
    ),
    max_size=24,
)


@given(name=NASTY)
def test_no_name_brings_a_control_character_or_a_line_of_its_own_into_a_report(name):
    result, plain = example(name=name), example()
    for form in FORMATS:
        text = render(result, form, META)
        text.encode()
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ud800-\udfff]", text) is None
        assert text.count("\n") == render(plain, form, META).count("\n")


@given(name=NASTY)
def test_json_gives_every_name_back(name):
    known = json.loads(render(example(name=name), "json", META))
    assert [each["name"] for each in known["keys"] if each["id"] == 8] == [name]


@given(name=NASTY)
def test_no_cell_of_csv_is_a_formula(name):
    rows = list(csv.reader(io.StringIO(render(example(name=name), "csv", META))))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [cell for row in rows for cell in row if re.match(r"\s*[=+\-@|%\uff1d\uff0b\uff0d\uff20]", cell)] == []


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\uff1d1", "|calc"])
def test_a_formula_in_a_name_is_text_in_csv(name):
    rows = list(csv.DictReader(io.StringIO(render(example(name=name), "csv", META))))
    (cell,) = {row["name"] for row in rows if row["key_id"] == "8"}
    assert cell == ("'" if clean(name).lstrip()[0] != "\\" else "") + clean(name)


@given(name=NASTY)
def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(name):
    heads = 0
    for line in render(example(name=name), "markdown", META).splitlines():
        if not line.startswith("|"):
            heads = 0
            continue
        cells = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))
        heads = heads or cells
        assert cells == heads


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("[x](http://a.example)", "\\[x\\]\\(http&#58;//a.example\\)"),
        ("@team", "&#64;team"),
        ("WWW.a.example", "www&#46;a.example"),
        ("`x` \\| y", "\\`x\\` \\\\\\| y"),
        ("a\nb", "a\\\\x0ab"),
        (None, "-"),
        (0, "0"),
    ],
)
def test_markdown_makes_nothing_of_a_cell(text, shown):
    assert escape(text) == shown


LABEL = re.compile(r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"')
SAMPLE = re.compile(rf"[a-z_]+(?:\{{{LABEL.pattern}(?:,{LABEL.pattern})*\}})? -?\d+(?:\.\d+)?")


@given(name=NASTY)
def test_every_line_of_prometheus_text_is_a_sample_or_a_comment(name):
    for line in render(example(name=name), "prometheus", META).splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line), line


@pytest.mark.parametrize(
    ("name", "label"), [('a"b', r"a\"b"), ("a\\b", r"a\\b"), ("a\nb", r"a\\x0ab"), ("plain", "plain")]
)
def test_labels_are_escaped(name, label):
    assert f'name="{label}"' in render(example(name=name), "prometheus", META)


# Each format


def test_json_says_it_all():
    known = json.loads(render(example(gaps=(GAP,)), "json", META))
    assert (known["schema_version"], known["exit_code"], known["account_id"]) == (1, 3, "account-1")
    assert known["policy"] == {
        "path": META.policy_path,
        "digest": parse_policy(EXCUSED).digest,
        "fail_on": "high",
    }
    assert {each["rule"] for each in known["findings"]} >= {"K001", "K005", "P004"}
    assert [(each["rule"], each["ignored"]["until"]) for each in known["ignored"]] == [("K003", "2027-01-01T00:00:00Z")]
    assert [each["state"] for each in known["exceptions"]] == ["in force", "expired"]
    counts = known["counts"]["findings"]
    assert counts == {each: [one["severity"] for one in known["findings"]].count(each) for each in counts}
    assert (known["counts"]["ignored"], known["counts"]["could_not_look"], sum(counts.values())) == (1, 1, 3)
    looked = {each["id"]: each["looked"] for each in known["rules"]}
    assert (looked["K004"], looked["K001"], looked["K010"]) == (False, True, None)
    six = next(each for each in known["keys"] if each["id"] == 6)
    assert (six["age_days"], six["last_used_days"], six["owner"]) == (10.0, 0.0417, "platform@example.org")
    assert [(each["rid"], each["revoked"], each["proofs"]) for each in known["rotations"]] == [
        (rid_of(6), [5], {ADDRESS: "value"})
    ]


def test_evidence_of_a_rotation_has_its_times():
    (done,) = rotations_done(rotation(6, NOW, revoked=[5]))
    assert done.begun == NOW < done.verified < done.done
    assert rotations_done(rotation(6, NOW, until="verified")) == ()


def test_csv_has_a_row_for_each_finding_gap_and_rotation_to_recover():
    records = [adopted(5, NOW - DAY), *rotation(6, NOW - DAY, until="stored")]
    result = judged([key(5), key(6)], records, gaps=(GAP,), policy=EXCUSED, sinks={})
    rows = list(csv.DictReader(io.StringIO(render(result, "csv", META))))
    assert [row["kind"] for row in rows] == ["could not look", "unfinished"]
    kinds = [row["kind"] for row in csv.DictReader(io.StringIO(render(example(), "csv", META)))]
    assert kinds.count("ignored") == 1
    assert kinds.count("finding") == len(example().findings)


def test_the_table_begins_with_the_worst_and_ends_with_the_sum():
    lines = render(example(gaps=(GAP,)), "table", META).splitlines()
    severities = [line.split()[0] for line in lines[1:] if re.match(r"(critical|high|medium|low|info) ", line)]
    assert severities == sorted(severities, key=["critical", "high", "medium", "low", "info"].index)
    assert lines[0].split() == ["SEVERITY", "RULE", "SUBJECT", "FINDING"]
    line = EXCUSED.splitlines().index('rule = "K001"')
    assert f"ignore of K001, line {line}: ended 2026-01-02T00:00:00Z" in lines
    assert lines[-2] == "could not look at members org-a-1: HTTP 503"
    assert lines[-1].startswith("4 keys; ")
    assert render(judged([key(5)]), "table", META) == "2 keys; 0 findings\n"


def test_columns_of_the_table_stand_below_each_other_with_wide_letters_too():
    lines = render(example(name="鍵の名前"), "table", META).splitlines()
    head = lines[0].index("FINDING")
    (row,) = [line for line in lines if "K005" in line]
    assert row.index("nobody owns it") + len("鍵の名前") == head


def test_markdown_is_evidence():
    text = render(example(), "markdown", META)
    for part in (
        "# API keys: evidence of an audit",
        "| Policy digest | sha256:",
        "| Time | 2026-11-22T12:00:00Z |",
        "| Account | account-1 |",
        "## Exceptions",
        "| K003 | 7 | for the first of the month | 2027-01-01T00:00:00Z | in force | 1 |",
        f"| ci | {rid_of(6)} | 6 | 5 |",
        "## Keys",
        "## Rules",
    ):
        assert part in text
    assert "## Could not be looked at" not in text
    assert "These rules did not see all there is: K004." in render(example(gaps=(GAP,)), "markdown", META)


def test_prometheus_counts_no_rule_that_could_not_see_all():
    text = render(example(gaps=(GAP,)), "prometheus", META)
    assert 'lamplighter_keys_findings{rule="K001",severity="high"} 1' in text
    assert 'lamplighter_keys_findings{rule="K004"' not in text
    assert 'lamplighter_keys_could_not_look{source="members"} 1' in text
    assert 'lamplighter_key_age_days{key_id="6",name="lamp.ci.' in text
    assert re.search(r'lamplighter_key_last_used_days\{key_id="7"', text) is None
    assert re.search(r'lamplighter_key_never_used\{key_id="7".*\} 1\n', text)
    assert 'lamplighter_keys_findings{rule="K004",severity="high"} 0' in render(example(), "prometheus", META)
    assert text.endswith("\n")


# SARIF 2.1.0: what its schema requires of what we use


def assert_message(found: dict) -> None:
    assert isinstance(found["text"], str)
    assert found["text"]


def test_sarif_has_all_that_its_schema_requires():
    known = json.loads(render(example(gaps=(GAP,)), "sarif", META))
    assert known["version"] == "2.1.0"
    assert known["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = known["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    assert [rule["id"] for rule in driver["rules"]] == [rule.id for rule in RULES]
    for rule in driver["rules"]:
        for part in ("shortDescription", "fullDescription", "help"):
            assert_message(rule[part])
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        assert 0 < float(rule["properties"]["security-severity"]) < 10
        assert re.fullmatch(r"[A-Za-z]+", rule["name"])
    assert run["results"]
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert_message(result["message"])
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"] == "deploy/keys%201.toml"
        assert location["physicalLocation"]["region"]["startLine"] >= 1
    suppressed = [result for result in run["results"] if "suppressions" in result]
    assert [(each["ruleId"], each["suppressions"][0]["kind"]) for each in suppressed] == [("K003", "external")]
    (invocation,) = run["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 3)
    assert_message(invocation["toolExecutionNotifications"][0]["message"])
    clean_run = json.loads(render(example(), "sarif", META))["runs"][0]
    assert clean_run["invocations"][0]["executionSuccessful"] is True


def test_sarif_points_at_the_line_of_the_policy():
    known = json.loads(render(example(), "sarif", META))
    lines = EXCUSED.splitlines()
    found = {
        result["ruleId"]: lines[result["locations"][0]["physicalLocation"]["region"]["startLine"] - 1]
        for result in known["runs"][0]["results"]
    }
    assert found["P004"] == f"[sink.{SINK}]"
    assert found["K001"] == "[defaults]"


def test_fingerprints_stay_while_ages_grow():
    def prints(days: int) -> list:
        result = audit(example().inventory, parse_policy(EXCUSED), now=NOW + days * DAY)
        run = json.loads(render(result, "sarif", META))["runs"][0]
        return [each["partialFingerprints"]["subject/v1"] for each in run["results"] if each["ruleId"] == "K001"]

    assert prints(0) == prints(1) != []


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("keys.toml", "keys.toml"),
        ("././a b/ü.toml", "a%20b/%C3%BC.toml"),
        ("/etc/keys.toml", "file:///etc/keys.toml"),
        ("", "lamp-keys.toml"),
    ],
)
def test_paths_are_uris_in_sarif(path, uri):
    known = json.loads(render(example(), "sarif", replace(META, policy_path=path)))
    result = known["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_messages_of_sarif_have_no_places_and_no_links():
    assert message("[x](1) {0} a\\b") == "\\[x\\](1) {{0}} a\\\\b"
