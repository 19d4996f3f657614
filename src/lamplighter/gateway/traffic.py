"""Who is connected, and what was moved: counted here, told to the platform as differences. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lamplighter.gateway.ports import Report, Traffic


@dataclass(slots=True)
class _Session:
    endpoint_id: str
    address: str | None
    in_: int = 0
    out: int = 0


@dataclass(slots=True)
class _Endpoint:
    """`numbers` of open connections; the rest since the last report."""

    numbers: set[int] = field(default_factory=set)
    accepted: int = 0
    in_: int = 0
    out: int = 0
    told: bool = False


class Ledger:
    """Connections are known by a number. Byte counts of one are given as totals and must not fall."""

    def __init__(self) -> None:
        self._sessions: dict[int, _Session] = {}
        self._endpoints: dict[str, _Endpoint] = {}
        #: Open connections of each endpoint, by the address that they come from.
        self._from: dict[str | None, Counter[str]] = {}
        self._refused: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        return len(self._sessions)

    def open(self, endpoint_id: str) -> int:
        endpoint = self._endpoints.get(endpoint_id)
        return len(endpoint.numbers) if endpoint else 0

    def numbers(self, endpoint_id: str) -> tuple[int, ...]:
        endpoint = self._endpoints.get(endpoint_id)
        return tuple(endpoint.numbers) if endpoint else ()

    def used_from(self, address: str | None) -> tuple[str, ...]:
        """Endpoints that have connections from this address."""
        return tuple(self._from.get(address, ()))

    def opened(self, number: int, endpoint_id: str, *, address: str | None = None) -> None:
        self._sessions[number] = _Session(endpoint_id, address)
        self._from.setdefault(address, Counter())[endpoint_id] += 1
        endpoint = self._endpoints.setdefault(endpoint_id, _Endpoint())
        endpoint.numbers.add(number)
        endpoint.accepted += 1
        endpoint.told = False

    def moved(self, number: int, *, in_: int, out: int) -> None:
        """Totals of a connection so far; nothing happens for one that is over."""
        session = self._sessions.get(number)
        if session is None:
            return
        endpoint = self._endpoints[session.endpoint_id]
        more_in, more_out = max(0, in_ - session.in_), max(0, out - session.out)
        if more_in or more_out:
            session.in_ += more_in
            session.out += more_out
            endpoint.in_ += more_in
            endpoint.out += more_out
            endpoint.told = False

    def closed(self, number: int, *, in_: int = 0, out: int = 0) -> bool:
        """A connection is over. Returns whether it was its endpoint's last."""
        self.moved(number, in_=in_, out=out)
        session = self._sessions.pop(number, None)
        if session is None:
            return False
        self._left(session)
        endpoint = self._endpoints[session.endpoint_id]
        endpoint.numbers.discard(number)
        endpoint.told = False
        return not endpoint.numbers

    def _left(self, session: _Session) -> None:
        there = self._from[session.address]
        there[session.endpoint_id] -= 1
        if not there[session.endpoint_id]:
            del there[session.endpoint_id]
        if not there:
            del self._from[session.address]

    def refused(self, reason: str) -> None:
        self._refused[reason] += 1

    def anew(self) -> None:
        """For a platform that knows nothing: the next report names every endpoint that has connections."""
        for endpoint in self._endpoints.values():
            endpoint.told = False

    def report(self) -> Report:
        """What is new since the last one."""
        traffic = []
        for endpoint_id, one in list(self._endpoints.items()):
            if one.told:
                continue
            traffic.append(Traffic(endpoint_id, len(one.numbers), one.accepted, one.in_, one.out))
            one.accepted = one.in_ = one.out = 0
            one.told = True
            if not one.numbers:
                del self._endpoints[endpoint_id]
        refused = dict(self._refused)
        self._refused.clear()
        return Report(tuple(traffic), refused)
