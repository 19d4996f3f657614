"""SCRAM-SHA-256 verifiers as Postgres stores them, so that a clear password never reaches it, nor its logs.

Pure: the salt comes in as an argument.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import stringprep
import unicodedata

ITERATIONS = 4096


def verifier(password: str, salt: bytes, *, iterations: int = ITERATIONS) -> str:
    """`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, RFC 5802 and 7677. `salt` is of 16 bytes."""
    salted = hashlib.pbkdf2_hmac("sha256", _prepare(password), salt, iterations)
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


def _prepare(password: str) -> bytes:
    """SASLprep (RFC 4013). What it forbids is used as it is, as Postgres and libpq do."""
    if password.isascii() and password.isprintable():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    return password.encode() if not prepared or _forbidden(prepared) else prepared.encode()


def _forbidden(prepared: str) -> bool:
    tables = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if any(table(char) for char in prepared for table in tables):
        return True
    if not any(map(stringprep.in_table_d1, prepared)):
        return False
    # Text from right to left must be so throughout.
    ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
    return not ends or any(map(stringprep.in_table_d2, prepared))
