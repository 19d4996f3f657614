"""Names and marks of test branches: unlike any that a user gives, and swept only when all facts agree."""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.testing import naming

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TOKEN = "k3v9x0ab12cd"
tokens = st.text(string.ascii_lowercase + string.digits, min_size=12, max_size=12)

LEFT = naming.Seen(
    name=naming.branch_name(worker="gw0", token=TOKEN, label="test_insert"),
    annotation=naming.mark(TOKEN),
    default=False,
    protected=False,
    expires_at=NOW - timedelta(seconds=1),
)


def test_a_name_says_who_made_it_and_for_what():
    assert naming.branch_name(worker="gw0", token=TOKEN, label="test_insert[a/b]") == (
        "lamp-test-gw0-k3v9x0ab12cd-test-insert-a-b"
    )
    assert naming.branch_name(worker="", token=TOKEN, label="") == "lamp-test-main-k3v9x0ab12cd"


@given(worker=st.text(), token=tokens, label=st.text())
def test_every_name_is_short_plain_and_read_back(worker, token, label):
    name = naming.branch_name(worker=worker, token=token, label=label)

    assert naming.token_of(name) == token
    assert len(name) <= 256
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")


@given(st.text())
def test_a_name_that_does_not_begin_as_ours_has_no_token(name):
    assert naming.token_of(name) is None or name.startswith(naming.PREFIX)


@pytest.mark.parametrize(
    "name", ["main", "lamp-test-", "lamp-test-gw0", "lamp-test-gw0-short-x", f"my-lamp-test-gw0-{TOKEN}"]
)
def test_names_like_ours_are_not_ours(name):
    assert naming.token_of(name) is None


def test_what_a_killed_run_left_is_swept_when_its_time_is_over():
    assert naming.may_sweep(LEFT, now=NOW)
    assert naming.may_sweep(replace(LEFT, expires_at=NOW), now=NOW)


@pytest.mark.parametrize(
    "facts",
    [
        {"expires_at": NOW + timedelta(seconds=1)},
        {"expires_at": None},
        {"annotation": {}},
        {"annotation": {naming.MARK: "000000000000"}},
        {"annotation": {"other": TOKEN}},
        {"name": "lamp-test-gw0"},
        {"name": f"copy-of-{LEFT.name}"},
        {"default": True},
        {"protected": True},
    ],
)
def test_one_fact_that_does_not_fit_keeps_a_branch(facts):
    """Kept, renamed, made default or protected by somebody, still in use, or never ours."""
    assert not naming.may_sweep(replace(LEFT, **facts), now=NOW)


@given(name=st.text(), annotation=st.dictionaries(st.text(), st.text()), default=st.booleans(), protected=st.booleans())
def test_no_branch_of_a_user_is_ever_swept(name, annotation, default, protected):
    seen = naming.Seen(
        name=name, annotation=annotation, default=default, protected=protected, expires_at=NOW - timedelta(days=1)
    )

    assert not naming.may_sweep(seen, now=NOW)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), (" 30m ", 1800), ("2H", 7200), ("24h", 86400), ("1", 1)]
)
def test_times_to_live(text, seconds):
    assert naming.parse_ttl(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0", "25h", "86401", "-1", "1d", "1.5h", "one hour", "9" * 40])
def test_times_that_no_branch_can_live_are_refused(text):
    with pytest.raises(ValueError, match="is no time that a branch can live: write 30m"):
        naming.parse_ttl(text)


def test_an_id_is_told_from_a_name():
    assert naming.is_branch_id("br-noisy-breeze-a5e59rrb")
    assert not naming.is_branch_id("br-main")
    assert not naming.is_branch_id("main")
