"""Clients and computes that mean no good: places, deadlines, proofs, and peers that vanish."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import socket
import ssl
import struct
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import psycopg
import pytest

from lamplighter.compute.tls import ensure_tls
from lamplighter.gateway.cancels import MOST, Cancels
from lamplighter.gateway.certificates import Certificates
from lamplighter.gateway.errors import HandshakeFailed
from lamplighter.gateway.listeners import tune
from lamplighter.gateway.ports import Backend, Listening
from lamplighter.gateway.visitors import Places, Visitor
from lamplighter.gateway.wire import messages
from lamplighter.gateway.wire.startup import GSSENC_REQUEST, SSL_REQUEST, CancelRequest
from support.front import DOMAIN, free_port
from support.waiting import eventually


def dial(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


@contextlib.asynccontextmanager
async def serving(on_client):
    """A server of the test's own, and its port."""
    server = await asyncio.start_server(on_client, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_flood_of_half_handshakes_shuts_nobody_out(own):
    """Who asks for TLS and stops gives way to others, at the flooded ports, too."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    endpoint = await own.add("ep-flooded", tls=False)
    await endpoint.select()
    ports = free_port(), free_port()
    await own.set(endpoint.id, pooler_port=ports[0], pooler=endpoint.route.compute)
    other = await own.add("ep-flooded-too", tls=False)
    await own.set(other.id, pooler_port=ports[1])
    flood = []
    try:
        for number in range(2200):
            flood.append(dial(ports[number % 2]))
            flood[-1].sendall(SSL_REQUEST)
            if number % 100 == 0:
                await asyncio.sleep(0)
        await eventually(lambda: own.refused["silent"] >= 200)
        assert await endpoint.select() == 42
        assert await endpoint.select(port=ports[0], sslmode="require") == 42
    finally:
        for sock in flood:
            sock.close()


#: A relay that says it has room for two.
NARROW = """#!{python}
import socket, sys
from lamplighter.gateway.relay_fallback import Relay
Relay(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2])).serve(2)
"""


async def test_a_full_relay_refuses_in_postgres_words(make_platform, place, monkeypatch):
    """And does not reset: with TLS and without; what does not go by the relay goes on, and so does who comes later."""
    program = place / "narrow"
    program.write_text(NARROW.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("LAMP_RELAY", str(program))
    async with make_platform() as platform:
        endpoint = await platform.add("ep-relayed")
        async with await endpoint.connect(), await endpoint.connect(sslmode="disable"):
            for number, sslmode in enumerate(("require", "disable"), start=1):
                with pytest.raises(psycopg.OperationalError, match=r"(?s)too many connections.*files for 2 "):
                    await endpoint.connect(sslmode=sslmode)
                await eventually(lambda number=number: platform.refused["relay_full"] == number)
            ended = await platform.add("ep-ended", tls=False)
            assert await ended.select(sslmode="require") == 42

        async def admitted() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                return await endpoint.select() == 42
            return False

        await eventually(admitted)


async def test_a_compute_that_proves_nothing_is_not_believed(platform):
    """The client is told that its server knows it: so that has to be so."""
    heard = []

    async def impostor(reader, writer):
        heard.append(await reader.read(200))
        writer.write(messages.authentication_ok() + messages.message(b"Z", b"I"))
        heard.append(await reader.read(200))
        writer.close()

    endpoint = await platform.add("ep-believes", tls=False)
    await endpoint.select()
    async with serving(impostor) as port:
        await platform.set(endpoint.id, compute=Backend("127.0.0.1", port, tls=False))
        with pytest.raises(psycopg.OperationalError, match="does not answer"):
            await endpoint.connect(sslmode="require", channel_binding="require")
    assert heard[1:] == [b""]


async def test_a_compute_with_another_certificate_is_not_spoken_to(platform, endpoint, tmp_path, owner):
    """Where TLS ends in the gateway the compute's certificate has to be the gateway's own."""
    files = ensure_tls(tmp_path / "other", owner, [DOMAIN])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    heard = []

    async def impostor(reader, writer):
        await reader.readexactly(8)
        writer.write(b"S")
        # The gateway leaves without a word, which comes as a reset.
        with contextlib.suppress(OSError):
            await writer.start_tls(context)
            heard.append(await reader.read(200))
        writer.close()

    named = {"port": platform.domain_port, "sslmode": "require", "options": f"endpoint={endpoint.id}"}
    assert await endpoint.select(**named) == 42
    async with serving(impostor) as port:
        await platform.set(endpoint.id, compute=Backend("127.0.0.1", port, tls=True))
        with pytest.raises(psycopg.OperationalError, match="does not answer"):
            await endpoint.connect(**named)
    assert "has another certificate" in platform.gateway.log.read_text()
    assert not any(heard)


async def test_gssapi_is_refused_once(platform, endpoint):
    """Whoever asks again and again is let go."""
    port = free_port()
    await platform.set(endpoint.id, pooler_port=port)
    with dial(port) as sock:
        sock.sendall(GSSENC_REQUEST * 1500)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await asyncio.to_thread(sock.recv, 4096):
                said += data
    assert said in (b"N", b"")
    assert "front_failed" not in platform.gateway.log.read_text()


def keepalive_timers(*, local=None, remote=None):
    """Of established IPv4 connections: whether the kernel's next timer for each is the keepalive's."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    wanted = [
        row
        for row in rows
        if row[3] == "01"
        and (local is None or int(row[1].split(":")[1], 16) == local)
        and (remote is None or int(row[2].split(":")[1], 16) == remote)
    ]
    return [row[5].startswith("02:") for row in wanted]


async def test_peers_that_vanish_are_found_out(platform):
    """Both sockets of a session whose TLS ends in the gateway are asked whether somebody is there."""
    endpoint = await platform.add("ep-vanishing", tls=False)
    async with await endpoint.connect(sslmode="require"):
        await eventually(lambda: keepalive_timers(local=endpoint.route.port) == [True])
        await eventually(lambda: True in keepalive_timers(remote=endpoint.private))


def test_sockets_are_tuned():
    """Small pieces leave at once; a vanished peer is noticed after two minutes."""
    with socket.socket() as sock:
        tune(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [60, 10, 6]
    with socket.socket(socket.AF_UNIX) as sock:
        tune(sock)


async def test_cancel_requests_queue_up_to_a_bound():
    """Those beyond it are dropped at once, and cost nobody anything."""
    reached = 0
    until = asyncio.Event()

    async def stuck(_reader, writer):
        nonlocal reached
        reached += 1
        await until.wait()
        writer.close()

    cancels = Cancels()
    async with serving(stuck) as port:
        backend = Backend("127.0.0.1", port, tls=False)

        def awake():
            return [], [backend]

        some = [asyncio.create_task(cancels.anywhere(CancelRequest(1, b"abcd"), awake)) for _ in range(34)]
        await eventually(lambda: reached == 2)
        await cancels.anywhere(CancelRequest(2, b"abcd"), awake)
        assert not any(task.done() for task in some)
        until.set()
        await asyncio.gather(*some)
    assert reached == 34


@pytest.mark.parametrize("near", [0, 1, MOST + 6])
async def test_a_cancel_request_goes_first_where_its_sender_has_connections(near):
    """To all of these, and to others only as far as `MOST` goes."""
    reached = Counter()

    async def count(what, reader, writer):
        await reader.readexactly(16)
        reached[what] += 1
        writer.close()

    async with serving(partial(count, "near")) as here, serving(partial(count, "other")) as there:
        backends = [[Backend("127.0.0.1", port, tls=False)] * number for port, number in ((here, near), (there, 100))]
        await Cancels().anywhere(CancelRequest(1, b"abcd"), lambda: backends)
    assert (reached["near"], reached["other"]) == (near, max(0, MOST - near))


@pytest.mark.parametrize("says", [b"", b"S"])
async def test_a_compute_that_leaves_before_the_login_is_told(platform, endpoint, says):
    """With an error of Postgres, and not by a connection that just ends."""

    async def leaves(reader, writer):
        await reader.readexactly(8)
        writer.write(says)
        writer.close()

    async with serving(leaves) as port:
        await platform.set(endpoint.id, state="awake", compute=Backend("127.0.0.1", port, tls=True))
        with pytest.raises(psycopg.OperationalError, match="does not answer"):
            await endpoint.connect(port=platform.domain_port, options=f"endpoint={endpoint.id}")


@pytest.fixture
async def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


async def test_all_steps_of_a_client_have_one_deadline(pair):
    """However many it makes of them; what it waits for us is not counted."""
    visitor = Visitor(pair[0], None, 1, 60.0, left=0.2)
    pair[1].sendall(struct.pack("!ii", 8, 0)[:3])
    with pytest.raises(HandshakeFailed, match="too slow"):
        await visitor.next_opening()
    with pytest.raises(HandshakeFailed, match="too slow"):
        await visitor.next_opening()


async def test_who_waits_for_an_endpoint_has_no_place(pair):
    """The oldest one that waits for its client gives way, and nobody else."""
    places = Places()
    first, second, third = (Visitor(pair[0], None, port, 1.0) for port in (1, 1, 2))
    for visitor in (first, second, third):
        places.add(visitor)
    first.gives_way = False
    assert places.oldest() is places.oldest(1) is second
    with places.waiting_at(second, "ep-a"):
        assert (len(places), places.of_port(1), places.waiting, places.waiting_for("ep-a")) == (2, 1, 1, 1)
        assert places.oldest() is third
        assert places.oldest(1) is None
    assert (len(places), places.of_port(1), places.waiting) == (3, 2, 0)


def test_a_gateway_started_anew_says_the_same_salts(tls, tmp_path, owner):
    """And knows its certificate and the one before it."""
    pair = tmp_path / "c.crt", tmp_path / "c.key"

    def put(files):
        shutil.copyfile(files.certificate, pair[0])
        shutil.copyfile(files.key, pair[1])

    def started():
        made = Certificates()
        made.configure(Listening(certificate=str(pair[0]), key=str(pair[1])))
        return made, made.current()

    leaves = []
    renewing, _ = started()
    for number in range(3):
        put(tls if not number else ensure_tls(tmp_path / str(number), owner, [DOMAIN]))
        (_, one), (_, two) = started(), started()
        assert one.mock_key == two.mock_key
        assert one.mock_key not in [mock for _, mock in leaves]
        leaves.append((one.leaf, one.mock_key))
        assert renewing.is_ours(one.leaf)
    assert [renewing.is_ours(leaf) for leaf, _ in leaves] == [False, True, True]
    assert not renewing.is_ours(None)
