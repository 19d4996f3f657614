"""The channel binding of a certificate (tls-server-end-point, RFC 5929): its hash, as Postgres and libpq take it.

Slow to import: a gateway does it in a thread of its own (`web_later`), or once somebody cannot do without.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from lamplighter.gateway.wire.errors import Malformed


def tls_server_end_point(certificate: bytes) -> bytes:
    """The hash of a DER certificate by the hash of its own signature; by SHA-256 where that is MD5 or SHA-1.

    Raises Malformed for one whose signature names no hash (Ed25519, RSA-PSS with unknown ones): RFC 5929 does not say
    what to do, and so libpq refuses to bind to it.
    """
    try:
        signed = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        signed = None
    if signed is None:
        raise Malformed("the certificate's signature names no hash: it cannot be bound to")
    name = "sha256" if isinstance(signed, (hashes.MD5, hashes.SHA1)) else signed.name.replace("-", "_")
    return hashlib.new(name, certificate).digest()
