"""SCRAM: the example of RFC 7677, both ends against each other, and whoever changes a byte."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamplighter.gateway.wire.errors import (
    LoginRefused,
    Malformed,
    PasswordFailed,
    ServerUnproven,
    TooManyIterations,
    WireError,
)
from lamplighter.gateway.wire.scram import (
    MOST_ITERATIONS,
    PLAIN,
    PLUS,
    Client,
    ClientKeys,
    Server,
    Verifier,
    keys_of,
    parse_verifier,
)
from support.wire import BindingClient, render_verifier, verifier_of

RFC = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = bytes(range(16))
HASH = hashlib.sha256(b"a certificate").digest()

passwords = st.binary(min_size=1, max_size=20)
bindings = st.sampled_from([None, HASH])


def made(password: bytes) -> Verifier:
    return verifier_of(keys_of(password, SALT, 2), SALT, 2)


def server(verifier: Verifier | None, binding: bytes | None = None, user: str = "alice") -> Server:
    return Server(verifier, user=user, nonce=SERVER_NONCE, mock_key=b"k", binding=binding)


def knowing(binding: bytes | None, password: bytes, nonce: str = "c") -> Client:
    """A client that binds, if there is something to bind to."""
    if binding is None:
        return Client(nonce=nonce, password=password)
    return BindingClient(nonce=nonce, password=password, binding=binding)


def talk(client: Client, to: Server) -> ClientKeys:
    mechanism, first = client.first(to.mechanisms)
    client.finish(to.final(client.final(to.first(mechanism, first))))
    return to.keys


def test_the_example_of_rfc_7677():
    client, to = Client(nonce=CLIENT_NONCE, password=b"pencil"), server(parse_verifier(RFC))
    # Ours leaves the name out, as libpq does, and that of the example is proven with it.
    assert client.first(to.mechanisms) == (PLAIN, b"n,,n=,r=rOprNGfwEbeRWgbNEkqO")
    client._bare = b"n=user,r=rOprNGfwEbeRWgbNEkqO"
    challenge = to.first(PLAIN, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert challenge == (b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    proof = client.final(challenge)
    assert proof == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    outcome = to.final(proof)
    assert outcome == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    client.finish(outcome)


def test_a_verifier_is_read_as_postgres_keeps_it():
    assert render_verifier(parse_verifier(RFC)) == RFC
    salt = parse_verifier(RFC).salt
    assert verifier_of(keys_of(b"pencil", salt), salt) == parse_verifier(RFC)


def test_secrets_are_not_in_what_is_printed_of_them():
    assert "key=" not in repr(keys_of(b"pencil", SALT, 2)) + repr(parse_verifier(RFC))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "md5" + "0" * 32,
        RFC[:-1],
        RFC + "x",
        RFC.replace("4096", "0"),
        RFC.replace("4096", "x"),
        RFC.replace("SHA-256", "SHA-1"),
        RFC.replace("WG5d", "WG5"),
        RFC.replace(":W22Z", ":%22Z"),
    ],
)
def test_what_is_no_verifier_is_malformed_and_not_repeated(text):
    with pytest.raises(Malformed) as caught:
        parse_verifier(text)
    assert not text or text not in str(caught.value)


@given(passwords, bindings)
def test_who_knows_the_password_gets_in_and_can_be_passed_through(password, binding):
    """The keys that the server learns are enough to log in once more, to a server with another nonce and binding."""
    verifier = made(password)
    keys = talk(knowing(binding, password, "c1"), server(verifier, binding))
    assert keys == keys_of(password, SALT, 2)
    assert talk(Client(nonce="c2", keys=keys), server(verifier)) == keys
    assert talk(BindingClient(nonce="c3", keys=keys, binding=HASH), server(verifier, HASH)) == keys


@given(passwords, passwords, bindings)
def test_who_does_not_know_the_password_stays_out(password, other, binding):
    to = server(made(password + b"x"), binding)
    if other == password + b"x":
        return
    with pytest.raises(PasswordFailed, match='authentication failed for user "alice"'):
        talk(knowing(binding, other), to)
    with pytest.raises(PasswordFailed):
        to.keys  # noqa: B018


@given(passwords, st.text(max_size=8))
def test_a_role_that_is_not_there_cannot_be_told_from_a_wrong_password(password, user):
    """Same form, the same salt each time, another one for another role, and the same error."""

    def challenge(name: str, nonce: str) -> bytes:
        to = Server(None, user=name, nonce=nonce, mock_key=b"k")
        return to.first(PLAIN, b"n,,n=,r=c").partition(b",")[2]

    assert challenge(user, "s1") == challenge(user, "s2") != challenge(user + "x", "s1")
    real = server(verifier_of(keys_of(b"pw", SALT), SALT)).first(PLAIN, b"n,,n=,r=c").partition(b",")[2]
    assert len(real) == len(challenge(user, "s1"))
    assert real.endswith(b",i=4096")
    assert challenge(user, "s1").endswith(b",i=4096")
    with pytest.raises(PasswordFailed):
        talk(Client(nonce="c", keys=keys_of(password, SALT, 2)), server(None, user=user))


def test_the_keys_of_nothing_do_not_open_a_role_that_is_not_there():
    """The stand-in has keys of zeros: who sends a proof made for them gets no further."""
    for keys in (ClientKeys(bytes(32), bytes(32)), keys_of(b"", SALT, 2)):
        with pytest.raises(PasswordFailed):
            talk(Client(nonce="c", keys=keys), server(None))


def test_a_better_mechanism_is_offered_where_there_is_tls_and_not_taken():
    """What we log in to is on this host."""
    assert server(None).mechanisms == (PLAIN,)
    assert server(None, HASH).mechanisms == (PLUS, PLAIN)
    assert Client(nonce="c", password=b"x").first((PLUS, PLAIN)) == (PLAIN, b"n,,n=,r=c")


def test_an_offer_without_a_mechanism_of_ours_is_refused():
    with pytest.raises(LoginRefused, match="no authentication mechanism"):
        Client(nonce="c", password=b"x").first(("SCRAM-SHA-1",))


def test_a_binding_to_another_certificate_is_refused():
    other = hashlib.sha256(b"another").digest()
    with pytest.raises(LoginRefused, match="channel binding check failed"):
        talk(knowing(other, b"x"), server(made(b"x"), HASH))


def test_an_offer_that_somebody_has_made_smaller_is_noticed():
    """The client could bind, and thinks that we cannot: somebody between has taken PLUS off our offer."""
    mechanism, first = knowing(HASH, b"x").first((PLAIN,))
    with pytest.raises(LoginRefused, match="negotiation") as caught:
        server(made(b"x"), HASH).first(mechanism, first)
    assert caught.value.code == "28000"
    assert "does support channel binding" in str(caught.value.detail)
    # Where we cannot indeed, all is well.
    talk(knowing(HASH, b"x"), server(made(b"x")))


@pytest.mark.parametrize(
    ("mechanism", "first", "error"),
    [
        ("SCRAM-SHA-1", b"n,,n=,r=c", "invalid SASL authentication mechanism"),
        (PLAIN, None, "Malformed message"),
        (PLAIN, b"", "Malformed message"),
        (PLAIN, b"n,,", "Malformed message"),
        (PLAIN, b"x,,n=,r=c", "Unexpected channel-binding flag"),
        (PLAIN, b"p=tls-server-end-point,,n=,r=c", "does not fit"),
        (PLUS, b"n,,n=,r=c", "does not fit"),
        (PLUS, b"y,,n=,r=c", "does not fit"),
        (PLUS, b"p=tls-unique,,n=,r=c", "unsupported SCRAM channel-binding type"),
        (PLAIN, b"n,a=bob,n=,r=c", "authorization identity"),
        (PLAIN, b"n,bob,n=,r=c", "Unexpected attribute"),
        (PLAIN, b"n,,m=x,n=,r=c", "unsupported SCRAM extension"),
        (PLAIN, b"n,,r=c", "Malformed message"),
        (PLAIN, b"n,,n=,r=", "non-printable"),
        (PLAIN, b"n,,n=,r=a b", "non-printable"),
        (PLAIN, b"n,,n=,r=\xff", "no text"),
    ],
)
def test_a_first_message_that_will_not_do(mechanism, first, error):
    with pytest.raises(WireError, match=error):
        server(made(b"x"), HASH).first(mechanism, first)


@pytest.mark.parametrize(
    ("final", "error"),
    [
        (b"", "base64|Malformed message"),
        (b"c=biws,r={r}", "Malformed message"),
        (b"c=biws,p={p}", "Malformed message"),
        (b"c=eSws,r={r},p={p}", "channel-binding attribute"),
        (b"c=biws,r=other,p={p}", "Nonce does not match"),
        (b"c=biws,r={r},m=x,p={p}", "unsupported SCRAM extension"),
        (b"c=biws,r={r},p=AAAA", "Malformed message"),
        (b"c=biws,r={r},p=%%%%", "base64"),
        (b"c=biws,r={r},p={p}", "password authentication failed"),
    ],
)
def test_a_proof_that_will_not_do(final, error):
    to = server(made(b"x"))
    to.first(PLAIN, b"n,,n=,r=c")
    nonce, proof = ("c" + SERVER_NONCE).encode(), b"A" * 43 + b"="
    with pytest.raises(WireError, match=error):
        to.final(final.replace(b"{r}", nonce).replace(b"{p}", proof))


@pytest.mark.parametrize(
    ("challenge", "error"),
    [
        (b"", "Malformed message"),
        (b"r=cs,s=AAAA", "Malformed message"),
        (b"r=xs,s=AAAA,i=1", "Nonce"),
        (b"r=c,s=AAAA,i=1", "Nonce"),
        (b"r=cs,s=%,i=1", "base64"),
        (b"r=cs,s=AAAA,i=0", "iteration"),
        (b"r=cs,s=AAAA,i=-1", "iteration"),
        (b"m=x,r=cs,s=AAAA,i=1", "Malformed message"),
        (b"r=cs\xff,s=AAAA,i=1", "no text"),
    ],
)
def test_a_challenge_that_will_not_do(challenge, error):
    client = Client(nonce="c", password=b"x")
    client.first((PLAIN,))
    with pytest.raises(Malformed, match=error):
        client.final(challenge)


def test_a_password_is_not_hashed_for_ever():
    """Who owns a role sets its iterations. Who has the keys already has nothing to hash."""
    asked = b"r=cs,s=AAAA,i=%d" % (MOST_ITERATIONS + 1)
    client = Client(nonce="c", password=b"x")
    client.first((PLAIN,))
    with pytest.raises(TooManyIterations, match=str(MOST_ITERATIONS + 1)):
        client.final(asked)
    keyed = Client(nonce="c", keys=keys_of(b"x", b"salt", 1))
    keyed.first((PLAIN,))
    assert keyed.final(asked)


@pytest.mark.parametrize(
    ("outcome", "error"),
    [(b"v=" + b"A" * 43 + b"=", ServerUnproven), (b"e=invalid-proof", LoginRefused), (b"x", Malformed)],
)
def test_a_server_that_does_not_know_the_password_is_left(outcome, error):
    client = Client(nonce="c", password=b"x")
    client.first((PLAIN,))
    client.final(b"r=cs,s=AAAA,i=1")
    with pytest.raises(error):
        client.finish(outcome)


@pytest.mark.parametrize("given_", [{}, {"password": b"x", "keys": ClientKeys(b"", b"")}])
def test_a_client_has_a_password_or_keys(given_):
    with pytest.raises(ValueError, match="either a password or keys"):
        Client(nonce="c", **given_)


@given(st.integers(0, 3), st.integers(0, 200), st.integers(1, 127), bindings)
@settings(max_examples=300)
def test_whoever_changes_a_byte_on_the_way_gets_nobody_in(message, at, flip, binding):
    client, to = knowing(binding, b"pw", "cnonce"), server(made(b"pw"), binding)

    def on_the_way(number: int, data: bytes) -> bytes:
        if number != message:
            return data
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]

    def log_in() -> None:
        mechanism, first = client.first(to.mechanisms)
        outcome = to.final(on_the_way(2, client.final(on_the_way(1, to.first(mechanism, on_the_way(0, first))))))
        client.finish(on_the_way(3, outcome))

    with pytest.raises(WireError):
        log_in()


@given(st.sampled_from([PLAIN, PLUS, "X"]), st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_refused_by_the_errors_of_the_wire(mechanism, first, final, outcome):
    to, client = server(made(b"x"), HASH), knowing(HASH, b"x")
    client.first((PLUS,))
    for step in (
        lambda: to.first(mechanism, first),
        lambda: to.final(final),
        lambda: client.final(first),
        lambda: client.finish(outcome),
    ):
        with contextlib.suppress(WireError):
            step()
    with pytest.raises(PasswordFailed):
        to.keys  # noqa: B018
