"""Reports are differences that add up."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.traffic import Ledger

IDS = ["ep-a", "ep-b"]
ADDRESSES = ["192.0.2.1", "192.0.2.2", None]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from(IDS), st.sampled_from(ADDRESSES)),
        st.tuples(st.just("move"), st.integers(0, 9), st.integers(0, 50)),
        st.tuples(st.just("close"), st.integers(0, 9), st.integers(0, 50)),
        st.tuples(st.just("report"), st.booleans()),
        st.tuples(st.just("refuse"), st.sampled_from(["a", "b"])),
    ),
    max_size=40,
)


@given(steps)
def test_reports_add_up(steps):
    """Summed, reports tell all that happened; `open` is what is open at the last."""
    ledger = Ledger()
    totals, where, whence, live = {}, {}, {}, set()
    accepted, moved, refused, told, open_now = Counter(), Counter(), Counter(), Counter(), {}
    number = 0

    def hear(report):
        for one in report.traffic:
            told["accepted", one.endpoint_id] += one.accepted
            told["in", one.endpoint_id] += one.bytes_in
            told["out", one.endpoint_id] += one.bytes_out
            open_now[one.endpoint_id] = one.open
        told.update({("refused", reason): count for reason, count in report.refused.items()})

    for step in steps:
        match step:
            case ("open", endpoint_id, address):
                number += 1
                ledger.opened(number, endpoint_id, address=address)
                live.add(number)
                where[number], whence[number], totals[number] = endpoint_id, address, 0
                accepted[endpoint_id] += 1
            case (("move" | "close") as what, one, more):
                if one in live:
                    totals[one] += more
                    moved[where[one]] += more
                if what == "move":
                    ledger.moved(one, in_=totals.get(one, more), out=2 * totals.get(one, more))
                else:
                    endpoint_id = where.get(one)
                    was = one in live
                    live.discard(one)
                    last = ledger.closed(one, in_=totals.get(one, more), out=2 * totals.get(one, more))
                    assert last == (was and not any(where[other] == endpoint_id for other in live))
            case ("report", anew):
                if anew:
                    ledger.anew()
                hear(ledger.report())
            case ("refuse", reason):
                ledger.refused(reason)
                refused[reason] += 1
    hear(ledger.report())
    assert {(address, one) for address in ADDRESSES for one in ledger.used_from(address)} == {
        (whence[one], where[one]) for one in live
    }
    for endpoint_id in IDS:
        count = sum(1 for one in live if where[one] == endpoint_id)
        assert ledger.open(endpoint_id) == open_now.get(endpoint_id, 0) == count
        assert len(ledger.numbers(endpoint_id)) == count
        assert told["accepted", endpoint_id] == accepted[endpoint_id]
        assert told["in", endpoint_id] == moved[endpoint_id]
        assert told["out", endpoint_id] == 2 * moved[endpoint_id]
    assert {reason: told["refused", reason] for reason in refused} == refused
    assert ledger.report().traffic == ()


def test_a_new_platform_hears_of_all_that_is_open():
    """Though nothing has happened since the last report."""
    ledger = Ledger()
    ledger.opened(1, "ep-a")
    ledger.report()
    ledger.anew()
    (traffic,) = ledger.report().traffic
    assert (traffic.open, traffic.accepted) == (1, 0)
