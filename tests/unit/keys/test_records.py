"""Lines of the journal: what is written is read back, whatever the record."""

from __future__ import annotations

import dataclasses
import json
import typing
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.keys import records as rec
from lamplighter.keys.records import Record, Scope, SinkRef, read_record, write_record
from lamplighter.keys.sinks.base import Receipt

TIMES = st.datetimes(timezones=st.just(UTC))
TEXT = st.text(max_size=20)
OPTIONS = st.dictionaries(TEXT, TEXT, max_size=2).map(lambda known: tuple(sorted(known.items())))
SCOPES = st.sampled_from(
    [
        Scope(kind="personal"),
        Scope(kind="organization", org_id="org-1"),
        Scope(kind="project", org_id="org-1", project_id="p-1"),
    ]
)
for kind, strategy in {
    datetime: TIMES,
    str: TEXT,
    float: st.floats(0, 1e9),
    Scope: SCOPES,
    SinkRef: st.builds(SinkRef, TEXT, OPTIONS),
    Receipt: st.builds(Receipt, version=st.none() | TEXT, updated_at=st.none() | TIMES, server_date=st.none() | TIMES),
}.items():
    st.register_type_strategy(kind, strategy)

KINDS = sorted(rec._KINDS.values(), key=lambda kind: kind.kind)
ALL = st.one_of(
    [
        st.builds(
            kind, **{name: st.from_type(hint) for name, hint in typing.get_type_hints(kind).items() if name != "kind"}
        )
        for kind in KINDS
    ]
)


@given(record=ALL)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    line = write_record(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert read_record(line) == record


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_record_that_lacks_something_is_refused(kind: type[Record]) -> None:
    with pytest.raises(ValueError):
        read_record(json.dumps({"v": 1, "kind": kind.kind, "at": "2026-01-01T00:00:00+00:00"}).encode())


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b'{"v":2,"kind":"done"}', b'{"v":1,"kind":"other"}', b"\xff"]
)
def test_what_is_no_record_is_refused_without_being_shown(line: bytes) -> None:
    with pytest.raises(ValueError) as raised:
        read_record(line)
    assert raised.value.__context__ is None


def test_what_a_newer_version_adds_is_passed_over() -> None:
    record = rec.Done(at=datetime(2026, 1, 1, tzinfo=UTC), lineage="ci", rid="a", key_id=1)
    known = json.loads(write_record(record)) | {"weather": "fine"}
    assert read_record(json.dumps(known).encode()) == record


def test_no_record_has_a_place_for_a_value() -> None:
    names = {each.name for kind in KINDS for each in dataclasses.fields(kind)}
    assert not names & {"key", "value", "secret", "token", "prefix", "suffix"}


@pytest.mark.parametrize(
    "ids",
    [
        {"kind": "personal", "org_id": "o"},
        {"kind": "project", "org_id": "o"},
        {"kind": "organization"},
        {"kind": "project"},
    ],
)
def test_a_scope_has_the_ids_of_its_kind(ids: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Scope(**ids)
