"""Role passwords at rest: sealed with a key file of mode 0600, since the API can reveal them.

AES-256-GCM; the sealed form is a random 12-byte nonce followed by the ciphertext. What a value belongs to is
authenticated with it, so that a sealed password cannot be moved to another role's row.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lamplighter.control.errors import SealBroken
from lamplighter.files import write_atomic

NONCE = 12
KEY = 32


class Sealer:
    """Seals and opens short texts with one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def from_file(cls, path: Path) -> Sealer:
        """Read the key, or make one for a new platform. Raises SealBroken for a file that holds no key."""
        if not path.exists():
            write_atomic(path, AESGCM.generate_key(bit_length=8 * KEY), mode=0o600)
        key = path.read_bytes()
        if len(key) != KEY:
            raise SealBroken(str(path))
        return cls(key)

    def seal(self, text: str, *, belongs_to: str) -> bytes:
        """The sealed form of `text`."""
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, text.encode(), belongs_to.encode())

    def open(self, sealed: bytes, *, belongs_to: str) -> str:
        """The text again. Raises `SealBroken` when the key or the owner is not the one it was sealed with."""
        try:
            return self._cipher.decrypt(sealed[:NONCE], sealed[NONCE:], belongs_to.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise SealBroken(belongs_to) from error
