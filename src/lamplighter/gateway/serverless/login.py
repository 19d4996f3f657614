"""Log a WebSocket's client in at its endpoint: it gives its password, the endpoint asks for SCRAM. Pure.

Feed it what the endpoint says. When `over`, `to_client` is what the client gets first of the endpoint; if `welcome`,
the rest of the session is passed on as it is.
"""

from __future__ import annotations

from lamplighter.gateway.wire import messages, scram
from lamplighter.gateway.wire.errors import LoginRefused, Malformed
from lamplighter.gateway.wire.startup import Startup, render_startup


class Login:
    """One login. `nonce` must not be guessed: 18 random bytes in base64."""

    def __init__(self, startup: Startup, password: bytes, nonce: str) -> None:
        self._startup = startup
        self._scram = scram.Client(password=password, nonce=nonce)
        self._frames = messages.Frames()
        self._proven = False
        self.over = self.welcome = False
        self.to_client = b""

    def begin(self) -> bytes:
        """What to send first."""
        return render_startup(self._startup)

    def feed(self, piece: bytes) -> bytes:
        """Give what to answer. Raises WireError when the endpoint does not prove that it knows the password."""
        self._frames.push(piece)
        answer = b""
        while not self.over and (message := self._frames.pop()) is not None:
            answer += self._one(message)
        if self.over:
            self.to_client += self._frames.rest()
        return answer

    def _one(self, message: messages.Message) -> bytes:
        if message.kind == b"R":
            return self._asked(message)
        self.to_client += message.render()
        if message.kind == b"E":
            self.over = True
        elif message.kind not in {b"N", b"v"}:
            raise Malformed("unexpected message from the server during the login")
        return b""

    def _asked(self, message: messages.Message) -> bytes:
        asked = messages.parse_authentication(message.body)
        if asked.code == messages.AUTH_SASL:
            return messages.sasl_initial(*self._scram.first(asked.mechanisms))
        if asked.code == messages.AUTH_SASL_CONTINUE:
            return messages.sasl_response(self._scram.final(asked.data))
        if asked.code == messages.AUTH_SASL_FINAL:
            self._scram.finish(asked.data)
            self._proven = True
            return b""
        if asked.code != messages.AUTH_OK or not self._proven:
            # Whoever might have taken the port must not be told the password, nor be believed.
            raise LoginRefused("the server does not ask for SCRAM, and nothing else will do")
        self.to_client += message.render()
        self.over = self.welcome = True
        return b""
