"""What clients may do that nobody else is to notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import socket
import struct

import httpx2
import psutil
import psycopg
import pytest

from lamplighter.gateway.wire.messages import Frames, parse_error
from support.front import DATABASE, DOMAIN, PASSWORD, ROLE, free_port
from support.waiting import eventually

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
TLS_ALERT = b"\x15\x03"


def dial(port):
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.settimeout(20)
    return sock


def until_closed(sock):
    """All that is said until the other side closes."""
    said = b""
    with sock:
        while True:
            try:
                data = sock.recv(65536)
            except ConnectionResetError:
                return said
            if not data:
                return said
            said += data


@pytest.fixture
async def awake(platform, endpoint):
    await endpoint.select()
    return endpoint


@pytest.fixture
async def own_awake(own, own_endpoint):
    await own_endpoint.select()
    return own_endpoint


async def test_garbage_is_closed_and_wakes_nobody(platform, endpoint):
    """Whatever is no protocol of ours ends the connection, on each port: with nothing but a FATAL error or an alert."""
    random.seed(5)
    pieces = [
        b"\xff" * 100,
        b"hello\r\n",
        b"\0\0\0\x04",
        b"\0\0\xff\xff\0\x03\0\0",
        b"\x16\x03\x01\0\x00",
        b"SSH-2.0-x\r\n",
    ]
    pieces += [bytes([random.choice([0, 0x16, 0x47, 0x80])]) + random.randbytes(40) for _ in range(40)]
    for port in (endpoint.route.port, platform.domain_port):
        for piece in pieces:
            sock = dial(port)
            sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
            said = await asyncio.to_thread(until_closed, sock)
            if said and not (piece[:1] == b"\x16" and said.startswith(TLS_ALERT)):
                (message,) = Frames().feed(said)
                assert message.kind == b"E"
                assert parse_error(message.body)["severity"] == "FATAL"
    assert not platform.wakes
    assert await endpoint.select() == 42


async def test_a_startup_that_is_malformed_is_told_on_the_domain_port(platform, endpoint):
    """With the protocol's own error."""
    sock = dial(platform.domain_port)
    sock.sendall(struct.pack("!ii", 14, 3 << 16) + b"user\0x")
    assert b"08P01" in await asyncio.to_thread(until_closed, sock)


@pytest.fixture(scope="module")
async def impatient(make_platform):
    """A gateway that waits for nobody for long."""
    async with make_platform("--step", "0.5", domain_port=free_port()) as made:
        yield made


@pytest.mark.parametrize("first", [b"", b"\0\0", SSL_REQUEST, SSL_REQUEST + b"\x16\x03\x01\x02\x00\x01"])
async def test_who_stalls_in_the_handshake_is_let_go(impatient, first):
    """Each step has its deadline; nobody is woken, and others are served meanwhile."""
    endpoint = await impatient.add("ep-patient", tls=False)
    sock = dial(impatient.domain_port)
    sock.sendall(first)
    silent = dial(endpoint.route.port)
    assert await endpoint.select() == 42
    assert await asyncio.to_thread(until_closed, sock) in (b"", b"S")
    assert await asyncio.to_thread(until_closed, silent) == b""
    await impatient.clear()


async def test_a_flood_of_silent_connections_shuts_nobody_out(own, own_awake):
    """The oldest silent ones give way, and memory stays bounded."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gateway = psutil.Process(own.gateway.process.pid)
    before = gateway.memory_info().rss
    flood = []
    try:
        for number in range(2500):
            # From many ports: one endpoint alone has a lower limit.
            flood.append(dial(own.domain_port))
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert await own_awake.select() == 42
        assert gateway.memory_info().rss - before < 100 * 1024 * 1024
        assert own.gateway.fds() < 2600
    finally:
        for sock in flood:
            sock.close()
    await eventually(lambda: own.gateway.fds() < 100)
    assert await own_awake.select() == 42


async def test_without_descriptors_accepting_pauses(own, own_awake):
    """Clients stay in the backlog, and are served when there are some again."""
    used = own.gateway.fds()
    resource.prlimit(own.gateway.process.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
    crowd = [dial(own_awake.route.port) for _ in range(60)]
    await eventually(lambda: "accepting_paused" in own.gateway.log.read_text())
    for sock in crowd:
        sock.close()
    assert await own_awake.select() == 42


async def test_too_many_at_one_endpoint_leave_others_alone(own, own_awake):
    """A herd before one door that does not open is told to come back; the next door opens."""
    own.answer_wakes = False
    other = await own.add("ep-stuck")
    startup = struct.pack("!ii", 16, 3 << 16) + b"user\0x\0\0"
    herd = []
    try:
        for _ in range(1100):
            sock = dial(other.route.port)
            sock.sendall(startup)
            herd.append(sock)
        await eventually(lambda: own.refused["busy"] >= 50)
        assert await own_awake.select() == 42
    finally:
        for sock in herd:
            sock.close()


async def test_connections_of_an_endpoint_are_limited(platform, awake):
    """Beyond the route's limit a client is told so."""
    async with await awake.connect(), await awake.connect():
        # Only now: what was connected before may not have been counted as closed yet.
        await platform.set(awake.id, max_connections=2)
        with pytest.raises(psycopg.OperationalError, match="Too many connections to this endpoint"):
            await awake.connect()

    async def admitted() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            return await awake.select() == 42
        return False

    # Not what was last reported of it: that may be from before they came.
    await eventually(admitted)


@pytest.mark.parametrize("way", ["relay", "ended"])
async def test_bulk_copy_both_ways(platform, way):
    """Megabytes in and out, through the relay and through TLS that ends in the gateway."""
    endpoint = await platform.add("ep-bulk", tls=way == "relay")
    rows = 50_000
    async with await endpoint.connect(sslmode="require") as connection:
        await connection.execute("CREATE TEMP TABLE bulk (id int, words text)")
        async with connection.cursor().copy("COPY bulk FROM STDIN") as copy:
            for first in range(0, rows, 1000):
                await copy.write("".join(f"{one}\t{'x' * 100}\n" for one in range(first, first + 1000)))
        out = 0
        async with connection.cursor().copy("COPY bulk TO STDOUT") as copy:
            async for piece in copy:
                out += len(piece)
    assert out > rows * 100
    await eventually(lambda: platform.open_of(endpoint.id) == 0)
    assert platform.traffic[endpoint.id].bytes_in > rows * 100
    assert platform.traffic[endpoint.id].bytes_out > rows * 100


async def test_a_client_that_vanishes_leaves_no_session(own):
    """Its backend ends, though TLS ended in the gateway, and nothing is left open."""
    endpoint = await own.add("ep-vanish", tls=False)
    connection = await endpoint.connect(sslmode="require")
    fds = own.gateway.fds()
    sock = socket.socket(fileno=os.dup(connection.fileno()))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()
    await connection.close()
    await eventually(lambda: own.open_of(endpoint.id) == 0)
    await eventually(lambda: own.gateway.fds() <= fds - 2)


async def test_half_a_close_lets_the_answer_through(platform):
    """A client may end its side before it has read all."""
    plain = await platform.add("ep-half", tls=False)
    await plain.select()
    sock = dial(plain.route.port)
    body = b"".join(word.encode() + b"\0" for word in ("user", ROLE, "database", DATABASE)) + b"\0"
    sock.sendall(struct.pack("!ii", 8 + len(body), 3 << 16) + body)
    sock.shutdown(socket.SHUT_WR)
    assert (await asyncio.to_thread(until_closed, sock))[:1] == b"R"


async def test_only_the_link_is_believed(platform, endpoint):
    """What is no message of ours on the link ends it, and the gateway goes on."""
    for said in (b"hello\n", b'{"kind":"drain"}\n', b"\0" * 100 + b"\n"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(platform.gateway.socket))
            sock.sendall(said)
            assert await asyncio.to_thread(sock.recv, 10) == b""
    assert await endpoint.select() == 42


async def test_a_second_gateway_on_the_same_socket_ends(platform):
    """It leaves the first one's socket alone."""
    from support.front import GatewayProcess

    second = GatewayProcess(platform.gateway.socket.parent)
    await eventually(lambda: second.process.poll() is not None)
    assert second.process.returncode == 1
    assert platform.gateway.socket.with_name("gw.sock.d").is_dir()
    assert await (await platform.add("ep-after", tls=False)).select() == 42


async def test_a_port_that_is_taken_is_told_and_had_later(platform):
    """The platform hears of it; as soon as it is free the gateway listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        one = await platform.add("ep-taken")
        done = await platform.set(one.id, port=port)
        assert str(port) in done.problems[0]
    await eventually(lambda: "gateway.port_opened" in platform.gateway.log.read_text())
    assert await one.select() == 42


# HTTP on the same ports


def sql(endpoint, scheme="http", port=None, host=None, **headers):
    host = host or f"127.0.0.1:{endpoint.route.port}"
    return {
        "url": f"{scheme}://127.0.0.1:{port or endpoint.route.port}/sql",
        "headers": {"Neon-Connection-String": f"postgresql://{ROLE}:{_quoted()}@{host}/{DATABASE}"} | headers,
        "content": json.dumps({"query": "SELECT 42 AS n", "params": []}),
    }


def _quoted():
    from urllib.parse import quote

    return quote(PASSWORD)


async def test_sql_over_http_wakes_on_the_endpoints_own_port(platform, tls):
    """In plain text and within TLS."""
    endpoint = await platform.add("ep-http", tls=False)
    async with httpx2.AsyncClient(verify=False, timeout=60) as client:
        for scheme in ("http", "https"):
            answer = await client.post(**sql(endpoint, scheme))
            assert answer.status_code == 200, answer.text
            assert answer.json()["rows"] == [{"n": 42}]
    assert platform.wakes == {endpoint.id: 1}


async def test_sql_over_http_on_the_domain_port(platform):
    """The host in the connection string tells the endpoint."""
    endpoint = await platform.add("ep-http", tls=False)
    async with httpx2.AsyncClient(verify=False, timeout=60) as client:
        for host in (f"{endpoint.id}.{DOMAIN}", f"{endpoint.id}-pooler.{DOMAIN}"):
            answer = await client.post(**sql(endpoint, "https", platform.domain_port, host))
            assert answer.json()["rows"] == [{"n": 42}], answer.text
        answer = await client.post(**sql(endpoint, "https", platform.domain_port, "db.elsewhere.test"))
        assert answer.status_code == 400


async def test_sql_over_http_keeps_to_allowed_addresses(platform):
    """The caller's address counts, and not the gateway's own."""
    endpoint = await platform.add("ep-http", tls=False, allowed=("203.0.113.0/24",))
    async with httpx2.AsyncClient(timeout=60) as client:
        answer = await client.post(**sql(endpoint))
        assert "is not allowed to connect" in answer.text
        assert not platform.wakes
        await platform.set(endpoint.id, allowed=("127.0.0.1",))
        answer = await client.post(**sql(endpoint))
        assert answer.json()["rows"] == [{"n": 42}], answer.text
