"""Passwords as SCRAM wants them (SASLprep, RFC 4013), with the habits of Postgres and libpq.

They look for forbidden characters before the text is normalized, not after, and take a password that is forbidden, or
no UTF-8, as the bytes that it is. To do it by the book would lock such passwords out.
"""

from __future__ import annotations

import stringprep
import unicodedata

_FORBIDDEN = (
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


def prepare(password: bytes) -> bytes:
    """The bytes that SCRAM hashes."""
    if password.isascii():
        return password
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    if not mapped or _forbidden(mapped):
        return password
    return unicodedata.normalize("NFKC", mapped).encode()


def _forbidden(mapped: str) -> bool:
    if any(table(char) for char in mapped for table in _FORBIDDEN):
        return True
    if not any(map(stringprep.in_table_d1, mapped)):
        return False
    # Text from right to left must be so throughout.
    ends = stringprep.in_table_d1(mapped[0]) and stringprep.in_table_d1(mapped[-1])
    return not ends or any(map(stringprep.in_table_d2, mapped))
