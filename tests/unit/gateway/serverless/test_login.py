"""Logging a WebSocket's client in, against the server's end of SCRAM."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.serverless.login import Login
from lamplighter.gateway.wire import messages, scram
from lamplighter.gateway.wire.errors import LoginRefused, Malformed, PasswordFailed, TooLarge, WireError
from lamplighter.gateway.wire.startup import Startup, parse_startup
from support.wire import PROTOCOL_3_0, verifier_of

STARTUP = Startup(PROTOCOL_3_0, (("user", "u"), ("database", "d"), ("application_name", "x")))
AFTER = messages.message(b"S", b"a\0b\0") + messages.message(b"Z", b"I")


class Endpoint:
    """What an endpoint answers to a login: it knows the password `right`."""

    def __init__(self) -> None:
        keys = scram.keys_of(b"right", b"salt" * 4, 10)
        verifier = verifier_of(keys, b"salt" * 4, 10)
        self._scram = scram.Server(verifier, user="u", nonce="server", mock_key=b"")
        self._asked = 0

    def answer(self, sent: bytes) -> bytes:
        self._asked += 1
        if self._asked == 1:
            assert parse_startup(sent) == STARTUP
            return messages.authentication_sasl([scram.PLAIN])
        (message,) = messages.Frames().feed(sent)
        if self._asked == 2:
            return messages.authentication_sasl_continue(self._scram.first(*messages.parse_sasl_initial(message.body)))
        try:
            final = self._scram.final(messages.parse_sasl_response(message.body))
        except PasswordFailed as error:
            return messages.error_response("FATAL", error.code, error.message)
        return messages.authentication_sasl_final(final) + messages.authentication_ok() + AFTER


def logged_in(password: bytes, cut: int = 1 << 20) -> Login:
    """The login at its end, with what the endpoint says cut into pieces of `cut` bytes."""
    login, endpoint = Login(STARTUP, password, "client"), Endpoint()
    sent = login.begin()
    while not login.over:
        said = endpoint.answer(sent)
        sent = b"".join(login.feed(said[at : at + cut]) for at in range(0, len(said), cut))
    return login


@given(st.integers(1, 200))
def test_the_right_password(cut: int):
    """The client gets in, and hears all that comes after, however the endpoint's bytes are cut."""
    login = logged_in(b"right", 1 << 20 if cut > 100 else cut)
    assert login.welcome
    assert login.to_client.startswith(messages.authentication_ok())
    assert AFTER.startswith(login.to_client[len(messages.authentication_ok()) :])


def test_a_wrong_password():
    """The client gets the endpoint's own error."""
    login = logged_in(b"wrong")
    assert not login.welcome
    assert login.to_client == messages.error_response("FATAL", "28P01", 'password authentication failed for user "u"')


@pytest.mark.parametrize(
    "said",
    [
        messages.authentication_ok(),
        messages.authentication_cleartext(),
        messages.authentication(5, b"salt"),  # MD5
        messages.authentication_sasl(["NOBODY-KNOWS"]),
    ],
)
def test_who_does_not_ask_for_scram_is_told_no_password(said: bytes):
    """Another program may have the port: it must not hear the password, nor be taken for the endpoint."""
    login = Login(STARTUP, b"right", "client")
    login.begin()
    with pytest.raises(LoginRefused):
        login.feed(said)
    assert not login.over


def test_unexpected_messages_are_refused():
    login = Login(STARTUP, b"right", "client")
    with pytest.raises(Malformed):
        login.feed(messages.message(b"D", b""))
    with pytest.raises(TooLarge):
        Login(STARTUP, b"right", "client").feed(b"R\x7f\xff\xff\xff")


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(said: bytes):
    login = Login(STARTUP, b"right", "client")
    with suppress(WireError):
        login.feed(said)
    assert not login.welcome
