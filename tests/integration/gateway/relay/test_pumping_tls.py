"""Sessions whose TLS ends in the gateway: all bytes pass, both ways at once, and so does each side's end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from lamplighter.compute.tls import ensure_tls
from lamplighter.gateway.pumping import Pump
from lamplighter.gateway.streams import Stream, TlsStream

NAME = "pump.example.org"
#: More than is decrypted at once.
AHEAD = b"a" * 40_000
#: More than all that sockets and the pump hold.
MUCH = 8 << 20


@dataclass
class Session:
    """A pump between a client with TLS (`reader`, `writer`) and a backend without."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    backend_reader: asyncio.StreamReader
    backend_writer: asyncio.StreamWriter
    pump: Pump
    running: asyncio.Task[None]


@pytest.fixture(scope="module", params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def contexts(request, tmp_path_factory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of the server, and of a client of this version."""
    files = ensure_tls(tmp_path_factory.mktemp("tls"), (os.geteuid(), os.getegid()), [NAME])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=files.authority)
    client.minimum_version = client.maximum_version = request.param
    return server, client


@asynccontextmanager
async def session(contexts: tuple[ssl.SSLContext, ssl.SSLContext], *, login: bytes = b"") -> AsyncIterator[Session]:
    """`login` is what the gateway consumes before the pump begins; of what follows it, some is read ahead."""
    server, client = contexts
    to_client, ours = socket.socketpair()
    to_backend, backend = socket.socketpair()
    for sock in (to_client, to_backend):
        sock.setblocking(False)
    stream = TlsStream(Stream(to_client), server, server_side=True)
    handshake = asyncio.create_task(stream.handshake())
    reader, writer = await asyncio.open_connection(sock=ours, ssl=client, server_hostname=NAME)
    await handshake
    writer.write(login + AHEAD)
    assert await stream.exactly(len(login)) == login
    backend_reader, backend_writer = await asyncio.open_connection(sock=backend)
    pump = Pump(stream, Stream(to_backend))
    running = asyncio.create_task(pump.run())
    try:
        async with asyncio.timeout(60):
            assert await backend_reader.readexactly(len(AHEAD)) == AHEAD
            yield Session(reader, writer, backend_reader, backend_writer, pump, running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for one in (writer, backend_writer):
            one.transport.abort()


async def pour(writer: asyncio.StreamWriter, *, seed: int) -> str:
    """Write much, in pieces of all sizes; its hash."""
    dice, said, left = random.Random(seed), hashlib.sha256(), MUCH
    while left:
        piece = dice.randbytes(min(left, dice.choice((1, 5, 100, 16_383, 16_385, 200_000))))
        left -= len(piece)
        said.update(piece)
        writer.write(piece)
        await writer.drain()
    return said.hexdigest()


async def drink(reader: asyncio.StreamReader) -> str:
    heard, left = hashlib.sha256(), MUCH
    while left:
        piece = await reader.read(min(left, 100_000))
        assert piece, "it ended early"
        left -= len(piece)
        heard.update(piece)
    return heard.hexdigest()


async def test_much_passes_both_ways_at_once(contexts) -> None:
    async with session(contexts) as one:
        said, told, heard, got = await asyncio.gather(
            pour(one.writer, seed=1), pour(one.backend_writer, seed=2), drink(one.backend_reader), drink(one.reader)
        )
        assert (heard, got) == (said, told)
        assert (one.pump.in_, one.pump.out) == (len(AHEAD) + MUCH, MUCH)


async def test_a_side_that_reads_nothing_stops_the_other_one_only(contexts) -> None:
    """What the pump holds of it is bounded; the other way goes on meanwhile."""
    async with session(contexts) as one:
        pouring = asyncio.create_task(pour(one.writer, seed=3))
        taken = before = one.pump.in_
        while taken != (taken := one.pump.in_) or taken == before:
            one.backend_writer.write(b"still there")
            assert await one.reader.readexactly(11) == b"still there"
        assert taken - before < MUCH // 2
        assert not pouring.done()
        assert await drink(one.backend_reader) == await pouring


async def test_what_was_read_ahead_comes_first(contexts) -> None:
    """The last piece of a login may hold the first of the session."""
    async with session(contexts, login=b"login") as one:
        one.backend_writer.close()
        assert await one.reader.read() == b""
        one.writer.close()
        await one.running


async def test_a_client_that_ends_is_followed_by_its_backends_last_words(contexts) -> None:
    """TLS has no half of a connection; but who says close_notify and still reads gets what comes."""
    async with session(contexts) as one:
        one.writer.write(b"bye")
        await one.writer.drain()
        one.writer.close()
        assert await one.backend_reader.read() == b"bye"
        one.backend_writer.close()
        await one.running


async def test_a_backend_that_ends_is_followed_by_the_client(contexts) -> None:
    async with session(contexts) as one:
        one.backend_writer.write(b"x" * MUCH)
        one.backend_writer.write_eof()
        assert len(await one.reader.read()) == MUCH
        one.writer.close()
        await one.running


async def test_garbage_within_a_session_ends_it(contexts) -> None:
    async with session(contexts) as one:
        raw = one.writer.get_extra_info("socket")
        os.write(raw.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        assert await one.backend_reader.read() == b""
        one.backend_writer.close()
        await one.running
