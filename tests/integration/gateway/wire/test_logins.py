"""Logins at a real Postgres, and of a real libpq: the ends of SCRAM that are not ours."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Self

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import pq

from lamplighter.gateway.binding import tls_server_end_point
from lamplighter.gateway.wire import messages, startup
from lamplighter.gateway.wire.errors import LoginRefused, PasswordFailed, WireError
from lamplighter.gateway.wire.scram import PLAIN, PLUS, Client, Server, keys_of, parse_verifier
from support.waiting import wait_for
from support.wire import PROTOCOL_3_0, BindingClient, Wire, render_verifier, verifier_of

PASSWORD = "pa$$;wörd\u00a0\u2168"
#: What libpq cannot take, and what the test of another character set would be about.
passwords = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
odd = st.text(
    st.sampled_from("a1 \u00a0\u00ad\u2168\u0627\u05d0\u0661\ufe70\ufdfa\ue000\u0378\U0001fae0é\u0301\x07"),
    min_size=1,
    max_size=4,
)


@given(passwords | odd)
@example("\ufe70a")
@example("\ufe70")
@example("\u00ad")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_password_is_hashed_as_libpq_hashes_it(database, password):
    connection = held(database)
    made = connection.encrypt_password(password.encode(), b"bob", b"scram-sha-256")
    verifier = parse_verifier(made.decode())
    assert verifier == verifier_of(
        keys_of(password.encode(), verifier.salt, verifier.iterations), verifier.salt, verifier.iterations
    )


_HELD: dict[int, psycopg.Connection] = {}


def held(database) -> pq.abc.PGconn:
    """One connection for all examples."""
    if database.port not in _HELD:
        _HELD[database.port] = database.admin()
    return _HELD[database.port].pgconn


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    while _HELD:
        _HELD.popitem()[1].close()


def test_a_password_logs_in(database, nonce):
    database.role("bob", PASSWORD)
    wire = database.local()
    with wire.sock:
        wire.log_in("bob", Client(nonce=nonce, password=PASSWORD.encode()))
        kinds = [message.kind for message in wire.until_ready()]
        assert b"K" in kinds
        assert [message.kind for message in wire.ask(b"SELECT 1")] == [b"T", b"D", b"C", b"Z"]


def test_the_session_has_a_key_that_cancels_it(database, nonce):
    """What is read of BackendKeyData, and the request that is written from it, are what Postgres means by them."""
    database.role("bob", PASSWORD)
    wire = database.local()
    with wire.sock:
        wire.log_in("bob", Client(nonce=nonce, password=PASSWORD.encode()))
        (key,) = [message for message in wire.until_ready() if message.kind == b"K"]
        wire.send(messages.message(b"Q", b"SELECT pg_sleep(60)\0"))
        canceller = database.local()
        with canceller.sock, database.admin() as admin:
            pid, secret = messages.parse_backend_key(key.body)
            sleeping = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            wait_for(lambda: admin.execute(sleeping, (pid,)).fetchone(), seconds=20, what="the query")
            canceller.send(startup.render_cancel(startup.CancelRequest(pid, secret)))
            told = [message for message in wire.until_ready() if message.kind == b"E"]
    assert [messages.parse_error(message.body)["code"] for message in told] == ["57014"]


def test_a_login_by_tls_is_bound_to_the_certificate(database, nonce):
    database.role("bob", PASSWORD)
    wire, binding = database.encrypted()
    with wire.sock:
        wire.log_in("bob", BindingClient(nonce=nonce, password=PASSWORD.encode(), binding=binding))
        assert [message.kind for message in wire.until_ready()][-1] == b"Z"


def test_postgres_refuses_a_binding_to_another_certificate(database, nonce):
    database.role("bob", PASSWORD)
    wire, _ = database.encrypted()
    client = BindingClient(nonce=nonce, password=PASSWORD.encode(), binding=hashlib.sha256(b"x").digest())
    with wire.sock, pytest.raises(AssertionError, match="SCRAM channel binding check failed"):
        wire.log_in("bob", client)


def test_a_wrong_password_is_an_error_that_can_be_read(database, nonce):
    database.role("bob", PASSWORD)
    wire = database.local()
    with wire.sock, pytest.raises(AssertionError, match="password authentication failed") as caught:
        wire.log_in("bob", Client(nonce=nonce, password=b"wrong"))
    told = caught.value.args[0]
    assert (told["code"], told["severity_nonlocalized"]) == ("28P01", "FATAL")


def test_keys_alone_log_in_where_no_password_is_known(database, nonce):
    """What a login at the gateway leaves opens Postgres, plain and bound."""
    verifier = parse_verifier(database.role("bob", PASSWORD))
    keys = learned(verifier, PASSWORD.encode())
    local = database.local()
    with local.sock:
        local.log_in("bob", Client(nonce=nonce, keys=keys))
        assert list(local.until_ready())
    wire, binding = database.encrypted()
    with wire.sock:
        wire.log_in("bob", BindingClient(nonce=nonce, keys=keys, binding=binding))
        assert list(wire.until_ready())


def learned(verifier, password: bytes):
    client = Client(nonce="c", password=password)
    server = Server(verifier, user="bob", nonce="s", mock_key=b"k")
    client.finish(server.final(client.final(server.first(*client.first(server.mechanisms)))))
    return server.keys


class Door:
    """The least gateway there can be: it ends TLS, runs SCRAM by the verifier, and logs in by the keys it learns."""

    def __init__(self, database, context: ssl.SSLContext, verifier: str | None, *, hides_plus: bool = False) -> None:
        self._database = database
        self._context = context
        self._hides_plus = hides_plus
        self._verifier = parse_verifier(verifier) if verifier else None
        self.mechanism = ""
        self.told: WireError | None = None
        certificate = ssl.PEM_cert_to_DER_cert(database.tls.certificate.read_text().partition("-----END")[0] + END)
        self._binding = tls_server_end_point(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, AssertionError, WireError):
            plain, _ = self._listener.accept()
            with plain:
                client = Wire.over(plain)
                packet, binding = client.read_packet(), None
                if packet == startup.SSL_REQUEST:
                    client.send(b"S")
                    client = Wire.over(self._context.wrap_socket(plain, server_side=True))
                    packet, binding = client.read_packet(), self._binding
                with client.sock:
                    self._session(client, startup.parse_startup(packet).user, binding)

    def _session(self, client, user: str, binding: bytes | None) -> None:
        server = Server(self._verifier, user=user, nonce=secrets.token_urlsafe(18), mock_key=b"k", binding=binding)
        try:
            self._scram(client, server)
        except WireError as error:
            self.told = error
            client.send(messages.error_response("FATAL", error.code, error.message, detail=error.detail))
            return
        backend = self._database.local()
        with backend.sock:
            backend.log_in(user, Client(nonce=secrets.token_urlsafe(18), keys=server.keys))
            client.send(messages.authentication_ok())
            while True:
                client.send(b"".join(message.render() for message in backend.until_ready()))
                while (question := client.read()).kind != b"Q":
                    if question.kind == b"X":
                        return
                backend.send(question.render())

    def _scram(self, client, server: Server) -> None:
        client.send(messages.authentication_sasl([PLAIN] if self._hides_plus else server.mechanisms))
        self.mechanism, data = messages.parse_sasl_initial(client.read().body)
        client.send(messages.authentication_sasl_continue(server.first(self.mechanism, data)))
        outcome = server.final(messages.parse_sasl_response(client.read().body))
        client.send(messages.authentication_sasl_final(outcome))


END = "-----END CERTIFICATE-----\n"


def connect(door: Door, database, **parameters: str) -> psycopg.Connection:
    return psycopg.connect(
        host="127.0.0.1",
        port=door.port,
        user="bob",
        dbname="neondb",
        sslrootcert=str(database.tls.authority),
        connect_timeout=20,
        gssencmode="disable",
        autocommit=True,
        **{"password": PASSWORD, **parameters},
    )


@pytest.mark.parametrize(
    ("parameters", "mechanism"),
    [
        ({"sslmode": "disable"}, PLAIN),
        ({"sslmode": "require"}, PLUS),
        ({"sslmode": "require", "channel_binding": "disable"}, PLAIN),
        ({"sslmode": "verify-full", "channel_binding": "require"}, PLUS),
    ],
    ids=str,
)
def test_libpq_logs_in_at_us_and_we_at_postgres(database, tls_context, parameters, mechanism):
    """The whole way: no password leaves the client, and each side is bound as it asks for."""
    verifier = database.role("bob", PASSWORD)
    with Door(database, tls_context, verifier) as door:
        connection = connect(door, database, **parameters)
        assert connection.execute("SELECT current_user").fetchone() == ("bob",)
        connection.close()
    assert door.mechanism == mechanism


@pytest.mark.parametrize("known", [True, False])
def test_libpq_is_told_of_a_wrong_password_as_postgres_tells(database, tls_context, known):
    """Whether the role is there or not."""
    verifier = database.role("bob", PASSWORD) if known else None
    with (
        Door(database, tls_context, verifier) as door,
        pytest.raises(psycopg.OperationalError, match='FATAL:  password authentication failed for user "bob"'),
    ):
        connect(door, database, password="wrong", sslmode="require")
    assert isinstance(door.told, PasswordFailed)


def test_libpq_notices_that_we_do_not_know_its_password(database, tls_context):
    """A verifier with another server key: the proof fits, our answer does not."""
    verifier = parse_verifier(database.role("bob", PASSWORD))
    forged = type(verifier)(verifier.iterations, verifier.salt, verifier.stored_key, bytes(32))
    with (
        Door(database, tls_context, render_verifier(forged)) as door,
        pytest.raises(psycopg.OperationalError, match="incorrect server signature"),
    ):
        connect(door, database, sslmode="require")


def test_libpq_finds_out_that_its_offer_was_made_smaller(database, tls_context):
    """We could bind, and somebody hides it: libpq says so, and is refused."""
    door = Door(database, tls_context, database.role("bob", PASSWORD), hides_plus=True)
    with (
        door,
        pytest.raises(psycopg.OperationalError, match="SCRAM channel binding negotiation error"),
    ):
        connect(door, database, sslmode="require")
    assert isinstance(door.told, LoginRefused)


LAYOUTS = (
    b"",
    b"\0",
    b"user\0bob\0\0",
    b"user\0bob\0database\0neondb\0\0",
    b"user\0bob",
    b"user\0bob\0",
    b"user\0",
    b"\0user\0bob\0\0",
    b"user\0bob\0\0\0",
    b"user\0bob\0x\0\0",
    b"database\0neondb\0\0",
    b"user\0\0\0",
    b"user\0nobody\0user\0bob\0\0",
)


def test_a_startup_is_refused_where_postgres_refuses_it_and_by_the_same_code(database):
    database.role("bob", PASSWORD)
    packets = [struct.pack("!II", 8 + len(body), PROTOCOL_3_0) + body for body in LAYOUTS]
    packets.append(struct.pack("!II", startup.LONGEST + 1, PROTOCOL_3_0) + bytes(startup.LONGEST - 7))
    assert {packet: ours(packet) for packet in packets} == {packet: theirs(database, packet) for packet in packets}


def ours(packet: bytes) -> str | None:
    try:
        startup.parse_startup(packet)
    except WireError as error:
        return error.code
    return None


def theirs(database, packet: bytes) -> str | None:
    """The SQLSTATE of Postgres's error. It closes without a word on a length that it does not take."""
    wire = database.local()
    with wire.sock:
        wire.send(packet)
        answer = wire.read_or_end()
    if answer is None:
        return "08P01"
    return messages.parse_error(answer.body)["code"] if answer.kind == b"E" else None
