"""The proxy for clients that have Neon's address built in: what goes through, what does not, what is left."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lamplighter.compute.tls import Certificates
from lamplighter.gateway.streams import Stream, TlsStream
from lamplighter.platform.console_proxy import ConsoleProxy, Limits
from lamplighter.platform.console_request import BUSY, CONSOLE, TOO_LATE, UNREACHED
from support.waiting import eventually

ASKED = f"CONNECT {CONSOLE}:443 HTTP/1.1\r\nHost: {CONSOLE}:443\r\n\r\n".encode()
GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
SECONDS = 20.0
MEBIBYTE = 1024 * 1024

Api = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def count_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says how much it got, after the peer has said that this was all."""
    writer.write(str(len(await reader.read())).encode())
    await writer.drain()


async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def served(place: Path, api: Api = echo, limits: Limits | None = None) -> AsyncIterator[ConsoleProxy]:
    """A proxy before a server that stands for the API. After it neither a task nor a file descriptor may be left."""
    tasks = asyncio.all_tasks()
    descriptors = open_files()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await api(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    certificates = Certificates(place / "tls", (os.getuid(), os.getgid()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        proxy = ConsoleProxy(listener, certificates, limits=limits)
        await proxy.renew()
        proxy.start(*server.sockets[0].getsockname())
        try:
            yield proxy
        finally:
            await proxy.close()
            server.close()
    assert proxy.connections == 0
    await eventually(lambda: asyncio.all_tasks() <= tasks, what="the end of all tasks")
    await eventually(lambda: open_files() <= descriptors, what="the end of all sockets")


async def dial(proxy: ConsoleProxy) -> Stream:
    sock = socket.socket()
    sock.setblocking(False)
    port = int(proxy.url.rpartition(":")[2])
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return Stream(sock)


def trusting(authority: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class _Client(TlsStream):
    """The other side of the gateway's own streams, for a name."""

    def __init__(self, under: Stream, context: ssl.SSLContext) -> None:
        super().__init__(under, context, server_side=False)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=CONSOLE)


async def through(proxy: ConsoleProxy, context: ssl.SSLContext | None = None) -> TlsStream:
    """A client that has come through, and verified whom it talks to."""
    plain = await dial(proxy)
    async with asyncio.timeout(SECONDS):
        await plain.send(ASKED)
        assert await plain.exactly(len(GRANTED)) == GRANTED
        client = _Client(plain, context or trusting(proxy.authority))
        try:
            await client.handshake()
        except ssl.SSLError:
            plain.close()
            raise
    return client


async def rest(stream: Stream) -> bytes:
    """All that is still said, until the other side closes."""
    said = stream.take()
    async with asyncio.timeout(SECONDS):
        while data := await stream.receive():
            said += data
    stream.close()
    return said


async def told(proxy: ConsoleProxy, said: bytes) -> bytes:
    stream = await dial(proxy)
    await stream.send(said)
    return await rest(stream)


async def works(proxy: ConsoleProxy) -> None:
    client = await through(proxy)
    await client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    client.close()


async def test_bytes_go_both_ways(tmp_path: Path):
    """More of them than any buffer holds, within TLS of the console's name."""
    async with served(tmp_path) as proxy:
        client = await through(proxy)
        assert client.alpn == "http/1.1"
        block = os.urandom(MEBIBYTE)

        async def send() -> None:
            for _ in range(8):
                await client.send(block)

        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            group.create_task(send())
            for _ in range(8):
                assert await client.exactly(MEBIBYTE) == block
        client.close()


async def test_the_end_of_one_direction_is_passed_on_alone(tmp_path: Path):
    async with served(tmp_path, count_at_the_end) as proxy:
        client = await through(proxy)
        await client.send(b"a" * 100_000)
        await client.end()
        assert await rest(client) == b"100000"


async def test_a_request_may_come_byte_by_byte(tmp_path: Path):
    async with served(tmp_path) as proxy:
        plain = await dial(proxy)
        for number in range(len(ASKED)):
            await plain.send(ASKED[number : number + 1])
            await asyncio.sleep(0)
        assert await plain.exactly(len(GRANTED)) == GRANTED
        plain.close()


async def test_tls_may_follow_without_an_answer(tmp_path: Path):
    """A client that does not wait for it: its hello came with the request."""
    async with served(tmp_path) as proxy:
        plain = await dial(proxy)
        client = _Client(plain, trusting(proxy.authority))
        with pytest.raises(ssl.SSLWantReadError):
            client._tls.do_handshake()
        await plain.send(ASKED + client._outgoing.read())
        async with asyncio.timeout(SECONDS):
            assert await plain.exactly(len(GRANTED)) == GRANTED
            client._incoming.write(plain.take())
            await client.handshake()
            await client.send(b"early")
            assert await client.exactly(5) == b"early"
        client.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", b"403"),
        (b"CONNECT console.neon.tech:80 HTTP/1.1\r\n\r\n", b"403"),
        (b"GET http://console.neon.tech/api/v2/projects HTTP/1.1\r\nHost: console.neon.tech\r\n\r\n", b"405"),
        (b"POST / HTTP/1.1\r\ncontent-length: 300000\r\n\r\n" + b"a" * 300_000, b"405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"CONNECT console.neon.tech:443 HTTP/1.1\r\n" + b"a: b\r\n" * 2000, b"431"),
    ],
)
async def test_anything_else_is_told_what_this_is_for(tmp_path: Path, said: bytes, status: bytes):
    async with served(tmp_path) as proxy:
        answer = await told(proxy, said)
        assert answer.startswith(b"HTTP/1.1 " + status + b" ")
        assert b"This proxy passes on CONNECT console.neon.tech:443 to Lamplighter's own API" in answer
        await works(proxy)


async def test_a_head_that_does_not_end_is_not_waited_for(tmp_path: Path):
    async with served(tmp_path, limits=Limits(head=0.3)) as proxy:
        assert await told(proxy, ASKED[:-1]) == TOO_LATE.render()
        assert await told(proxy, b"") == TOO_LATE.render()
        await works(proxy)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", bytes(range(100))])
async def test_tls_that_is_none_ends_the_connection(tmp_path: Path, said: bytes):
    async with served(tmp_path, limits=Limits(handshake=0.3)) as proxy:
        plain = await dial(proxy)
        await plain.send(ASKED)
        assert await plain.exactly(len(GRANTED)) == GRANTED
        await plain.send(said)
        try:
            # At most an alert.
            assert len(await rest(plain)) < 50
        except ConnectionResetError:
            plain.close()
        await eventually(lambda: proxy.connections == 0)
        await works(proxy)


async def test_who_trusts_others_does_not_come_through(tmp_path: Path):
    """Without the authority's certificate no client talks to us by mistake."""
    async with served(tmp_path) as proxy:
        with pytest.raises(ssl.SSLCertVerificationError):
            await through(proxy, ssl.create_default_context())
        await eventually(lambda: proxy.connections == 0)


async def test_a_connection_on_which_nothing_is_answered_is_cut(tmp_path: Path):
    async with served(tmp_path, say_nothing, Limits(silence=0.3)) as proxy:
        client = await through(proxy)
        await client.send(b"is anybody there?")
        try:
            assert await rest(client) == b""
        except ConnectionResetError:
            client.close()
        await eventually(lambda: proxy.connections == 0)


async def test_a_client_that_resets_is_forgotten(tmp_path: Path):
    async with served(tmp_path) as proxy:
        client = await through(proxy)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        await eventually(lambda: proxy.connections == 0)


async def test_connections_are_bounded(tmp_path: Path):
    async with served(tmp_path, limits=Limits(connections=2)) as proxy:
        first, second = await through(proxy), await through(proxy)
        stream = await dial(proxy)
        assert await rest(stream) == BUSY.render()
        second.close()
        await eventually(lambda: proxy.connections == 1)
        await works(proxy)
        first.close()


async def test_who_is_turned_away_is_told_so_whatever_it_has_sent(tmp_path: Path):
    """Unread bytes would turn the end into a reset. Here the request is there before its connection is taken."""
    async with served(tmp_path, limits=Limits(connections=1)) as proxy:
        first = await through(proxy)
        asking = socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])))
        asking.sendall(ASKED)
        asking.setblocking(False)
        assert await rest(Stream(asking)) == BUSY.render()
        assert proxy.connections == 1
        first.close()


async def test_closing_ends_who_is_turned_away(tmp_path: Path):
    """Though it does not leave."""
    async with served(tmp_path, limits=Limits(connections=1)) as proxy:
        first, second = await through(proxy), await dial(proxy)
        assert await second.exactly(len(BUSY.render())) == BUSY.render()
        await proxy.close()
        for stream in (first, second):
            stream.close()


async def test_those_who_are_turned_away_are_bounded_too(tmp_path: Path):
    """Beyond the bound nobody is waited for."""
    async with served(tmp_path, limits=Limits(connections=1)) as proxy:
        first, second = await through(proxy), await dial(proxy)
        assert await second.exactly(len(BUSY.render())) == BUSY.render()
        before = asyncio.all_tasks()
        third = await dial(proxy)
        assert await rest(third) == BUSY.render()
        assert asyncio.all_tasks() <= before
        for stream in (first, second):
            stream.close()


async def test_an_api_that_is_gone_is_told(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = free.getsockname()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = ConsoleProxy(listener, Certificates(tmp_path / "tls", (os.getuid(), os.getgid())))
        await proxy.renew()
        proxy.start(*gone)
        assert await told(proxy, ASKED) == UNREACHED.render()
        await proxy.close()


async def test_closing_ends_what_is_open(tmp_path: Path):
    """At every stage; the fixture sees that nothing is left."""
    async with served(tmp_path) as proxy:
        silent, asking = await dial(proxy), await dial(proxy)
        await asking.send(ASKED)
        assert await asking.exactly(len(GRANTED)) == GRANTED
        client = await through(proxy)
        await eventually(lambda: proxy.connections == 3)
        await proxy.close()
        for stream in (silent, asking, client):
            try:
                assert await rest(stream) == b""
            except ConnectionResetError:
                stream.close()


async def test_it_follows_the_authority(tmp_path: Path):
    """One that was made anew signs a certificate for connections to come; those that are open stay."""
    async with served(tmp_path) as proxy:
        before = await through(proxy)
        former = trusting(proxy.authority)
        for name in ("ca.crt", "ca.key"):
            (tmp_path / "tls" / name).unlink()
        await proxy.renew()
        with pytest.raises(ssl.SSLCertVerificationError):
            await through(proxy, former)
        await works(proxy)
        await before.send(b"still")
        assert await before.exactly(5) == b"still"
        before.close()
