"""SCRAM-SHA-256 verifiers as Postgres stores them, so that a clear password never reaches it, nor its logs.

Pure: the salt comes in as an argument.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from lamplighter.saslprep import prepare

ITERATIONS = 4096


def verifier(password: str, salt: bytes, *, iterations: int = ITERATIONS) -> str:
    """`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, RFC 5802 and 7677. `salt` is of 16 bytes."""
    salted = hashlib.pbkdf2_hmac("sha256", prepare(password.encode()), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def matches(password: str, stored: str) -> bool:
    """Whether a stored verifier was made from this password. False for what is no verifier."""
    try:
        scheme, parameters, _ = stored.split("$")
        iterations, salt = parameters.split(":")
        made = verifier(password, base64.b64decode(salt, validate=True), iterations=int(iterations))
    except (ValueError, OverflowError):
        return False
    return scheme == "SCRAM-SHA-256" and hmac.compare_digest(made, stored)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
