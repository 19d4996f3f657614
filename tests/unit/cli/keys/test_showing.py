"""How errors, outcomes and lines of the journal are shown. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from lamplighter.cli.keys import VERBS, keys
from lamplighter.cli.keys.auditing import COULD_NOT_LOOK, OUTPUTS
from lamplighter.cli.keys.common import failure_of_keys
from lamplighter.cli.keys.leaking import _LOOKS_LIKE_A_KEY
from lamplighter.cli.keys.results import result_fact
from lamplighter.cli.keys.showing import event_of, sentence_of
from lamplighter.cli.keys.showing import lineage_fact as status_of
from lamplighter.keys import audit, errors, report
from lamplighter.keys import records as rec
from lamplighter.keys.fold import State, fold
from lamplighter.keys.manager import Result
from lamplighter.keys.records import Scope, SinkRef
from lamplighter.keys.rotate import Outcome
from lamplighter.keys.sinks.base import Receipt

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RID = "abcdefghij"
STORE = "dotenv:/tmp/a.env#KEY"
PERSONAL = Scope(kind="personal")
BEGUN = rec.MintIntent(
    at=NOW,
    lineage="ci",
    rid=RID,
    name=f"lamp.ci.{RID}",
    scope=PERSONAL,
    sinks=(SinkRef(STORE),),
    soak=60.0,
    timeout=1.0,
)
MINTED = rec.Minted(at=NOW, lineage="ci", rid=RID, key_id=3, mac="00ff")
INTENT = rec.StoreIntent(at=NOW, lineage="ci", rid=RID, key_id=3, sink=STORE)
STORED = rec.Stored(at=NOW, lineage="ci", rid=RID, key_id=3, sink=STORE, receipt=Receipt())
VERIFIED = rec.Verified(at=NOW, lineage="ci", rid=RID, key_id=3, levels={STORE: "value"})
SOAKING = rec.Soaking(at=NOW, lineage="ci", rid=RID, until=NOW + timedelta(hours=1), seen={2: None})
ALL = (BEGUN, MINTED, INTENT, STORED, VERIFIED, SOAKING)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.PolicyError(), 2, "policy_error"),
        (errors.SinkNotFound(), 3, "sink_not_found"),
        (errors.NeonFailed(status=404), 3, "neon_failed"),
        (errors.Busy(), 4, "busy"),
        (errors.Held(), 4, "held"),
        (errors.MinterUnfit(), 5, "minter_unfit"),
        (errors.SinkRefused(status=403), 5, "sink_refused"),
        (errors.MintError(status=429), 6, "mint_error"),
        (errors.MintUnknown(), 1, "mint_unknown"),
        (errors.SinkUnreachable(), 1, "sink_unreachable"),
        (errors.NotProven(), 1, "not_proven"),
        (errors.JournalFull(), 1, "journal_full"),
    ],
)
def test_exit_statuses(error: errors.KeysError, status: int, code: str) -> None:
    failure = failure_of_keys(error)
    assert (failure.exit_code, failure.code) == (status, code)
    assert failure.hint == (error.hint or "")


def test_what_the_audit_has_is_what_the_command_says() -> None:
    assert report.FORMATS == OUTPUTS
    assert audit.COULD_NOT_LOOK == COULD_NOT_LOOK


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_there_and_has_examples(name: str) -> None:
    command = keys.get_command(click.Context(keys), name)
    assert command is not None
    assert "Examples:" in (command.help or "")
    assert name in {"list", "sinks"} or command.name == name


def test_every_kind_of_record_has_a_sentence() -> None:
    for kind in rec._KINDS.values():
        assert sentence_of.dispatch(kind) is not sentence_of.dispatch(object), kind.__name__


class TestHistory:
    @pytest.mark.parametrize("record", ALL, ids=lambda record: record.kind)
    def test_names_are_those_of_the_journal(self, record: rec.Record) -> None:
        event = event_of(record)
        assert (event["kind"], event["lineage"], event["rid"]) == (record.kind, "ci", RID)
        assert event["sentence"]

    def test_fingerprints_are_left_to_the_journal(self) -> None:
        assert "00ff" not in str(event_of(MINTED))


class TestStatus:
    @pytest.mark.parametrize(
        ("count", "phase", "waits_for", "recover"),
        [
            (1, "minting", "the outcome of a mint whose answer was lost", True),
            (2, "minted", "1 of 1 stores", True),
            (3, "storing", "1 of 1 stores", True),
            (4, "stored", "its proof", True),
            (6, "soaking", "the end of the soak", False),
        ],
    )
    def test_where_a_rotation_is(self, count: int, phase: str, waits_for: str, recover: bool) -> None:
        fact = status_of(fold(ALL[:count]).lineage("ci"), NOW)
        assert (fact["phase"], fact["waits_for"], fact["needs_recover"]) == (phase, waits_for, recover)

    def test_a_soak_that_is_over_waits_for_the_next_run(self) -> None:
        fact = status_of(fold(ALL).lineage("ci"), NOW + timedelta(hours=2))
        assert (fact["waits_for"], fact["needs_recover"]) == ("the revocation of the old key", True)


class TestResults:
    def test_an_outcome(self) -> None:
        outcome = Outcome(lineage="ci", state="soaking", rid=RID, key_id=3, levels={STORE: "value"}, until=NOW)
        fact = result_fact(Result(lineage="ci", outcome=outcome), fold(ALL))
        assert fact["name"] == f"lamp.ci.{RID}"
        assert fact["sinks"] == [{"address": STORE, "proof": "value"}]
        assert fact["until"] == "2026-11-22T00:00:00+00:00"
        assert fact["error"] is None

    def test_an_error_has_the_same_names(self) -> None:
        failed = result_fact(Result(lineage="ci", error=errors.Held(key_id=2)), State())
        assert set(failed) == set(
            result_fact(Result(lineage="ci", outcome=Outcome(lineage="ci", state="done")), State())
        )
        assert failed["state"] == "failed"
        assert failed["error"]["exit_code"] == 4


@pytest.mark.parametrize("text", ["napi_abc", "a" * 64])
def test_a_key_on_the_command_line_is_known(text: str) -> None:
    assert _LOOKS_LIKE_A_KEY.fullmatch(text)


@pytest.mark.parametrize("text", ["123", "ci-2026-Q4", f"knowledge-engineering-2026-Q4.{RID}"])
def test_ids_and_names_are_none(text: str) -> None:
    assert not _LOOKS_LIKE_A_KEY.fullmatch(text)
