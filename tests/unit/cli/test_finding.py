"""Exact names, and what is said of others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.errors import NOT_THERE, Failure
from lamplighter.cli.finding import exactly, near_hint


@dataclass(frozen=True)
class Thing:
    id: str
    name: str | None


def pick(wanted: str, things: list[Thing]) -> Thing:
    return exactly(wanted, things, what="endpoint", where="in project p", name=lambda one: one.name)


def test_a_near_name_is_a_hint_and_no_more() -> None:
    assert near_hint("mian", ["main", "dev"], otherwise="x") == "did you mean 'main'?"
    assert near_hint("Main", ["main", "dev"], otherwise="x") == "did you mean 'main'?"
    assert near_hint("42", ["pr-42", "pr-420", "dev"], otherwise="x") == "did you mean 'pr-42' or 'pr-420'?"
    assert near_hint("zzz", ["main"], otherwise="x") == "x"
    assert near_hint("", ["main"], otherwise="x") == "x"


def test_names_and_ids_are_exact() -> None:
    things = [Thing("ep-1", "main"), Thing("ep-2", "main-2"), Thing("ep-3", None)]
    assert pick("main", things) is things[0]
    assert pick("ep-3", things) is things[2]
    for wanted in ("mai", "MAIN", "main ", "ep-", "None", ""):
        with pytest.raises(Failure) as caught:
            pick(wanted, things)
        assert caught.value.exit_code == NOT_THERE


def test_an_id_comes_before_a_name() -> None:
    things = [Thing("ep-1", "ep-2"), Thing("ep-2", "x")]
    assert pick("ep-2", things) is things[1]


def test_several_of_a_name_are_told_by_id() -> None:
    with pytest.raises(Failure) as caught:
        pick("main", [Thing("ep-1", "main"), Thing("ep-2", "main")])
    assert caught.value.exit_code == NOT_THERE
    assert "ep-1, ep-2" in caught.value.hint


def test_a_missing_name_shows_what_there_is() -> None:
    with pytest.raises(Failure) as caught:
        pick("zzz", [Thing("ep-1", "main"), Thing("ep-2", "dev")])
    assert caught.value.hint == "there are: main, dev"
    with pytest.raises(Failure) as caught:
        pick("zzz", [Thing("ep-1", None), Thing("ep-2", "dev")])
    assert caught.value.hint == "there are: ep-1, dev"
    with pytest.raises(Failure) as caught:
        pick("zzz", [])
    assert caught.value.hint == "there is no endpoint in project p"


things = st.lists(st.builds(Thing, st.uuids().map(str), st.none() | st.text(max_size=3)), max_size=6)


@given(things, st.text(max_size=3))
def test_what_is_found_has_the_name(found: list[Thing], wanted: str) -> None:
    """Never one with another name."""
    try:
        one = pick(wanted, found)
    except Failure:
        assert len([each for each in found if each.name == wanted]) != 1
    else:
        assert wanted in (one.id, one.name)
