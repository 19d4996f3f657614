"""What the platform counts, and `/metrics`, which shows it to Prometheus (text format 0.0.4). Pure.

Counts begin anew with each process: Prometheus knows that of counters. Series of an endpoint go when it does, so that
there are never more of them than endpoints; what is told of one after its end is left out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from lamplighter.gateway.ports import Report, Traffic

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Upper bounds in seconds. A warm start takes some 40 ms; who has waited 30 s has mostly gone.
WAKE_BUCKETS: Final = (0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Reasons are words of ours; a message that found its way there must not become a series each time.
MOST_REASONS: Final = 64
OTHER: Final = "other"
#: Reports of the gateway come once a second: longer than this nobody talks of an endpoint that is gone.
_REMEMBERED: Final = 4096

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: `suffix` goes behind the family's name."""

    value: float
    labels: Labels = ()
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name. Those of a histogram are made by `Histogram.samples`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class EndpointNumbers:
    """Of one endpoint: `connections` is now, the others are totals of this process. `last_wake_seconds` None: none yet.

    `bytes_in` came from clients, `bytes_out` went to them.
    """

    connections: int = 0
    accepted: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    wakes: int = 0
    last_wake_seconds: float | None = None
    active_seconds: float = 0.0


@dataclass(slots=True)
class Histogram:
    """Counts by bucket; the last one is for what is above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self) -> tuple[Sample, ...]:
        """Each bucket counts all that is not above its bound."""
        found, below = [], 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            below += count
            found.append(Sample(below, (("le", number_text(bound)),), "_bucket"))
        return (*found, Sample(self.total, suffix="_sum"), Sample(below, suffix="_count"))


class Numbers:
    """Fed by whoever sees something happen, read by `/metrics` and by `lamp endpoints top`. For one thread."""

    def __init__(self) -> None:
        self._endpoints: dict[str, EndpointNumbers] = {}
        self._gone: dict[str, None] = {}
        self._counts_open = False
        self._wakes: Counter[str] = Counter({"ok": 0, "failed": 0})
        self._wake_seconds = Histogram(WAKE_BUCKETS)
        self._suspends: Counter[str] = Counter({"api": 0, "crash": 0, "idle": 0})
        self._refused: Counter[str] = Counter()

    # Feeding

    def report(self, report: Report) -> None:
        """All that the gateway has told at once."""
        for one in report.traffic:
            self.traffic(one)
        for reason, count in report.refused.items():
            self.refused(reason, count)

    def traffic(self, traffic: Traffic) -> None:
        """What has passed since the last time, and how many connections there are now."""
        known = self.of(traffic.endpoint_id)
        self._put(
            traffic.endpoint_id,
            replace(
                known,
                connections=known.connections if self._counts_open else traffic.open,
                accepted=known.accepted + traffic.accepted,
                bytes_in=known.bytes_in + traffic.bytes_in,
                bytes_out=known.bytes_out + traffic.bytes_out,
            ),
        )

    def connected(self, counts: Mapping[str, int]) -> None:
        """How many connections each endpoint has now, by any way. From then on what the gateway tells of it is let be.

        For a platform whose gateway does not see all of them. `counts` has every endpoint.
        """
        self._counts_open = True
        for endpoint_id, count in counts.items():
            known = self.of(endpoint_id)
            if known.connections != count:
                self._put(endpoint_id, replace(known, connections=count))

    def gateway_lost(self) -> None:
        """The gateway has ended, and its connections with it; a new one tells of its own only."""
        if not self._counts_open:
            for endpoint_id, known in self._endpoints.items():
                self._endpoints[endpoint_id] = replace(known, connections=0)

    def woke(self, endpoint_id: str, seconds: float, *, ok: bool) -> None:
        """A wake has ended. `seconds` are those that a client waited for it; of wakes that failed they are not kept."""
        self._wakes["ok" if ok else "failed"] += 1
        if ok:
            self._wake_seconds.observe(seconds)
            known = self.of(endpoint_id)
            self._put(endpoint_id, replace(known, wakes=known.wakes + 1, last_wake_seconds=seconds))

    def suspended(self, endpoint_id: str, reason: str) -> None:  # noqa: ARG002 - told as it happens; by reason is enough
        """An endpoint was put to sleep: `idle`, `api` when somebody asked for it, `crash` when its postmaster ended."""
        _count(self._suspends, reason, 1)

    def refused(self, reason: str, count: int = 1) -> None:
        """Connections that were not let in, or requests for a start."""
        _count(self._refused, reason, count)

    def active(self, endpoint_id: str, seconds: float) -> None:
        """It ran for so long since the last time."""
        known = self.of(endpoint_id)
        self._put(endpoint_id, replace(known, active_seconds=known.active_seconds + seconds))

    def forget(self, endpoint_id: str) -> None:
        """The endpoint is deleted. What has been counted without its name stays."""
        self._endpoints.pop(endpoint_id, None)
        self._gone[endpoint_id] = None
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _put(self, endpoint_id: str, numbers: EndpointNumbers) -> None:
        if endpoint_id not in self._gone:
            self._endpoints[endpoint_id] = numbers

    # Reading

    def of(self, endpoint_id: str) -> EndpointNumbers:
        """All zero for one of which nothing has been told."""
        return self._endpoints.get(endpoint_id, EndpointNumbers())

    def families(self, *, endpoints: Mapping[str, int]) -> tuple[Family, ...]:
        """Everything there is. `endpoints` counts those that exist, by state."""
        by_endpoint = sorted(self._endpoints.items())

        def each(field_name: str) -> tuple[Sample, ...]:
            return tuple(Sample(getattr(one, field_name), (("endpoint", id_),)) for id_, one in by_endpoint)

        traffic = tuple(
            Sample(count, (("endpoint", id_), ("direction", direction)))
            for id_, one in by_endpoint
            for direction, count in (("in", one.bytes_in), ("out", one.bytes_out))
        )
        return (
            Family("lamp_endpoints", "gauge", "Endpoints by state.", _by("state", endpoints)),
            Family("lamp_gateway_connections", "gauge", "Connections of clients now.", each("connections")),
            Family("lamp_gateway_accepted_total", "counter", "Connections let in.", each("accepted")),
            Family("lamp_gateway_bytes_total", "counter", "Bytes from clients (in) and to them (out).", traffic),
            Family("lamp_refused_total", "counter", "Connections refused, by reason.", _by("reason", self._refused)),
            Family("lamp_wakes_total", "counter", "Starts for a client that waits.", _by("result", self._wakes)),
            Family("lamp_wake_seconds", "histogram", "Time until a start was done.", self._wake_seconds.samples()),
            Family("lamp_suspends_total", "counter", "Endpoints put to sleep.", _by("reason", self._suspends)),
            Family("lamp_active_seconds_total", "counter", "Time that endpoints ran.", each("active_seconds")),
        )

    def render(self, *, endpoints: Mapping[str, int]) -> str:
        """The text of `/metrics`. `endpoints` counts those that exist, by state."""
        return rendered(self.families(endpoints=endpoints))


def _count(counter: Counter[str], reason: str, count: int) -> None:
    known = reason in counter or len(counter) < MOST_REASONS
    counter[reason if known else OTHER] += count


def _by(label: str, counts: Mapping[str, int]) -> tuple[Sample, ...]:
    return tuple(Sample(count, ((label, value),)) for value, count in sorted(counts.items()))


# The text


def rendered(families: Iterable[Family]) -> str:
    """The text of families. One without samples is left out: it says nothing."""
    return "".join(_family_text(family) for family in families if family.samples)


def _family_text(family: Family) -> str:
    told = family.help.replace("\\", r"\\").replace("\n", r"\n")
    lines = [f"# HELP {family.name} {told}", f"# TYPE {family.name} {family.kind}"]
    lines += [f"{family.name}{one.suffix}{_labels_text(one.labels)} {number_text(one.value)}" for one in family.samples]
    return "".join(f"{line}\n" for line in lines)


def _labels_text(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number_text(value: float) -> str:
    """A number as Go reads it, with all of its digits."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
