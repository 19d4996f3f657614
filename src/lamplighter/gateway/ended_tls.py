"""Sessions whose TLS ends in the gateway: only where the endpoint cannot be known, or spoken to, without that.

Three ways to log in, none of which needs a password of ours: by the client's own talk with a compute that has TLS (its
certificate is the gateway's, so that channel binding holds through both sessions); by the password, where the client
had to give it to name its endpoint; by the keys that the client's proof reveals to who holds the verifier.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lamplighter.gateway import refusals
from lamplighter.gateway.cancels import Cancels
from lamplighter.gateway.certificates import Certificates
from lamplighter.gateway.errors import BackendFailed, HandshakeFailed, Refused
from lamplighter.gateway.listeners import tune
from lamplighter.gateway.pumping import Pump
from lamplighter.gateway.reaching import Reach, Reached, with_tls
from lamplighter.gateway.refusals import Refusal
from lamplighter.gateway.routes import Place
from lamplighter.gateway.streams import Stream
from lamplighter.gateway.verifiers import Verifiers
from lamplighter.gateway.visitors import Visitor
from lamplighter.gateway.wire import messages, scram
from lamplighter.gateway.wire.errors import WireError
from lamplighter.gateway.wire.hosts import split_pooler
from lamplighter.gateway.wire.messages import Frames, Message
from lamplighter.gateway.wire.password import split_endpoint
from lamplighter.gateway.wire.startup import CancelRequest, Startup, endpoint_of_options, render_startup

#: Seconds for each answer of a compute while a client logs in: it may have to read its catalogs from disk.
_ANSWER_SECONDS = 30.0


class Talk:
    """Messages of one peer while a client logs in. What came behind the last one is left in the stream's buffer."""

    def __init__(self, stream: Stream, visitor: Visitor | None = None) -> None:
        """`visitor`: the client whose stream it is; without one it is a server's."""
        self.stream = stream
        self._visitor = visitor
        self._frames = Frames()
        self._frames.push(stream.take())

    async def next(self) -> Message:
        """Raises HandshakeFailed, Malformed, TooLarge; of a server BackendFailed."""
        if self._visitor is not None:
            async with self._visitor.in_time():
                return await self._read()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._read()
        except (HandshakeFailed, WireError, OSError) as error:
            raise BackendFailed(f"the compute gave no answer to a login: {error!r}") from error

    async def _read(self) -> Message:
        while (message := self._frames.pop()) is None:
            await self.stream.fill()
            self._frames.push(self.stream.take())
        return message

    async def ask(self, said: bytes) -> bytes:
        """Of a client: say this, and return the body of its password or SASL message."""
        assert self._visitor is not None
        async with self._visitor.in_time():
            await self.stream.send(said)
        return await self.answer()

    async def answer(self) -> bytes:
        """Of a client: the body of its password or SASL message."""
        message = await self.next()
        if message.kind != b"p":
            raise HandshakeFailed("the client does not answer what it was asked")
        return message.body

    def end(self) -> None:
        self.stream.buffer[:0] = self._frames.rest()


@dataclass(slots=True)
class Login:
    """A client and the backend that has let it in, or speaks with it about that; buffers hold what goes ahead."""

    client: Stream
    backend: Stream
    place: Place
    reached: Reached


#: Entered while a visitor waits for an endpoint, and not for itself. Raises Refused.
Waiting = Callable[[Visitor, Place], AbstractContextManager[None]]


class EndedTls:
    """Logs clients in."""

    def __init__(self, reach: Reach, certificates: Certificates, verifiers: Verifiers, waiting: Waiting) -> None:
        self._reach = reach
        self._waiting = waiting
        self._certificates = certificates
        self._verifiers = verifiers
        # For roles that are not there, where there is no certificate: their salt is the same each time.
        self._mock_key = os.urandom(32)

    async def log_in(self, visitor: Visitor, place: Place | None) -> Login:
        """Bring a client, whose startup has been read, to its backend. Raises Refused, HandshakeFailed, WireError."""
        assert visitor.startup is not None
        password = None
        if place is None:
            named, _ = endpoint_of_options(visitor.startup.options)
            if named is not None:
                place = Place(*split_pooler(named))
            else:
                place, password = await _ask_password(visitor)
        startup = stripped(visitor.startup, place)
        with self._waiting(visitor, place):
            reached = await self._reach.to(place, visitor.address, payer=visitor.payer)
        try:
            return await self._with_backend(visitor, startup, reached, password)
        except BaseException:
            reached.close()
            raise

    async def _with_backend(
        self, visitor: Visitor, startup: Startup, reached: Reached, password: bytes | None
    ) -> Login:
        tune(reached.stream.sock)
        backend = reached.stream
        if reached.backend.tls:
            with self._waiting(visitor, reached.place):
                backend = await with_tls(reached, self._certificates)
        login = Login(visitor.stream, backend, reached.place, reached)
        packet, final = render_startup(startup), b""
        if password is not None:
            client = scram.Client(nonce=_nonce(), password=password)
        elif reached.backend.tls:
            await _say(backend, packet)
            return login
        else:
            client, final = await self._prove(visitor, startup, reached.place)
        with self._waiting(visitor, reached.place):
            await _log_in(login, packet, client, final, visitor)
        return login

    async def _prove(self, visitor: Visitor, startup: Startup, place: Place) -> tuple[scram.Client, bytes]:
        """Run SCRAM as the server. Returns who may log in as the client, and our last word, to be said after that."""
        served = self._certificates.current()
        with self._waiting(visitor, place):
            verifier = await self._verifiers.of(place.endpoint_id, startup.user)
        server = scram.Server(
            verifier,
            user=startup.user,
            nonce=_nonce(),
            mock_key=served.mock_key if served is not None else self._mock_key,
            binding=served.binding if served is not None and visitor.tls is not None else None,
        )
        talk = Talk(visitor.stream, visitor)
        answer = await talk.ask(messages.authentication_sasl(server.mechanisms))
        first = server.first(*messages.parse_sasl_initial(answer))
        answer = await talk.ask(messages.authentication_sasl_continue(first))
        final = server.final(messages.parse_sasl_response(answer))
        talk.end()
        return scram.Client(nonce=_nonce(), keys=server.keys), messages.authentication_sasl_final(final)


def stripped(startup: Startup, place: Place) -> Startup:
    """Without the endpoint in the options, which Postgres knows nothing of. Raises Refused for another one's name."""
    named, options = endpoint_of_options(startup.options)
    if named is not None and split_pooler(named)[0] != place.endpoint_id:
        raise Refused(refusals.other_endpoint(named))
    return startup.with_parameter("options", options)


async def _ask_password(visitor: Visitor) -> tuple[Place, bytes]:
    """For a client that names its endpoint nowhere else. Only ever within TLS. Raises Refused."""
    if visitor.tls is None:
        raise Refused(refusals.no_endpoint_named())
    talk = Talk(visitor.stream, visitor)
    answer = await talk.ask(messages.authentication_cleartext())
    endpoint_id, password = split_endpoint(messages.parse_password(answer))
    talk.end()
    if endpoint_id is None:
        raise Refused(refusals.no_endpoint_named())
    return Place(*split_pooler(endpoint_id)), password


async def _log_in(login: Login, startup: bytes, client: scram.Client, final: bytes, visitor: Visitor) -> None:
    """Log in at the backend; then tell the client `final`, and that it is in.

    Raises BackendFailed for one that has not proved to know the role: the client is told that its server has.
    """
    talk = Talk(login.backend)
    proven = False
    await _say(login.backend, startup)
    while True:
        message = await talk.next()
        if message.kind == b"E":
            raise Refused(_of_backend(message))
        if message.kind == b"v":
            # It speaks an older minor version of the protocol: the client has to know before anything else.
            async with visitor.in_time():
                await login.client.send(message.render())
        elif message.kind == b"R":
            asked = messages.parse_authentication(message.body)
            if asked.code == messages.AUTH_OK:
                break
            await _say(login.backend, await _answer(client, asked))
            # Its signature has been looked at: what is wrong raises.
            proven = asked.code == messages.AUTH_SASL_FINAL
        elif message.kind != b"N":
            raise BackendFailed(f"the compute said {message.kind!r} while a client logged in")
    if not proven:
        raise BackendFailed("the compute let a client in without a proof that it knows the role")
    talk.end()
    async with visitor.in_time():
        await login.client.send(final + messages.authentication_ok())


async def _say(backend: Stream, words: bytes) -> None:
    """To a compute. Raises BackendFailed where it has left: the client is to hear of that."""
    try:
        await backend.send(words)
    except OSError as error:
        raise BackendFailed(f"the compute left while a client logged in: {error!r}") from error


async def _answer(client: scram.Client, asked: messages.Authentication) -> bytes:
    match asked.code:
        case messages.AUTH_SASL:
            return messages.sasl_initial(*client.first(asked.mechanisms))
        case messages.AUTH_SASL_CONTINUE:
            # Thousands of hashes: not in the event loop.
            return messages.sasl_response(await asyncio.to_thread(client.final, asked.data))
        case messages.AUTH_SASL_FINAL:
            client.finish(asked.data)
            return b""
        case _:
            raise BackendFailed(f"the compute asks for authentication by method {asked.code}")


def _of_backend(message: Message) -> Refusal:
    """What the backend says against a login goes to the client in its own words."""
    fields = messages.parse_error(message.body)
    return Refusal(
        "login_failed",
        fields.get("code", refusals.CONNECTION_FAILURE),
        fields.get("message", ""),
        fields.get("detail", ""),
        fields.get("hint", ""),
    )


def _nonce() -> str:
    return base64.b64encode(os.urandom(18)).decode()


class Session(Pump):
    """A session that is passed on here. Its key is listened for, so that it can be cancelled."""

    def __init__(self, login: Login, cancels: Cancels) -> None:
        super().__init__(login.client, login.backend)
        self.listen(self._until_ready)
        self._backend = login.reached.backend
        self._cancels = cancels
        self._frames = Frames()
        self._key: CancelRequest | None = None

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            if self._key is not None:
                self._cancels.forget(self._key)

    def _until_ready(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                if message.kind == b"K":
                    self._key = CancelRequest(*messages.parse_backend_key(message.body))
                    self._cancels.remember(self._key, self._backend)
                if message.kind in (b"Z", b"K"):
                    self._hear_no_more()
                    break
        except WireError:
            self._hear_no_more()

    def _hear_no_more(self) -> None:
        self.listen(None)
        self._frames.rest()
