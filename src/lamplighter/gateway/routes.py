"""The table of routes, and who is meant by a port, a host or an id. Pure: it opens nothing.

Whoever looked a route up and then waited compares `version` to see whether it has been told anew meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lamplighter.gateway.ports import Route


@dataclass(frozen=True, slots=True)
class Place:
    """What a public address leads to: an endpoint's compute, or its pooler."""

    endpoint_id: str
    pooled: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a new table means for the outside: `opened` and `closed` ports, and endpoints that are `gone`."""

    opened: Mapping[int, Place]
    closed: frozenset[int]
    gone: tuple[str, ...] = ()


class RouteTable:
    """All routes. If two claim one port, who came first keeps it; `conflicts` has a sentence for each other."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._versions: dict[str, int] = {}
        self._ports: dict[int, Place] = {}
        self._clock = 0

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, endpoint_id: str) -> Route | None:
        return self._routes.get(endpoint_id)

    def all(self) -> Iterable[Route]:
        return self._routes.values()

    def version(self, endpoint_id: str) -> int:
        """Grows with each route that is told; 0 for an endpoint that is not there."""
        return self._versions.get(endpoint_id, 0)

    def at(self, port: int) -> Place | None:
        return self._ports.get(port)

    def set(self, route: Route) -> Change:
        """Add or replace one."""
        before = self._owned(route.endpoint_id)
        self._clock += 1
        self._routes[route.endpoint_id] = route
        self._versions[route.endpoint_id] = self._clock
        wanted = ports_of(route)
        for port in before.keys() - wanted.keys():
            del self._ports[port]
        for port, place in wanted.items():
            if self._holder(port) in (None, route.endpoint_id):
                self._ports[port] = place
        after = self._owned(route.endpoint_id)
        opened = {port: place for port, place in after.items() if before.get(port) != place}
        return Change(opened, frozenset(before.keys() - after.keys()))

    def drop(self, endpoint_id: str) -> Change:
        """Forget one; nothing happens if it is not there."""
        if endpoint_id not in self._routes:
            return Change({}, frozenset())
        closed = frozenset(self._owned(endpoint_id))
        for port in closed:
            del self._ports[port]
        del self._routes[endpoint_id], self._versions[endpoint_id]
        return Change({}, closed, (endpoint_id,))

    def replace(self, routes: Iterable[Route]) -> Change:
        """The whole table anew. A port that goes from one endpoint to another is in `opened`."""
        routes = list(routes)
        before = dict(self._ports)
        named = {route.endpoint_id for route in routes}
        gone = tuple(one for one in self._routes if one not in named)
        for endpoint_id in gone:
            self.drop(endpoint_id)
        wanted = {port: route.endpoint_id for route in reversed(routes) for port in ports_of(route)}
        for port, place in list(self._ports.items()):
            # So that ports may change hands between two endpoints that both stay.
            if wanted.get(port) != place.endpoint_id:
                del self._ports[port]
        for route in routes:
            self.set(route)
        opened = {port: place for port, place in self._ports.items() if before.get(port) != place}
        return Change(opened, frozenset(before.keys() - self._ports.keys()), gone)

    def conflicts(self) -> tuple[str, ...]:
        """Ports that an endpoint cannot have because another has them."""
        return tuple(one for route in self._routes.values() for one in self.conflicts_of(route))

    def conflicts_of(self, route: Route) -> tuple[str, ...]:
        """The same for one that has been set."""
        return tuple(
            f"port {port} of {route.endpoint_id} belongs to {holder}"
            for port in ports_of(route)
            if (holder := self._holder(port)) != route.endpoint_id
        )

    def _holder(self, port: int) -> str | None:
        place = self._ports.get(port)
        return place.endpoint_id if place else None

    def _owned(self, endpoint_id: str) -> dict[int, Place]:
        route = self._routes.get(endpoint_id)
        wanted = ports_of(route) if route else {}
        return {port: self._ports[port] for port in wanted if self._holder(port) == endpoint_id}


def ports_of(route: Route) -> dict[int, Place]:
    """The public ports of one endpoint."""
    ports = {route.port: Place(route.endpoint_id)}
    if route.pooler_port is not None and route.pooler_port != route.port:
        ports[route.pooler_port] = Place(route.endpoint_id, pooled=True)
    return ports
