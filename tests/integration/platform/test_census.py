"""Counting connections that are really there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lamplighter.platform.census import by_netlink, by_proc, connected
from support.waiting import wait_for

Server = Callable[..., socket.socket]


@pytest.fixture
def open_socket() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serve(stack: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return stack.enter_context(socket.create_server((host, 0), family=family))


def connect(stack: ExitStack, server: socket.socket) -> socket.socket:
    return stack.enter_context(socket.create_connection(server.getsockname()[:2]))


@pytest.mark.parametrize("count", [by_netlink, by_proc], ids=["netlink", "proc"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_ways_count_the_servers_end_alone(open_socket: ExitStack, host: str, count: Callable[..., object]) -> None:
    """Connections that nobody has accepted yet count too; the listening socket and the clients' ends do not."""
    server, idle = serve(open_socket, host), serve(open_socket, host)
    for _ in range(3):
        connect(open_socket, server)
    open_socket.enter_context(server.accept()[0])
    found = count()
    assert found[server.getsockname()[1]] == 3
    assert idle.getsockname()[1] not in found


def test_every_port_is_answered_for(open_socket: ExitStack) -> None:
    busy, idle = serve(open_socket), serve(open_socket)
    connect(open_socket, busy)
    ports = [one.getsockname()[1] for one in (busy, idle)]
    assert connected(ports) == {ports[0]: 1, ports[1]: 0}
    assert connected([]) == {}


def test_a_client_of_ipv4_counts_on_a_server_of_both(open_socket: ExitStack) -> None:
    """Such a connection is in the kernel's table of IPv6."""
    server = open_socket.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    port = server.getsockname()[1]
    open_socket.enter_context(socket.create_connection(("127.0.0.1", port)))
    open_socket.enter_context(socket.create_connection(("::1", port)))
    assert connected({port}) == {port: 2}


def test_one_that_the_client_has_half_closed_counts_and_a_closed_one_does_not(open_socket: ExitStack) -> None:
    """Postgres may still be at work on the last statement of the first."""
    server = serve(open_socket)
    port = server.getsockname()[1]
    client = connect(open_socket, server)
    accepted = open_socket.enter_context(server.accept()[0])
    client.shutdown(socket.SHUT_WR)
    assert accepted.recv(1) == b""
    assert connected({port}) == {port: 1}
    accepted.close()
    wait_for(lambda: connected({port}) == {port: 0}, what="the end of the connection")


def test_many_connections_come_in_many_datagrams(open_socket: ExitStack) -> None:
    """Both ways agree on 400 connections over ten ports."""
    servers = [serve(open_socket) for _ in range(10)]
    ports = [one.getsockname()[1] for one in servers]
    for number in range(400):
        server = servers[number % 10]
        connect(open_socket, server)
        open_socket.enter_context(server.accept()[0])
    assert connected(ports) == dict.fromkeys(ports, 40)
    found = by_proc()
    assert {port: found[port] for port in ports} == dict.fromkeys(ports, 40)
