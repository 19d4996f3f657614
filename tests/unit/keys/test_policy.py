"""The policy file: what it may say, and what is said of what it may not."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lamplighter.keys.errors import PolicyError
from lamplighter.keys.inventory import parse_sinks
from lamplighter.keys.policy import RULE_IDS, parse_policy
from lamplighter.keys.records import Scope, SinkRef
from lamplighter.keys.toml_lines import find_lines

FULL = """\
version = 1   # of the format

[neon]
base_url = "https://console.neon.tech/api/v2"
org_id = "org-quiet-lake-1"
minter = "keyring:neon/minter"
minter_id = 7
minter_from = ["10.1.2.3", "2001:db8::/32"]
prefix = "acme"
personal = false

[defaults]
max_age = "60d"
unused = "30d"
never_used = "3d"
due_soon = "1w"
soak = "2h"
soak_grace = "12h"
minter_max_age = "180d"
max_keys = 20
max_account_keys = 100
addresses = ["10.0.0.0/8"]
max_addresses = 3
fail_on = "medium"

[lineage.ci]
scope = "project"
project_id = "wide-rain-1"
owner = "platform@example.org"
sinks = [
  "gh-ci",       # the workflow
  "local",
  "vault:secret/neon#ci",
]
smoke = "gh workflow run neon.yml"
consumer = "10m"
allow = ["GH_TOKEN"]
max_age = "30d"

[lineage.ke]
scope = "organization"
org_id = "org-other-2"
pattern = "knowledge-engineering-{year}-Q{quarter}"
soak = "0"

[sink.gh-ci]
type = "github"
repo = "acme/app"
environment = "production"
name = "NEON_API_KEY"

[sink.local]
address = "dotenv:/srv/app/.env#NEON_API_KEY"

[sink.cf]
address = "cloudflare-store:a/s/NEON_API_KEY"
options = { timeout = 30, strict = true }
comment = "run-time"

[parity.NEON_API_KEY]
required = ["gh-ci"]
optional = ["cf"]
forbidden = ["github-org:acme/NEON_API_KEY"]

[[ignore]]
rule = "K001"
key_id = 12
reason = "the vendor rotates it"
until = 2027-01-31

[[ignore]]
rule = "P003"
sink = "local"
reason = "clock of that machine"
until = 2026-12-01T12:00:00+02:00
"""


def problem_of(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    return caught.value


def test_everything_that_a_policy_may_say():
    policy = parse_policy(FULL)
    assert (policy.neon.org_id, policy.neon.minter_id, policy.neon.personal) == ("org-quiet-lake-1", 7, False)
    assert policy.neon.minter_from == ("10.1.2.3/32", "2001:db8::/32")
    assert policy.defaults.fail_on == "medium"
    assert policy.defaults.minter_max_age == timedelta(days=180)
    ci, ke = policy.lineages["ci"], policy.lineages["ke"]
    assert ci.scope == Scope(kind="project", org_id="org-quiet-lake-1", project_id="wide-rain-1")
    assert (ci.limits.max_age, ci.limits.unused, ci.limits.due_soon) == (
        timedelta(days=30),
        timedelta(days=30),
        timedelta(days=7),
    )
    assert (ci.consumer, ci.soak, ci.allow) == (timedelta(minutes=10), timedelta(hours=2), ("GH_TOKEN",))
    assert ke.scope == Scope(kind="organization", org_id="org-other-2")
    assert ke.soak == timedelta()
    assert policy.org_ids == ("org-other-2", "org-quiet-lake-1")
    assert policy.sinks_of("ci") == (
        SinkRef("github-env:acme/app/production/NEON_API_KEY"),
        SinkRef("dotenv:/srv/app/.env#NEON_API_KEY"),
        SinkRef("vault:secret/neon#ci"),
    )
    assert policy.sinks["cf"].ref.options == (("strict", "true"), ("timeout", "30"))
    assert policy.parity["NEON_API_KEY"].forbidden == ("github-org:acme/NEON_API_KEY",)
    assert policy.naming_of("ke").pattern.startswith("knowledge-engineering")
    assert policy.naming_of("unheard-of").prefix == "acme"


def test_an_ignore_lasts_to_the_end_of_its_day_or_to_its_moment():
    first, second = parse_policy(FULL).ignores
    assert first.until == datetime(2027, 2, 1, tzinfo=UTC)
    assert second.until == datetime(2026, 12, 1, 10, tzinfo=UTC)
    assert not second.expired(second.until - timedelta(microseconds=1))
    assert second.expired(second.until)


def test_lines_are_those_of_the_file():
    policy = parse_policy(FULL)
    lines = FULL.splitlines()
    for path, start in [
        (("lineage", "ci"), "[lineage.ci]"),
        (("lineage", "ci", "max_age"), 'max_age = "30d"'),
        (("sink", "local"), "[sink.local]"),
        (("parity", "NEON_API_KEY", "forbidden"), "forbidden"),
        (("defaults",), "[defaults]"),
    ]:
        assert lines[policy.line(*path) - 1].startswith(start)
    assert [lines[each.line - 1] for each in policy.ignores] == ["[[ignore]]", "[[ignore]]"]
    assert policy.ignores[0].line < policy.ignores[1].line
    assert policy.line("nothing", "of", "this") == 1


def test_the_digest_is_of_what_the_policy_says_and_not_of_how():
    other = "# a comment\n" + FULL.replace("60d", "60d").replace("   # of the format", "").replace("  ", "   ")
    assert parse_policy(other).digest == parse_policy(FULL).digest
    assert parse_policy(FULL).digest.startswith("sha256:")
    assert parse_policy(FULL.replace("60d", "61d")).digest != parse_policy(FULL).digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('max_age = "60d"', 'max_agee = "60d"', ["line 13", "defaults.max_agee", "did you mean max_age?"]),
        ("version = 1", "version = 2", ["line 1", "version", "only version 1"]),
        ("version = 1", "", ["version is missing"]),
        ("[defaults]", "[default]", ["default", "did you mean defaults?"]),
        ('max_age = "60d"', "max_age = 60", ["defaults.max_age", "a span of time such as 90d", "not a number"]),
        ('max_age = "60d"', 'max_age = "60 days"', ["defaults.max_age", "no span of time"]),
        ("max_keys = 20", "max_keys = true", ["defaults.max_keys", "a whole number", "not a boolean"]),
        ("max_keys = 20", "max_keys = 0", ["defaults.max_keys", "at least 1"]),
        ("personal = false", 'personal = "no"', ["neon.personal", "true or false", "not a string"]),
        ('fail_on = "medium"', 'fail_on = "hgih"', ["defaults.fail_on", "did you mean high?"]),
        ('scope = "project"', 'scope = "projects"', ["lineage.ci.scope", "did you mean project?"]),
        ('scope = "project"\n', "", ["lineage.ci", "scope is missing"]),
        ('project_id = "wide-rain-1"\n', "", ["lineage.ci", "project_id is missing"]),
        ('scope = "organization"', 'scope = "personal"', ["lineage.ke.org_id", "a personal key has none"]),
        ('org_id = "org-quiet-lake-1"\n', "", ["lineage.ci", "org_id is missing"]),
        ('org_id = "org-quiet-lake-1"', 'org_id = "Org/1"', ["neon.org_id", "no id of an organization"]),
        ("[lineage.ci]", "[lineage.CI]", ["lineage.CI", "no name for a lineage"]),
        ('  "local",', '  "locl",', ["lineage.ci.sinks", "no sink 'locl'", "did you mean local?"]),
        ('  "local",', "  3,", ["lineage.ci.sinks", "every element has to be a string"]),
        ('  "local",', '  "gh-ci",', ["lineage.ci.sinks", "here twice"]),
        ('type = "github"', 'type = "githup"', ["sink.gh-ci.type", "did you mean github?"]),
        ('repo = "acme/app"\n', "", ["sink.gh-ci", "repo, environment, name or org, name or repo, name"]),
        ('address = "dotenv:/srv/app/.env#NEON_API_KEY"', "", ["sink.local", "either an address"]),
        ('address = "dotenv:/srv/app/.env#NEON_API_KEY"', 'address = ".env"', ["sink.local.address", "KIND:PLACE"]),
        ("timeout = 30", "timeout = 3.5", ["sink.cf.options.timeout", "a string is wanted"]),
        ('optional = ["cf"]', 'optional = ["gh-ci"]', ["parity.NEON_API_KEY.optional", "in required and in optional"]),
        ('rule = "K001"', 'rule = "K01"', ["ignore[1].rule", "no rule 'K01'", "did you mean K"]),
        ("key_id = 12\n", "", ["ignore[1]", "say what it is about"]),
        ('reason = "the vendor rotates it"\n', "", ["ignore[1]", "reason is missing"]),
        ('reason = "the vendor rotates it"', 'reason = "  "', ["ignore[1].reason", "may not be empty"]),
        ("until = 2027-01-31\n", "", ["ignore[1]", "until is missing"]),
        ("until = 2027-01-31", "until = 2027-01-31T10:00:00", ["ignore[1].until", "needs its offset"]),
        ("until = 2027-01-31", "until = 10:00:00", ["ignore[1].until", "a date is wanted", "not a time"]),
        ("until = 2027-01-31", 'until = "soon"', ["ignore[1].until", "no date"]),
        ('[[ignore]]\nrule = "K001"', '[ignore]\nrule = "K001"', ["no TOML"]),
        ('addresses = ["10.0.0.0/8"]', 'addresses = ["10.0.0.0/40"]', ["defaults.addresses", "no address"]),
        ('base_url = "https:', 'base_url = "ftp:', ["neon.base_url", "http"]),
        ('"https://console', '"https://user:pw@console', ["neon.base_url", "without a user"]),
        ('"https://console.neon.tech', '"https://console.neon.tech:99999', ["neon.base_url"]),
        ('prefix = "acme"', 'prefix = "a.b"', ["neon.prefix", "no prefix"]),
        ("Q{quarter}", "Q{quater}", ["lineage.ke.pattern", "means nothing"]),
        ("[sink.cf]", "[sink.'a b']", ['sink."a b"', "the name of a sink"]),
        ("cloudflare-store:a/s/NEON_API_KEY", "dotenv:/srv/app/.env#NEON_API_KEY", ["sink.cf", "as sink.local"]),
        ('soak = "0"', 'soak = "0"\nsinks = ["local"]', ["lineage.ke.sinks", "already holds the key of ci"]),
        ("[defaults]", "[defaults", ["no TOML", "line 12"]),
    ],
)
def test_what_cannot_be_meant_is_said_with_its_line_and_path(old: str, new: str, said: list[str]):
    assert old in FULL
    error = problem_of(FULL.replace(old, new, 1))
    assert [part for part in said if part not in error.message] == []


def test_two_lineages_whose_keys_would_have_the_same_names_are_refused():
    text = FULL.replace('allow = ["GH_TOKEN"]', 'pattern = "knowledge-engineering-{year}-Q{quarter}"')
    assert "put {lineage} into the pattern" in problem_of(text).message


def test_a_key_in_the_policy_is_refused_and_not_shown():
    error = problem_of(FULL.replace("keyring:neon/minter", "napi_0123456789abcdef"))
    assert "line 6" in error.message
    assert "0123456789" not in f"{error!r} {error.hint}"


def test_a_minter_that_is_no_place_is_not_shown():
    error = problem_of(FULL.replace("keyring:neon/minter", "a-value-put-here-by-mistake"))
    assert "neon.minter" in error.message
    assert "by-mistake" not in f"{error!r} {error.hint}"


def test_a_sink_that_cannot_be_meant_is_said_with_its_line():
    policy = parse_policy('version = 1\n\n[sink.a]\naddress = "dotenv:nothing-but-a-path"\n')
    with pytest.raises(PolicyError, match=r"^line 3, sink\.a: .*dotenv:PATH#NAME"):
        parse_sinks(policy)


def test_two_spellings_of_one_place_are_found():
    text = 'version = 1\n[sink.a]\naddress = "dotenv:/x/../x/.env#K"\n[sink.b]\naddress = "dotenv:/x/.env#K"\n'
    with pytest.raises(PolicyError, match=r"sink\.b: this is the same place as a"):
        parse_sinks(parse_policy(text))


def test_the_empty_policy_has_only_its_version():
    policy = parse_policy("version = 1")
    assert (policy.lineages, policy.sinks, policy.org_ids) == ({}, {}, ())
    assert policy.defaults.fail_on == "high"
    assert len(RULE_IDS) == 22


# Anything at all

BARE = st.sampled_from(
    ["version", "neon", "defaults", "lineage", "sink", "parity", "ignore", "ci", "scope", "sinks", "until", "rule",
     "reason", "soak", "addresses", "pattern", "options", "address", "type", "minter_id", "base_url", "x"]
)  # fmt: skip
VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.sampled_from(["1.5", "nan", "2027-01-31", "2027-01-31T00:00:00Z", "9999-12-31", "10:00:00", "1", "{}", "[]"]),
    st.sampled_from(["90d", "999999w", "project", "dotenv:a#b", "K001", "{rid}{rid}", "10.0.0.0/8", ""]).map(
        json.dumps
    ),
    st.text(max_size=8).map(lambda text: json.dumps(text).replace("\\u", "\\\\u")),
    st.lists(BARE.map(json.dumps), max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
)
LINES = st.one_of(
    st.tuples(BARE, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.lists(BARE, min_size=1, max_size=3).map(lambda parts: f"[{'.'.join(parts)}]"),
    BARE.map(lambda name: f"[[{name}]]"),
)


@given(st.lists(LINES, max_size=12))
@example(["[defaults]", 'max_age = "999999w"'])
@example(["[[ignore]]", 'rule = "K001"', "key_id = 1", 'reason = "x"', "until = 9999-12-31"])
@example(["[neon]", 'base_url = "http://[::1"'])
@example(["sink = [1, 2]"])
@example(["ignore = [1, 2]"])
@example(["[lineage]", "ci = 3"])
def test_whatever_a_file_holds_it_is_a_policy_or_a_policy_error(lines: list[str]):
    with contextlib.suppress(PolicyError):
        parse_policy("\n".join(["version = 1", *lines]))


@given(st.text())
@example("a = " + "[" * 5000)
@example("version = " + "1" * 5000)
@example('version = 1\n[sink."\\ud800"]')
def test_any_text_at_all_is_a_policy_or_a_policy_error(text: str):
    with contextlib.suppress(PolicyError):
        parse_policy(text)


@given(st.text(max_size=60))
@example('a = "\\')
@example('[a."\\UFFFFFFFF"]')
def test_lines_are_looked_for_in_anything(text: str):
    assert all(1 <= line <= text.count("\n") + 1 for line in find_lines(text).values())


@given(st.lists(st.sampled_from(['"x"', "'''a\n[b]\n'''", '"""\nc = 1\n\\""""', "[\n1, # ]\n2,\n]", "{ a = 1 }", "3"])))
def test_the_line_of_a_key_does_not_depend_on_what_is_before_it(values: list[str]):
    text, wanted = "", {}
    for number, value in enumerate(values):
        wanted[f"k{number}",] = text.count("\n") + 1
        text += f"k{number} = {value}\n"
    assert find_lines(text) == wanted
