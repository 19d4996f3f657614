"""The channel binding of certificates."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lamplighter.gateway.binding import tls_server_end_point
from lamplighter.gateway.wire.errors import Malformed


def certificate(key, algorithm) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + dt.timedelta(days=1))
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        (hashes.SHA256(), "sha256"),
        (hashes.SHA384(), "sha384"),
        (hashes.SHA512(), "sha512"),
        (hashes.SHA224(), "sha224"),
    ],
)
def test_the_hash_is_that_of_the_signature(algorithm, name):
    der = certificate(ec.generate_private_key(ec.SECP256R1()), algorithm)
    assert tls_server_end_point(der) == hashlib.new(name, der).digest()


def test_a_signature_without_a_hash_cannot_be_bound_to():
    with pytest.raises(Malformed, match="names no hash"):
        tls_server_end_point(certificate(ed25519.Ed25519PrivateKey.generate(), None))


@pytest.mark.parametrize("der", [b"", b"no certificate"])
def test_what_is_no_certificate_is_malformed(der):
    with pytest.raises(Malformed):
        tls_server_end_point(der)
