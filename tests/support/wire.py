"""PostgreSQL's protocol in tests, by `lamplighter.gateway.wire`: a blocking connection, and what only tests say."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from lamplighter.gateway.wire import messages, startup
from lamplighter.gateway.wire.messages import Frames, Message
from lamplighter.gateway.wire.scram import ITERATIONS, PLAIN, PLUS, Client, ClientKeys, Verifier

SECONDS = 20
PROTOCOL_3_0 = 3 << 16


def password_message(password: bytes) -> bytes:
    return messages.message(b"p", password + b"\0")


def verifier_of(keys: ClientKeys, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
    """What Postgres keeps of a password."""
    return Verifier(iterations, salt, hashlib.sha256(keys.client_key).digest(), keys.server_key)


def render_verifier(verifier: Verifier) -> str:
    """As Postgres keeps it."""
    salt, stored, server = (
        base64.b64encode(one).decode() for one in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return f"{PLAIN}${verifier.iterations}:{salt}${stored}:{server}"


class BindingClient(Client):
    """A client that binds to the certificate with this hash where the server offers it, as libpq does."""

    def __init__(
        self, *, binding: bytes, nonce: str, password: bytes | None = None, keys: ClientKeys | None = None
    ) -> None:
        super().__init__(nonce=nonce, password=password, keys=keys)
        self._binding = binding

    def first(self, offered: tuple[str, ...]) -> tuple[str, bytes]:
        if PLUS not in offered:
            self._header = b"y,,"
            return super().first(offered)
        said = b"p=tls-server-end-point,," + self._bare
        self._header = b"p=tls-server-end-point,," + self._binding
        return PLUS, said


@dataclass
class Wire:
    """Either end of a connection, in clear or by TLS. Waits `SECONDS` at most for each piece."""

    sock: socket.socket
    frames: Frames

    @classmethod
    def over(cls, sock: socket.socket) -> Self:
        sock.settimeout(SECONDS)
        return cls(sock, Frames(1 << 20))

    def read(self) -> Message:
        message = self.read_or_end()
        assert message is not None, "the peer has closed"
        return message

    def read_or_end(self) -> Message | None:
        while (message := self.frames.pop()) is None:
            try:
                piece = self.sock.recv(4096)
            except ConnectionResetError:
                return None
            if not piece:
                return None
            self.frames.push(piece)
        return message

    def read_packet(self) -> bytes:
        """A startup packet, whole."""
        packet = b""
        while (opening := startup.classify(packet)) is None or len(packet) < opening.length:
            piece = self.sock.recv(1 if len(packet) < 8 else opening.length - len(packet) if opening else 1)
            assert piece, "the peer has closed"
            packet += piece
        return packet

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, query: bytes) -> list[Message]:
        self.send(messages.message(b"Q", query + b"\0"))
        return list(self.until_ready())

    def until_ready(self) -> Iterator[Message]:
        while True:
            message = self.read()
            yield message
            if message.kind == b"Z":
                return

    def log_in(self, user: str, client: Client) -> None:
        """Raises what `client` raises, and AssertionError with the error of the server."""
        self.send(startup.render_startup(startup.Startup(PROTOCOL_3_0, (("user", user), ("database", "neondb")))))
        offer = messages.parse_authentication(self._good().body)
        assert offer.code == messages.AUTH_SASL
        self.send(messages.sasl_initial(*client.first(offer.mechanisms)))
        challenge = messages.parse_authentication(self._good().body)
        assert challenge.code == messages.AUTH_SASL_CONTINUE
        self.send(messages.sasl_response(client.final(challenge.data)))
        outcome = messages.parse_authentication(self._good().body)
        assert outcome.code == messages.AUTH_SASL_FINAL
        client.finish(outcome.data)
        assert messages.parse_authentication(self._good().body).code == messages.AUTH_OK

    def _good(self) -> Message:
        message = self.read()
        assert message.kind == b"R", messages.parse_error(message.body)
        return message
