"""Roles whose passwords ask for many iterations of SCRAM: whoever owns one sets their number."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from websockets.asyncio.client import connect as connect_websocket

from lamplighter.gateway.serverless import Target
from lamplighter.gateway.serverless.connection_string import parse
from lamplighter.gateway.serverless.errors import ConnectionLost, TooManyIterations
from lamplighter.gateway.serverless.session import CHEAP_ITERATIONS, connect
from lamplighter.gateway.wire import messages
from lamplighter.gateway.wire.messages import Frames, parse_error
from lamplighter.gateway.wire.scram import MOST_ITERATIONS
from lamplighter.gateway.wire.startup import Startup, render_startup
from support.serverless import ENDPOINT, Door, Postgres
from support.wire import PROTOCOL_3_0, password_message

Ask = Callable[..., httpx2.Response]
ENDLESS = 2_000_000_000
#: Postgres itself hashes an empty password with it once, to refuse that.
TOO_MANY = 300_000
VERIFIER = f"SCRAM-SHA-256${TOO_MANY}:{'A' * 22}==${'A' * 43}=:{'A' * 43}="


@pytest.fixture(scope="module")
def roles(server: Postgres) -> Iterator[None]:
    server.run(
        f"set scram_iterations = {CHEAP_ITERATIONS + 1}",
        "create role costly login password 'right'",
        f"set scram_iterations = {MOST_ITERATIONS}",
        "create role costliest login password 'right'",
        f"create role too_many login password '{VERIFIER}'",
    )
    yield
    for role in ("costly", "costliest", "too_many"):
        server.run(f"drop role {role}")


@pytest.mark.usefixtures("roles")
class TestOverHttp:
    @pytest.mark.parametrize("role", ["costly", "costliest"])
    def test_many_iterations(self, door: Door, ask: Ask, role: str):
        """Whoever knows the password gets in, and nobody else."""
        answer = ask({"query": "select current_user as who"}, door.uri(user=role, password="right"))
        assert answer.json()["rows"] == [{"who": role}], answer.text
        refused = ask({"query": "select 1"}, door.uri(user=role, password="wrong"))
        assert (refused.status_code, refused.json()["code"]) == (400, "28P01")

    def test_too_many_are_never_begun(self, door: Door, ask: Ask):
        refused = ask({"query": "select 1"}, door.uri(user="too_many", password="right"))
        assert refused.status_code == 400
        assert f"asks for {TOO_MANY} iterations" in refused.json()["message"]


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize(("role", "last"), [("costliest", b"Z"), ("too_many", b"E")])
async def test_over_websocket(door: Door, role: str, last: bytes):
    """As many are done as over HTTP."""
    async with asyncio.timeout(20), connect_websocket(f"ws://127.0.0.1:{door.port}/v2?address={ENDPOINT}.x") as socket:
        await socket.send(render_startup(Startup(PROTOCOL_3_0, (("user", role), ("database", "neondb")))))
        await socket.send(password_message(b"right"))
        frames, heard = Frames(), []
        while not heard or heard[-1].kind not in b"ZE":
            piece = await socket.recv()
            assert isinstance(piece, bytes)
            heard += frames.feed(piece)
    assert heard[-1].kind == last
    if last == b"E":
        assert f"asks for {TOO_MANY} iterations" in parse_error(heard[-1].body)["message"]


@asynccontextmanager
async def impostor(answer: Callable[[bytes], bytes], piece: int) -> AsyncIterator[Target]:
    """Asks for SCRAM, and says `answer` to a client's nonce, in pieces; then it closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(struct.unpack("!I", await reader.readexactly(4))[0] - 4)
        writer.write(messages.authentication_sasl(["SCRAM-SHA-256"]))
        head = await reader.readexactly(5)
        body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
        said = answer(body.partition(b"r=")[2])
        for at in range(0, len(said), piece):
            writer.write(said[at : at + piece])
            await writer.drain()
            # Others run in between, and see a part.
            await asyncio.sleep(0.001)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Target("127.0.0.1", server.sockets[0].getsockname()[1])


def challenge(nonce: bytes, iterations: int) -> bytes:
    text = b"r=%ss,s=%s,i=%d" % (nonce, base64.b64encode(bytes(16)), iterations)
    return messages.authentication_sasl_continue(text)


@pytest.mark.parametrize("piece", [7, 1 << 20])
async def test_a_challenge_in_pieces(piece: int):
    """It is looked at when it is whole, and libpq does not see it before."""
    async with impostor(lambda nonce: challenge(nonce, ENDLESS), piece) as target:
        with pytest.raises(TooManyIterations):
            await connect(target, parse("postgresql://u:p@x/d"), seconds=20)


@pytest.mark.parametrize(
    "said",
    [b"R\0\0\0\1", b"R" + struct.pack("!II", 1 << 20, messages.AUTH_SASL_CONTINUE), b"R\0\0\0\x0a\0\0\0", b""],
)
async def test_who_does_not_speak_as_postgres_does(said: bytes):
    """Also when it closes in the middle of a message, which never gets whole."""
    async with impostor(lambda _: said, 1 << 20) as target:
        with pytest.raises(ConnectionLost):
            await connect(target, parse("postgresql://u:p@x/d"), seconds=60)
