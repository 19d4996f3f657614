"""Clients of other hosts: their sockets are of this one, and the gateway is told another address of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from lamplighter.gateway.admission import WAKES_AT_ONCE
from lamplighter.gateway.errors import HandshakeFailed
from lamplighter.gateway.gate import Gate
from lamplighter.gateway.ports import Backend, Route, SetRoute, SetRoutes, WakeFailed
from lamplighter.gateway.relays import Relays
from lamplighter.gateway.serverless import SqlFailed
from lamplighter.gateway.visitors import Visitor
from lamplighter.gateway.web import Doors
from lamplighter.gateway.wire.messages import Frames, parse_error
from lamplighter.gateway.wire.startup import SSL_REQUEST, Startup, render_startup
from support.waiting import eventually
from support.wire import PROTOCOL_3_0

STARTUP = render_startup(Startup(PROTOCOL_3_0, (("user", "x"),)))
STRANGER, OTHER, HERE = "192.0.2.9", "192.0.2.10", "127.0.0.1"
ROUTE = Route("ep-asleep", "a-project", "asleep", 1)


def tcp_pair():
    """A client's end of a connection by the loopback address, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=20)
        server, _ = listening.accept()
    server.setblocking(False)
    return client, server


@pytest.fixture
async def gate(place) -> AsyncIterator[Gate]:
    """A gateway in this process, which no platform tells anything. Its endpoint has a port that nobody listens on."""
    gate = Gate(place / "g.sock")
    await gate.open()
    gate._on_message(SetRoutes(1, (ROUTE,)))
    yield gate
    await gate.close()


async def arrive(gate, address):
    """A client that waits for the endpoint, or has been told why not."""
    client, server = tcp_pair()
    client.sendall(STARTUP)
    waiting = gate._waker.waiting
    gate.front.accept(server, address, ROUTE.port)
    await eventually(lambda: gate._waker.waiting > waiting or not gate.front.on_their_way)
    return client


def error_of(client):
    """What it was told before the end."""
    with client:
        said = b""
        with suppress(ConnectionResetError):
            while piece := client.recv(4096):
                said += piece
    (message,) = Frames().feed(said)
    return parse_error(message.body)


async def told(gate, address, **failure):
    """What a client at this address is told of a wake that fails."""
    client = await arrive(gate, address)
    gate._on_message(WakeFailed(ROUTE.endpoint_id, "57P03", "the compute could not be started", **failure))
    return await asyncio.to_thread(error_of, client)


async def test_why_a_wake_failed_is_told_to_this_host_alone(gate):
    """Others learn no path and no error of it."""
    inside = {"detail": "no such file: /srv/x", "hint": "The compute's log is /srv/y."}
    here, there = await told(gate, HERE, **inside), await told(gate, STRANGER, **inside)
    assert (here["detail"], here["hint"]) == (inside["detail"], inside["hint"])
    assert here["message"] == "the compute could not be started"
    assert "/srv" not in str(there)
    assert there["message"].startswith("the compute could not be started; ")
    assert {"detail", "hint"} & there.keys() == set()


async def test_a_stranger_wakes_so_many_times(gate):
    """Then it is refused with 53300, which is counted, and nobody else is."""
    for _ in range(WAKES_AT_ONCE):
        assert (await told(gate, STRANGER))["code"] == "57P03"
    refused = await asyncio.to_thread(error_of, await arrive(gate, STRANGER))
    assert refused["code"] == "53300"
    assert "too many have been woken from your address" in refused["message"]
    assert gate._ledger.report().refused == {"wake_failed": WAKES_AT_ONCE, "too_many_wakes": 1}
    for address in (OTHER, HERE, None):
        assert (await told(gate, address))["code"] == "57P03"


async def test_strangers_by_http_have_the_same_account(gate, tmp_path):
    """The door does not see who asks, so the account is looked at before; an endpoint that is awake is free."""
    doors = Doors(gate._table, address="127.0.0.1", unix=tmp_path, admit=gate._waker.admit)
    scope = {"client": (STRANGER, 0), "server": ("192.0.2.1", 0)}
    for number in range(WAKES_AT_ONCE):
        route = Route(f"ep-{number}", "a-project", "asleep", 10 + number)
        gate._table.set(route)
        for _ in range(3):
            (await doors.resolve(route.endpoint_id, None)).check(scope)
    target = await doors.resolve(ROUTE.endpoint_id, None)
    with pytest.raises(SqlFailed, match="too many have been woken") as refused:
        target.check(scope)
    assert refused.value.fields["code"] == "53300"
    target.check({"client": (HERE, 0), "server": (HERE, 0)})
    target.check({"client": ("192.0.2.1", 0), "server": ("192.0.2.1", 0)})
    gate._table.set(Route("ep-awake", "a-project", "awake", 2))
    (await doors.resolve("ep-awake", None)).check(scope)


class Unable(Relays):
    """It takes no connection."""

    def __init__(self, why):
        super().__init__(lambda _: None)
        self.why = why

    async def hand_over(self, *_, **__):
        raise self.why


@pytest.mark.parametrize("why", [HandshakeFailed("no relay could be started"), RuntimeError("nobody knows")], ids=repr)
@pytest.mark.parametrize("first", [b"", SSL_REQUEST], ids=["plain", "tls"])
async def test_who_cannot_be_passed_on_is_told(gate, first, why):
    """What fails within the gateway is an error of Postgres for the client, and is counted."""

    async def answers(reader, writer):
        await reader.read(100)
        writer.write(b"S")
        await reader.read()
        writer.close()

    gate.front._relays = Unable(why)
    async with await asyncio.start_server(answers, "127.0.0.1", 0) as server:
        compute = Backend("127.0.0.1", server.sockets[0].getsockname()[1], tls=True)
        gate._on_message(SetRoute(2, Route(ROUTE.endpoint_id, "a-project", "awake", ROUTE.port, compute=compute)))
        client, here = tcp_pair()
        client.sendall(first)
        gate.front.accept(here, HERE, ROUTE.port)
        if first:
            # There is no certificate.
            assert await asyncio.to_thread(client.recv, 1) == b"N"
        client.sendall(STARTUP)
        told = await asyncio.to_thread(error_of, client)
    assert (told["code"], told["message"]) == ("57P03", "the gateway could not pass the connection on")
    assert gate._ledger.report().refused == {"not_passed_on": 1}
    assert not gate._ledger.connections


async def test_who_is_here():
    """By both addresses of the connection; nobody by a Unix socket, for those speak for others."""
    client, server = tcp_pair()
    with client, server:
        assert Visitor(server, HERE, 1, 1.0).payer is None
        stranger = Visitor(server, STRANGER, 1, 1.0)
        assert (stranger.here, stranger.payer, stranger.local) == (False, STRANGER, HERE)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        door = Visitor(theirs, None, 1, 1.0)
        assert (door.here, door.payer, door.local) == (False, None, None)
