"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both ends of it, as Postgres does them (RFC 5802, 5929, 7677).

Messages come in and go out as bytes; nonces come in as arguments, and must be new and not to be guessed each time
(18 random bytes in base64 are what Postgres takes). Who has been a `Server` to a client knows its `ClientKeys` and can
be a `Client` by them to whatever server has the same verifier: so a login is passed through without the password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from lamplighter.gateway.wire.errors import LoginRefused, Malformed, PasswordFailed, ServerUnproven, TooManyIterations
from lamplighter.saslprep import prepare

PLAIN = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"
ITERATIONS = 4096
#: What a server may ask of us: some 50 milliseconds of a processor. Whoever owns a role sets its count, up to billions.
MOST_ITERATIONS = 100_000

_SIZE = 32
_BINDING_TYPE = "tls-server-end-point"
#: Printable ASCII but the comma, as RFC 5802 has it.
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+")


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What stands in for a password. `client_key` proves the client, `server_key` the server; secret, both."""

    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verifier:
    """What Postgres keeps of a password (pg_authid.rolpassword)."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


def parse_verifier(text: str) -> Verifier:
    """Of `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. Raises Malformed, without the text."""
    match = re.fullmatch(r"SCRAM-SHA-256\$([0-9]{1,10}):([^$:]+)\$([^$:]+):([^$:]+)", text, re.ASCII)
    if match is None:
        raise Malformed("not a SCRAM-SHA-256 verifier")
    iterations, salt = int(match[1]), _unb64(match[2])
    stored_key, server_key = _unb64(match[3]), _unb64(match[4])
    if not iterations or len(stored_key) != _SIZE or len(server_key) != _SIZE:
        raise Malformed("not a SCRAM-SHA-256 verifier")
    return Verifier(iterations, salt, stored_key, server_key)


def keys_of(password: bytes, salt: bytes, iterations: int = ITERATIONS) -> ClientKeys:
    """Costs about a millisecond for 4,096 iterations."""
    salted = hashlib.pbkdf2_hmac("sha256", prepare(password), salt, iterations)
    return ClientKeys(hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256"))


class Server:
    """The server's end of one login: `first`, then `final`; then `keys` are the client's.

    `verifier` None stands for a role that is not there, or has no such password: the talk goes on as with any other,
    with a salt that is always the same for this `user` and `mock_key` (a secret of the gateway's), and fails at its
    end. `binding` is the hash of the certificate that the client sees (`gateway.binding`); None where there is no TLS.
    """

    def __init__(
        self, verifier: Verifier | None, *, user: str, nonce: str, mock_key: bytes, binding: bytes | None = None
    ) -> None:
        self._known = verifier is not None
        self._verifier = verifier or _mock(user, mock_key)
        self._user = user
        self._nonce = nonce
        self._binding = binding
        self._keys: ClientKeys | None = None
        self._header = self._first_bare = self._server_first = b""
        self._bound = False

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """To be offered, the better one first."""
        return (PLAIN,) if self._binding is None else (PLUS, PLAIN)

    @property
    def keys(self) -> ClientKeys:
        """The client's, after `final`. They are as good as the password: keep them no longer than the login lasts."""
        if self._keys is None:
            raise PasswordFailed(self._user)
        return self._keys

    def first(self, mechanism: str, data: bytes | None) -> bytes:
        """Answer to the client's first message. Raises Malformed, LoginRefused."""
        if mechanism not in self.mechanisms:
            raise Malformed("client selected an invalid SASL authentication mechanism")
        self._bound = mechanism == PLUS
        flag, authzid, bare = _split_header(data or b"")
        self._check_flag(flag)
        if authzid:
            raise LoginRefused("client uses authorization identity, but it is not supported", code="0A000")
        self._header, self._first_bare = (data or b"")[: -len(bare)], bare
        client_nonce = _client_nonce(_text(bare))
        asked = self._verifier
        self._nonce = client_nonce + self._nonce
        self._server_first = f"r={self._nonce},s={_b64(asked.salt)},i={asked.iterations}".encode()
        return self._server_first

    def _check_flag(self, flag: str) -> None:
        if self._bound != flag.startswith("p="):
            raise _malformed("The channel binding of the message does not fit the mechanism that the client selected.")
        if self._bound and flag != f"p={_BINDING_TYPE}":
            raise LoginRefused("unsupported SCRAM channel-binding type", code="08P01")
        if flag == "y" and self._binding is not None:
            # Somebody between us has taken SCRAM-SHA-256-PLUS off our offer.
            raise LoginRefused(
                "SCRAM channel binding negotiation error",
                detail="The client supports SCRAM channel binding but thinks the server does not. "
                "However, this server does support channel binding.",
            )

    def final(self, data: bytes) -> bytes:
        """Answer to the client's proof. Raises Malformed, LoginRefused; PasswordFailed alike for whatever reason."""
        without_proof, mark, proof_text = data.rpartition(b",p=")
        attributes = _text(without_proof).split(",")
        proof = _unb64(_text(proof_text)) if mark else b""
        if len(proof) != _SIZE or len(attributes) < 2:
            raise _malformed("Malformed message in client-final-message.")
        self._check_binding(attributes[0])
        if not hmac.compare_digest(attributes[1].encode(), f"r={self._nonce}".encode()):
            raise Malformed("invalid SCRAM response", detail="Nonce does not match.")
        if any(attribute.startswith("m=") for attribute in attributes):
            raise LoginRefused("client requires an unsupported SCRAM extension", code="0A000")
        said = b",".join((self._first_bare, self._server_first, without_proof))
        signature = hmac.digest(self._verifier.stored_key, said, "sha256")
        client_key = _xor(proof, signature)
        proven = hmac.compare_digest(hashlib.sha256(client_key).digest(), self._verifier.stored_key)
        if not (proven and self._known):
            raise PasswordFailed(self._user)
        self._keys = ClientKeys(client_key, self._verifier.server_key)
        return b"v=" + _b64(hmac.digest(self._verifier.server_key, said, "sha256")).encode()

    def _check_binding(self, attribute: str) -> None:
        expected = self._header + (self._binding or b"" if self._bound else b"")
        if hmac.compare_digest(attribute.encode(), f"c={_b64(expected)}".encode()):
            return
        if self._bound:
            raise LoginRefused("SCRAM channel binding check failed")
        raise Malformed("unexpected SCRAM channel-binding attribute in client-final-message")


class Client:
    """The client's end of one login, by password or by the keys of an earlier one: `first`, `final`, `finish`.

    It binds to no channel: servers are processes of this host, whose certificate is known where there is TLS.
    """

    def __init__(self, *, nonce: str, password: bytes | None = None, keys: ClientKeys | None = None) -> None:
        if (password is None) == (keys is None):
            raise ValueError("A login needs either a password or keys.")
        self._password = password
        self._keys = keys
        self._nonce = nonce
        # Postgres takes the role from the startup packet and ignores this one; libpq sends it empty, too.
        self._bare = f"n=,r={nonce}".encode()
        self._header = b"n,,"
        self._said = b""

    def first(self, offered: tuple[str, ...]) -> tuple[str, bytes]:
        """Mechanism and first message. Raises LoginRefused if none of the server's mechanisms will do."""
        if PLAIN not in offered:
            raise LoginRefused("the server offers no authentication mechanism that can be used")
        return PLAIN, self._header + self._bare

    def final(self, server_first: bytes) -> bytes:
        """The proof. Raises Malformed, TooManyIterations. With a password, this is what costs: see `keys_of`."""
        nonce, salt, iterations = _parse_server_first(_text(server_first))
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise Malformed("invalid SCRAM response", detail="Nonce does not match.")
        if self._keys is None:
            if iterations > MOST_ITERATIONS:
                raise TooManyIterations(iterations, MOST_ITERATIONS)
            self._keys = keys_of(self._password or b"", salt, iterations)
        without_proof = f"c={_b64(self._header)},r={nonce}".encode()
        self._said = b",".join((self._bare, server_first, without_proof))
        stored_key = hashlib.sha256(self._keys.client_key).digest()
        proof = _xor(self._keys.client_key, hmac.digest(stored_key, self._said, "sha256"))
        return without_proof + b",p=" + _b64(proof).encode()

    def finish(self, server_final: bytes) -> None:
        """Check that the server knows us, too. Raises Malformed, LoginRefused, ServerUnproven."""
        kind, _, value = _text(server_final).partition("=")
        if kind == "e":
            raise LoginRefused("the server does not accept the proof of the password", code=PasswordFailed.code)
        if kind != "v" or self._keys is None:
            raise _malformed("Malformed message in server-final-message.")
        expected = hmac.digest(self._keys.server_key, self._said, "sha256")
        if not hmac.compare_digest(_unb64(value.partition(",")[0]), expected):
            raise ServerUnproven


def _mock(user: str, mock_key: bytes) -> Verifier:
    salt = hmac.digest(mock_key, user.encode("utf-8", "surrogateescape"), "sha256")[:16]
    return Verifier(ITERATIONS, salt, bytes(_SIZE), bytes(_SIZE))


def _split_header(data: bytes) -> tuple[str, str, bytes]:
    """Of a client's first message: the flag of channel binding, the identity, and the rest, which is never empty."""
    parts = data.split(b",", 2)
    if len(parts) != 3 or not parts[2]:
        raise _malformed("Malformed message in client-first-message.")
    flag, authzid = _text(parts[0]), _text(parts[1])
    if not (flag in {"n", "y"} or flag.startswith("p=")):
        raise _malformed("Unexpected channel-binding flag.")
    if authzid and not authzid.startswith("a="):
        raise _malformed("Unexpected attribute in client-first-message.")
    return flag, authzid, parts[2]


def _client_nonce(bare: str) -> str:
    attributes = bare.split(",")
    if attributes[0].startswith("m="):
        raise LoginRefused("client requires an unsupported SCRAM extension", code="0A000")
    if len(attributes) < 2 or not attributes[0].startswith("n=") or not attributes[1].startswith("r="):
        raise _malformed("Malformed message in client-first-message.")
    nonce = attributes[1][2:]
    if not _NONCE.fullmatch(nonce):
        raise _malformed("non-printable characters in SCRAM nonce")
    return nonce


def cost_of(server_first: bytes) -> tuple[bytes, int]:
    """The salt and the number of iterations that a server asks for. Raises Malformed."""
    return _parse_server_first(_text(server_first))[1:]


def _parse_server_first(text: str) -> tuple[str, bytes, int]:
    attributes = text.split(",")
    if len(attributes) < 3 or [attribute[:2] for attribute in attributes[:3]] != ["r=", "s=", "i="]:
        raise _malformed("Malformed message in server-first-message.")
    nonce, salt, count = (attribute[2:] for attribute in attributes[:3])
    if not re.fullmatch(r"[1-9][0-9]{0,9}", count, re.ASCII):
        raise _malformed("Invalid iteration count.")
    return nonce, _unb64(salt), int(count)


def _malformed(detail: str) -> Malformed:
    return Malformed("malformed SCRAM message", detail=detail)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _malformed("It is no text.") from None


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _unb64(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("It has bad base64.") from None
    # Spare bits at the end are another spelling of the same bytes: nobody honest uses one.
    if _b64(value) != text:
        raise _malformed("It has bad base64.")
    return value


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
