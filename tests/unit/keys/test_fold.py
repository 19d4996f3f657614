"""What is true after some lines of the journal."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lamplighter.keys import records as rec
from lamplighter.keys.fold import Lineage, fold
from lamplighter.keys.records import Record, Scope, SinkRef
from lamplighter.keys.sinks.base import Receipt

AT = datetime(2026, 1, 1, tzinfo=UTC)
ONE, TWO = SinkRef("sealed:one"), SinkRef("sealed:two")
AUTHOR = {"at": AT, "lineage": "ci"}
SCOPE = Scope(kind="personal")

ADOPTED = rec.Adopted(**AUTHOR, key_id=1, name="old", scope=SCOPE, sinks=(ONE, TWO))
INTENT = rec.MintIntent(**AUTHOR, rid="a", name="lamp.ci.a", scope=SCOPE, sinks=(ONE, TWO), soak=0, timeout=30)
MINTED = rec.Minted(**AUTHOR, rid="a", key_id=2, mac="m2")


def telling(sink: str) -> rec.StoreIntent:
    return rec.StoreIntent(**AUTHOR, rid="a", key_id=2, sink=sink)


def told(sink: str) -> rec.Stored:
    return rec.Stored(**AUTHOR, rid="a", key_id=2, sink=sink, receipt=Receipt())


def after(*records: Record) -> Lineage:
    return fold(records).lineage("ci")


def test_an_adopted_key_may_be_in_all_its_sinks() -> None:
    lineage = after(ADOPTED)
    assert lineage.may_hold == {ONE.address: {1}, TWO.address: {1}}
    assert lineage.current == 1
    assert not lineage.unfinished


def test_a_sink_that_is_being_written_may_hold_both() -> None:
    assert after(ADOPTED, INTENT, MINTED, telling(ONE.address)).may_hold == {ONE.address: {1, 2}, TWO.address: {1}}


def test_a_sink_that_took_the_key_holds_that_alone() -> None:
    lineage = after(ADOPTED, INTENT, MINTED, telling(ONE.address), told(ONE.address))
    assert lineage.may_hold == {ONE.address: {2}, TWO.address: {1}}
    assert lineage.holders(1) == (TWO.address,)


def test_a_sink_that_was_seen_to_hold_another_key_may_hold_either() -> None:
    observed = rec.Observed(**AUTHOR, rid="a", sink=ONE.address, key_id=1)
    lineage = after(ADOPTED, INTENT, MINTED, telling(ONE.address), told(ONE.address), observed)
    assert lineage.may_hold[ONE.address] == {1, 2}
    assert lineage.open is not None
    assert [each.address for each in lineage.open.remaining] == [ONE.address, TWO.address]


def test_an_intent_without_an_outcome_is_unsure_until_it_is_given_up_and_then_watched() -> None:
    lineage = after(INTENT)
    assert [each.rid for each in lineage.unsure] == ["a"]
    aborted = after(INTENT, rec.Aborted(**AUTHOR, rid="a", reason="why"))
    assert not aborted.unfinished
    assert aborted.watched == {"lamp.ci.a"}
    late = after(INTENT, rec.Aborted(**AUTHOR, rid="a", reason="why"), rec.Found(**AUTHOR, rid="a", key_id=9))
    assert [key.id for key in late.doomed] == [9]
    assert late.watched == set()


def test_a_key_that_was_minted_and_not_told_is_doomed_once_aborted() -> None:
    aborted = rec.Aborted(**AUTHOR, rid="a", reason="why")
    assert [key.id for key in after(INTENT, MINTED, aborted).doomed] == [2]
    assert after(INTENT, MINTED, rec.Revoked(**AUTHOR, key_id=2), aborted).doomed == ()


def test_an_attempt_given_up_half_way_stays_pending_until_another_is_done() -> None:
    superseded = rec.Superseded(**AUTHOR, rid="a", reason="why")
    lineage = after(INTENT, MINTED, telling(ONE.address), superseded)
    assert lineage.pending == ("a",)
    assert lineage.unfinished
    assert lineage.doomed == ()


def test_what_is_done_is_current_and_finished() -> None:
    lineage = after(INTENT, MINTED, rec.Done(**AUTHOR, rid="a", key_id=2))
    assert (lineage.current, lineage.unfinished) == (2, False)
    assert after(INTENT, MINTED, rec.Done(**AUTHOR, rid="a", key_id=2), rec.Revoked(**AUTHOR, key_id=2)).current is None


def test_a_revocation_that_was_begun_is_unfinished_until_it_is_said_to_be_done() -> None:
    begun = rec.RevokeIntent(**AUTHOR, key_id=1, name="old")
    assert after(ADOPTED, begun).unfinished
    assert not after(ADOPTED, begun, rec.Revoked(**AUTHOR, key_id=1)).unfinished


def test_a_forgotten_sink_may_hold_nothing() -> None:
    assert after(ADOPTED, rec.Forgotten(**AUTHOR, sink=ONE.address)).may_hold == {TWO.address: {1}}


def test_the_order_is_that_of_the_lines_whatever_the_clock_said() -> None:
    early = datetime(1999, 1, 1, tzinfo=UTC)
    back = rec.Minted(at=early, lineage="ci", rid="a", key_id=2, mac="m2")
    assert after(ADOPTED, INTENT, back).live == {1, 2}


@pytest.mark.parametrize(
    "records",
    [(MINTED,), (INTENT, INTENT), (INTENT, telling(ONE.address)), (rec.Done(**AUTHOR, rid="x", key_id=1),)],
)
def test_a_record_that_cannot_follow_is_an_error(records: tuple[Record, ...]) -> None:
    with pytest.raises(ValueError):
        fold(records)


def test_a_key_is_known_by_its_mac_in_every_lineage() -> None:
    assert fold([ADOPTED, INTENT, MINTED]).id_of("m2") == 2
    assert fold([ADOPTED, INTENT, MINTED]).id_of("other") is None
