"""A key's value while this process holds it: one page of memory of its own, wiped when it is done with.

Python cannot promise that no other copy was ever made; this makes sure that we make none that lasts. The page is left
out of core dumps and of forked children where the kernel can do that.
"""

from __future__ import annotations

import hmac
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Never, Self

SHOWN = "***"

#: Neon's keys are about 70 characters; no store takes more than 64 KiB.
MAX_LENGTH = 65_536


def wipe(data: bytearray | memoryview) -> None:
    """Overwrite `data` with zeros, in place."""
    data[:] = bytes(len(data))


class KeyBuffer:
    """Holds bytes that are secret; `with buffer.reveal() as view` is the only way to them.

    It shows itself as `***`, cannot be pickled or copied, and two of them are never equal: compare by `matches`. Used
    as a context manager it is wiped at the end.
    """

    __slots__ = ("_length", "_page")

    _page: mmap.mmap
    _length: int

    def __init__(self, source: bytearray | memoryview) -> None:
        """Moves the value here: `source` is zeros afterwards. Raises ValueError for one that is empty or too long."""
        length = len(source)
        if not 0 < length <= MAX_LENGTH:
            wipe(source)
            raise ValueError(f"a key's value has 1 to {MAX_LENGTH} bytes")
        self._page = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for advice in ("MADV_DONTDUMP", "MADV_DONTFORK"):
            # A kernel or a platform may not have it: the value is then as safe as any other memory.
            with suppress(AttributeError, OSError):
                self._page.madvise(getattr(mmap, advice))
        with memoryview(self._page) as view:
            view[:] = source
        self._length = length
        wipe(source)

    @contextmanager
    def reveal(self) -> Iterator[memoryview]:
        """The bytes themselves, read-only, without a copy. Raises ValueError when they were wiped."""
        if not self._length:
            raise ValueError("this value was wiped")
        with memoryview(self._page) as whole, whole[: self._length] as part, part.toreadonly() as view:
            yield view

    def mac(self, salt: bytes) -> str:
        """HMAC-SHA256 in hex: what journals and reports may hold of the value."""
        with self.reveal() as view:
            return hmac.digest(salt, view, "sha256").hex()

    def matches(self, mac: str, salt: bytes) -> bool:
        """Whether this is the value that `mac` was made of, in time that does not depend on the value."""
        return hmac.compare_digest(self.mac(salt), mac)

    def wipe(self) -> None:
        """Overwrite the value. May be called again. Not while a view is in use."""
        if self._length:
            self._page[:] = bytes(len(self._page))
            self._length = 0

    def __bool__(self) -> bool:
        """Whether it still holds a value."""
        return self._length > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.wipe()

    def __del__(self) -> None:
        # Of an object whose __init__ failed there may be no page.
        with suppress(AttributeError, ValueError):
            self.wipe()

    def __repr__(self) -> str:
        return SHOWN

    def __str__(self) -> str:
        return SHOWN

    def __format__(self, spec: str, /) -> str:
        return format(SHOWN, spec)

    def __reduce_ex__(self, protocol: object, /) -> Never:
        raise TypeError("a key's value cannot be pickled")

    def __copy__(self) -> Never:
        raise TypeError("a key's value cannot be copied")

    def __deepcopy__(self, memo: object) -> Never:
        raise TypeError("a key's value cannot be copied")
