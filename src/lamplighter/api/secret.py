"""A string that must not be seen: API keys, role passwords, connection strings.

It shows itself as `***` wherever Python prints it and refuses to be pickled or turned into JSON, so that a secret only
leaves the process where somebody wrote `.reveal()`.
"""

from __future__ import annotations

import hmac
from typing import Never

SHOWN = "***"


class Secret:
    """Holds a string; `reveal()` is the only way to it. Equality takes the same time for every pair of one length."""

    __slots__ = ("_value",)

    _value: str

    def __init__(self, value: str) -> None:
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """The string itself. Keep what you do with it short."""
        return self._value

    def __repr__(self) -> str:
        return SHOWN

    def __str__(self) -> str:
        return SHOWN

    def __format__(self, spec: str, /) -> str:
        return format(SHOWN, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError("a Secret cannot be changed; make a new one")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError("a Secret cannot be changed; make a new one")

    def __reduce_ex__(self, protocol: object, /) -> Never:
        raise TypeError("a Secret cannot be pickled; reveal() it where it has to leave the process")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self
