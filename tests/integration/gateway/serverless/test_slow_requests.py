"""Requests that do not come to their end, and what they may hold meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx2
import pytest

from lamplighter.gateway.routes import RouteTable
from lamplighter.gateway.serverless import Limits
from lamplighter.gateway.visitors import Visitor
from lamplighter.gateway.web import Doors, Web
from support.serverless import Door, Postgres, served
from support.waiting import wait_for


def head(door: Door, length: int) -> bytes:
    lines = ["POST /sql HTTP/1.1", "host: x", f"neon-connection-string: {door.uri()}", f"content-length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def heard(sock: socket.socket) -> bytes:
    """All until the end of the connection."""
    said = b""
    while piece := sock.recv(1 << 16):
        said += piece
    return said


def test_a_body_that_does_not_come_to_its_end(server: Postgres):
    """It is answered, gives back what it held, and the connection ends."""
    with served(server, limits=Limits(request_seconds=0.3, caller=10_000, together=10_000)) as door:
        with socket.create_connection(("127.0.0.1", door.port), timeout=20) as slow:
            slow.sendall(head(door, 10_000) + b" " * 9_000)
            said = heard(slow)
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b"longer than 0.3 seconds to arrive" in said
        with socket.create_connection(("127.0.0.1", door.port), timeout=20) as again:
            body = b'{"query": "select 42 as n"' + b" " * 9_000 + b"}"
            again.sendall(head(door, len(body)).replace(b"host: x", b"host: x\r\nconnection: close") + body)
            assert b"42" in heard(again)


def test_one_address_does_not_hold_all(server: Postgres):
    """What one caller may hold is less than what there is."""
    with (
        served(server, limits=Limits(caller=10_000, together=40_000)) as door,
        socket.create_connection(("127.0.0.1", door.port), timeout=20) as first,
        socket.create_connection(("127.0.0.1", door.port), timeout=20) as second,
    ):
        first.sendall(head(door, 10_000) + b" " * 9_000)
        wait_for(lambda: door.serverless.held >= 9_000, what="the first body")
        second.sendall(head(door, 10_000) + b" " * 9_000)
        assert second.recv(100).startswith(b"HTTP/1.1 503 ")


def test_an_answer_that_nobody_reads(door: Door, http: httpx2.Client):
    """It is counted until it has been taken."""
    size = 16 << 20
    body = json.dumps({"query": f"select repeat('x', {size}) as long"}).encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect(("127.0.0.1", door.port))
        slow.sendall(head(door, len(body)).replace(b"host: x", b"host: x\r\nconnection: close") + body)
        assert slow.recv(1, socket.MSG_PEEK) == b"H"
        # Meanwhile the answer has been written, as far as that goes.
        headers = {"neon-connection-string": door.uri()}
        assert http.post(door.url, json={"query": "select 1"}, headers=headers).is_success
        assert door.serverless.held > size
        said = heard(slow)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.count(b"x") >= size
    wait_for(lambda: door.serverless.held == 0, what="all to be given back")


@pytest.mark.parametrize("said", [b"G", b"GET / HTTP/1.1\r\nhost: x\r\n"])
async def test_a_second_head_that_does_not_come_to_its_end(said: bytes, tmp_path):
    """Whoever was answered once does not keep a connection for part of a request."""
    web = Web(Doors(RouteTable(), address="127.0.0.1", unix=tmp_path), limits=Limits(request_seconds=0.3))
    ours, theirs = socket.socketpair()
    with ours:
        theirs.setblocking(False)
        await web(Visitor(theirs, "192.0.2.1", 1, 1.0))
        ours.settimeout(20)
        ours.sendall(b"OPTIONS /sql HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await asyncio.to_thread(ours.recv, 4096)).startswith(b"HTTP/1.1 200 ")
        ours.sendall(said)
        assert await asyncio.to_thread(_end, ours)
    await web.close()


def _end(sock: socket.socket) -> bool:
    try:
        return sock.recv(4096) == b""
    except ConnectionResetError:
        return True
