"""What is counted, and that Prometheus reads it as it was meant."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lamplighter.gateway.ports import Report, Traffic
from lamplighter.platform.metrics import (
    MOST_REASONS,
    OTHER,
    WAKE_BUCKETS,
    Family,
    Numbers,
    Sample,
    number_text,
    rendered,
)

#: Prometheus reads lines: of what may end one, labels can hold the line feed alone.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=20)
counts = st.integers(0, 2**53)
ids = st.sampled_from(["ep-a", "ep-b", "ep-c"])


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a text by name and labels; no sample is there twice."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            key = (one.name, tuple(sorted(one.labels.items())))
            assert key not in found
            found[key] = one.value
    return found


def value(numbers: Numbers, name: str, **labels: str) -> float | None:
    return read(numbers.render(endpoints={})).get((name, tuple(sorted(labels.items()))))


def traffic(endpoint_id: str = "ep-a", opened: int = 0, accepted: int = 0, inward: int = 0, out: int = 0) -> Traffic:
    return Traffic(endpoint_id, open=opened, accepted=accepted, bytes_in=inward, bytes_out=out)


def test_traffic_adds_up_and_connections_are_now() -> None:
    numbers = Numbers()
    numbers.report(Report((traffic(opened=3, accepted=3, inward=10, out=20),), {"allowed_ips": 2}))
    numbers.report(Report((traffic(opened=1, accepted=1, inward=1, out=2),), {"allowed_ips": 1, "limit": 1}))
    assert value(numbers, "lamp_gateway_connections", endpoint="ep-a") == 1
    assert value(numbers, "lamp_gateway_accepted_total", endpoint="ep-a") == 4
    assert value(numbers, "lamp_gateway_bytes_total", endpoint="ep-a", direction="in") == 11
    assert value(numbers, "lamp_gateway_bytes_total", endpoint="ep-a", direction="out") == 22
    assert value(numbers, "lamp_refused_total", reason="allowed_ips") == 3
    assert value(numbers, "lamp_refused_total", reason="limit") == 1


def test_wakes_are_told_by_their_end() -> None:
    numbers = Numbers()
    assert value(numbers, "lamp_wakes_total", result="failed") == 0
    numbers.woke("ep-a", 0.05, ok=True)
    numbers.woke("ep-a", 40.0, ok=True)
    numbers.woke("ep-a", 9.0, ok=False)
    assert value(numbers, "lamp_wakes_total", result="ok") == 2
    assert value(numbers, "lamp_wakes_total", result="failed") == 1
    assert value(numbers, "lamp_wake_seconds_count") == 2
    assert value(numbers, "lamp_wake_seconds_sum") == 40.05
    assert value(numbers, "lamp_wake_seconds_bucket", le="0.025") == 0
    assert value(numbers, "lamp_wake_seconds_bucket", le="0.05") == 1
    assert value(numbers, "lamp_wake_seconds_bucket", le="30.0") is None
    assert value(numbers, "lamp_wake_seconds_bucket", le="30") == 1
    assert value(numbers, "lamp_wake_seconds_bucket", le="+Inf") == 2
    assert (numbers.of("ep-a").wakes, numbers.of("ep-a").last_wake_seconds) == (2, 40.0)


def test_suspends_active_time_and_states() -> None:
    numbers = Numbers()
    numbers.suspended("ep-a", "idle")
    numbers.suspended("ep-b", "idle")
    numbers.suspended("ep-b", "crash")
    numbers.active("ep-a", 1.5)
    numbers.active("ep-a", 2.0)
    found = read(numbers.render(endpoints={"active": 2, "idle": 0}))
    suspends = {reason: found["lamp_suspends_total", (("reason", reason),)] for reason in ("api", "crash", "idle")}
    assert suspends == {"api": 0, "crash": 1, "idle": 2}
    assert found["lamp_active_seconds_total", (("endpoint", "ep-a"),)] == 3.5
    assert found["lamp_endpoints", (("state", "active"),)] == 2
    assert found["lamp_endpoints", (("state", "idle"),)] == 0


def test_a_deleted_endpoint_leaves_no_series() -> None:
    """Not even when the gateway tells of it once more; what was counted for all stays."""
    numbers = Numbers()
    numbers.traffic(traffic(opened=1, accepted=1))
    numbers.woke("ep-a", 0.1, ok=True)
    numbers.active("ep-a", 1)
    numbers.forget("ep-a")
    numbers.traffic(traffic(inward=5))
    numbers.active("ep-a", 1)
    numbers.woke("ep-a", 0.1, ok=True)
    numbers.forget("ep-never")
    text = numbers.render(endpoints={})
    assert "ep-a" not in text
    assert value(numbers, "lamp_wakes_total", result="ok") == 2
    assert numbers.of("ep-a").accepted == 0


def test_what_is_remembered_of_the_deleted_is_bounded() -> None:
    numbers = Numbers()
    for number in range(10_000):
        numbers.traffic(traffic(f"ep-{number}"))
        numbers.forget(f"ep-{number}")
    numbers.traffic(traffic("ep-9999"))
    assert "ep-9999" not in numbers.render(endpoints={})
    assert len(numbers._gone) < 10_000


def test_reasons_are_bounded() -> None:
    """The rest is counted together."""
    numbers = Numbers()
    for number in range(1000):
        numbers.refused(f"message {number}")
    found = {key: count for key, count in read(numbers.render(endpoints={})).items() if key[0] == "lamp_refused_total"}
    assert len(found) <= MOST_REASONS + 1
    assert sum(found.values()) == 1000
    assert found["lamp_refused_total", (("reason", OTHER),)] == 1000 - MOST_REASONS


def test_without_a_gateway_there_are_no_connections() -> None:
    numbers = Numbers()
    numbers.traffic(traffic(opened=5, accepted=5))
    numbers.gateway_lost()
    assert value(numbers, "lamp_gateway_connections", endpoint="ep-a") == 0
    assert value(numbers, "lamp_gateway_accepted_total", endpoint="ep-a") == 5


def test_who_is_connected_is_the_counts_word_once_there_is_one() -> None:
    """Which the gateway's reports, that know less, and its end leave as it is."""
    numbers = Numbers()
    numbers.traffic(traffic(opened=5, accepted=5))
    numbers.connected({"ep-a": 7, "ep-b": 0, "ep-c": 2})
    numbers.traffic(traffic(opened=1, accepted=1))
    numbers.gateway_lost()
    assert value(numbers, "lamp_gateway_connections", endpoint="ep-a") == 7
    assert value(numbers, "lamp_gateway_accepted_total", endpoint="ep-a") == 6
    assert value(numbers, "lamp_gateway_connections", endpoint="ep-b") is None
    numbers.forget("ep-c")
    numbers.connected({"ep-a": 0, "ep-c": 2})
    assert value(numbers, "lamp_gateway_connections", endpoint="ep-a") == 0
    assert value(numbers, "lamp_gateway_connections", endpoint="ep-c") is None


def test_a_family_is_announced_once_and_in_one_piece() -> None:
    numbers = Numbers()
    for endpoint_id in ("ep-b", "ep-a"):
        numbers.traffic(traffic(endpoint_id, opened=1))
    lines = numbers.render(endpoints={"idle": 1}).splitlines()
    announced = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(announced) == len(set(announced))
    current = ""
    for line in lines:
        current = line.split()[2] if line.startswith("#") else current
        assert line.startswith(("#", current))


def test_names_are_fit_for_prometheus() -> None:
    """Counters end in `_total`, and nothing else does."""
    numbers = Numbers()
    for family in numbers.families(endpoints={}):
        assert family.name.startswith("lamp_")
        assert family.name.isidentifier()
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.help.endswith(".")


# Properties


@given(st.dictionaries(texts, counts, max_size=8), texts)
def test_any_label_and_help_reads_back(values: dict[str, int], told: str) -> None:
    samples = tuple(Sample(count, (("reason", reason), ("other", told))) for reason, count in values.items())
    found = read(rendered([Family("lamp_x", "gauge", told, samples)]))
    assert found == {("lamp_x", (("other", told), ("reason", reason))): count for reason, count in values.items()}


@given(st.floats())
def test_any_number_reads_back(number: float) -> None:
    (found,) = read(rendered([Family("lamp_x", "gauge", "A number.", (Sample(number),))])).values()
    assert found == number or (math.isnan(found) and math.isnan(number))
    assert number_text(number) not in ("nan", "inf", "-inf")


@given(st.lists(st.floats(0, 100), max_size=50))
def test_buckets_are_cumulative(waits: list[float]) -> None:
    numbers = Numbers()
    for seconds in waits:
        numbers.woke("ep-a", seconds, ok=True)
    found = read(numbers.render(endpoints={}))
    for bound in WAKE_BUCKETS:
        expected = sum(1 for seconds in waits if seconds <= bound)
        assert found["lamp_wake_seconds_bucket", (("le", number_text(bound)),)] == expected
    assert found["lamp_wake_seconds_bucket", (("le", "+Inf"),)] == len(waits)
    assert found["lamp_wake_seconds_count", ()] == len(waits)


told = st.builds(Traffic, ids, open=st.integers(0, 100), accepted=counts, bytes_in=counts, bytes_out=counts)


@given(st.lists(told | ids, max_size=30))
def test_totals_never_fall_while_an_endpoint_is_there(events: list[Traffic | str]) -> None:
    """An id in the list is a deletion: from then on there is nothing of it."""
    numbers, gone = Numbers(), set()
    for event in events:
        before = {id_: numbers.of(id_) for id_ in ("ep-a", "ep-b", "ep-c")}
        if isinstance(event, str):
            numbers.forget(event)
            gone.add(event)
        else:
            numbers.traffic(event)
            if event.endpoint_id not in gone:
                after = numbers.of(event.endpoint_id)
                assert after.accepted == before[event.endpoint_id].accepted + event.accepted
                assert after.connections == event.open
    text = numbers.render(endpoints={})
    assert not any(f'"{one}"' in text for one in gone)
