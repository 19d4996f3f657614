"""The table of routes against a model that is a dictionary."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.ports import Route
from lamplighter.gateway.routes import Place, RouteTable, ports_of

IDS = ["ep-a", "ep-b", "ep-c"]
PORTS = range(1, 7)
routes = st.builds(
    Route,
    endpoint_id=st.sampled_from(IDS),
    project_id=st.just("p"),
    state=st.sampled_from(["awake", "asleep"]),
    port=st.sampled_from(PORTS),
    pooler_port=st.none() | st.sampled_from(PORTS),
)
steps = st.lists(
    st.one_of(
        routes,
        st.sampled_from(IDS),
        st.lists(routes, max_size=3, unique_by=lambda route: route.endpoint_id).map(tuple),
    ),
    max_size=12,
)


@given(steps)
def test_changes_add_up_to_the_table(steps):
    """Whoever opens and closes what each change says has exactly the table's ports, and who is gone is gone."""
    table = RouteTable()
    ports, known = {}, {}
    for step in steps:
        if isinstance(step, str):
            change = table.drop(step)
            assert set(change.gone) == {step} & known.keys()
            known.pop(step, None)
        elif isinstance(step, tuple):
            change = table.replace(step)
            assert set(change.gone) == known.keys() - {route.endpoint_id for route in step}
            known = {route.endpoint_id: route for route in step}
        else:
            change = table.set(step)
            assert not change.gone
            known[step.endpoint_id] = step
            assert [one for one in table.conflicts() if f" {step.endpoint_id} b" in one] == [*table.conflicts_of(step)]
        assert not change.opened.keys() & change.closed
        for port in change.closed:
            del ports[port]
        ports.update(change.opened)
        assert ports == _ports(table)
        _holds(table, known)


def _ports(table):
    return {port: place for port in PORTS if (place := table.at(port)) is not None}


def _holds(table, known):
    assert {route.endpoint_id: route for route in table.all()} == known
    for port, place in _ports(table).items():
        assert ports_of(known[place.endpoint_id])[port] == place
    wanted = [(port, route.endpoint_id) for route in known.values() for port in ports_of(route)]
    lost = sum(1 for port, endpoint_id in wanted if (at := table.at(port)) is None or at.endpoint_id != endpoint_id)
    assert len(table.conflicts()) == lost


def test_ports_may_change_hands_at_once():
    """Two endpoints that swap their ports in one table both get what they ask for."""
    one, two = Route("ep-a", "p", "asleep", 1), Route("ep-b", "p", "asleep", 2)
    table = RouteTable()
    table.replace([one, two])
    change = table.replace([replace(one, port=2), replace(two, port=1)])
    assert dict(change.opened) == {1: Place("ep-b"), 2: Place("ep-a")}
    assert not change.closed
    assert table.conflicts() == ()


def test_versions_grow_with_each_word():
    """Also when the same is told again: who waits for news gets some."""
    table = RouteTable()
    route = Route("ep-a", "p", "asleep", 1)
    table.set(route)
    first = table.version("ep-a")
    table.set(route)
    assert table.version("ep-a") > first
    table.drop("ep-a")
    assert table.version("ep-a") == 0
